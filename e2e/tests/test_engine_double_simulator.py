"""The simulated engine: batching, speeds, KV cache and prefix hits, in virtual time.

The HTTP side is in test_engine_double_server.py, the comparison with vLLM in test_engine_contract.py.
"""

import random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine_double.kv_cache import KVCache
from engine_double.simulator import Simulator
from engine_double.text import block_keys, embedding, pieces, rendered_chat, tokens_in
from engine_double.work import Event, Finished, FinishReason, Generated, Limits, Record, Request, Speeds

BLOCK = 16


def simulator(
    *,
    prefill: float = 1000.0,
    step: float = 0.01,
    seqs: int = 4,
    batched: int = 2048,
    blocks: int = 1000,
    prefix_caching: bool = True,
) -> Simulator:
    return Simulator(
        Speeds(prefill_tokens_per_second=prefill, decode_step_seconds=step),
        Limits(
            max_num_seqs=seqs,
            max_num_batched_tokens=batched,
            kv_blocks=blocks,
            block_tokens=BLOCK,
            prefix_caching=prefix_caching,
        ),
    )


def request(name: str, prompt: int = 100, reply: int = 5, keys: tuple[int, ...] = ()) -> Request:
    return Request(id=name, prompt_tokens=prompt, reply_tokens=reply, block_keys=keys)


def run(engine: Simulator) -> list[Event]:
    """Everything that still happens, with every invariant checked after each step."""
    events: list[Event] = []
    while (change := engine.next_change()) is not None:
        events.extend(engine.advance(change))
        engine.check()
    return events


def records(events: list[Event]) -> dict[str, Record]:
    return {event.request_id: event.record for event in events if isinstance(event, Finished)}


def test_an_empty_engine_has_nothing_to_do() -> None:
    engine = simulator()
    assert engine.next_change() is None
    assert engine.advance(5.0) == []


def test_the_first_token_comes_with_the_end_of_the_prefill_and_then_one_each_step() -> None:
    engine = simulator(prefill=1000.0, step=0.01)
    engine.submit(request("a", prompt=200, reply=3), now=1.0)
    tokens = [event.at for event in run(engine) if isinstance(event, Generated)]
    assert tokens == pytest.approx([1.2, 1.21, 1.22])


def test_nothing_happens_before_its_time() -> None:
    engine = simulator(prefill=1000.0)
    engine.submit(request("a", prompt=200), now=0.0)
    assert engine.advance(0.1999) == []
    assert [type(event) for event in engine.advance(0.2)] == [Generated]


def test_an_embedding_ends_with_its_prompt_and_generates_nothing() -> None:
    engine = simulator()
    engine.submit(request("a", prompt=50, reply=0), now=0.0)
    events = run(engine)
    assert [type(event) for event in events] == [Finished]
    assert records(events)["a"].generated_tokens == 0


def test_a_full_batch_keeps_the_rest_waiting_and_refills_as_soon_as_one_ends() -> None:
    engine = simulator(seqs=2, step=0.01, prefill=1e9)
    for name, reply in (("long", 10), ("short", 2), ("next", 2)):
        engine.submit(request(name, reply=reply), now=0.0)
    engine.advance(engine.next_change() or 0.0)
    assert (engine.running, engine.waiting) == (2, 1)
    done = records(run(engine))
    assert done["next"].finished < done["long"].finished


def test_sixteen_busy_slots_of_twelve_milliseconds_give_1333_tokens_a_second() -> None:
    """The reference figures for continuous and for static batching, from the same draw of lengths."""
    draw = random.Random(7)
    lengths = [draw.choice([20, 30, 40, 350, 512]) for _ in range(16)]
    static = sum(lengths) / (max(lengths) * 0.012)
    assert static == pytest.approx(463.2, abs=0.05)

    engine = simulator(seqs=16, step=0.012, prefill=1e12, blocks=10_000)
    for number in range(160):
        engine.submit(request(str(number), prompt=16, reply=lengths[number % 16]), now=0.0)
    half = [event for event in engine.advance(6.0) if isinstance(event, Generated)]
    assert len(half) / 6.0 == pytest.approx(1333.3, rel=0.01)


def test_a_long_prompt_is_read_in_pieces_while_others_go_on_generating() -> None:
    engine = simulator(prefill=10_000, step=0.01, batched=256)
    engine.submit(request("talking", prompt=16, reply=50), now=0.0)
    engine.advance(0.05)
    engine.submit(request("long", prompt=2000, reply=1), now=0.05)
    events = run(engine)
    done = records(events)["long"]
    assert done.first_token is not None
    spoken = sum(
        isinstance(event, Generated) and event.request_id == "talking" and event.at < done.first_token
        for event in events
    )
    assert spoken >= 2000 // 256


def test_the_second_turn_of_a_conversation_finds_the_first_in_the_cache() -> None:
    first = [{"role": "system", "content": "s" * 900}, {"role": "user", "content": "first question"}]
    prompt = rendered_chat(first, ())
    reply = "a reply of the model, long enough to fill a block or two " * 3
    turn = [*first, {"role": "assistant", "content": reply}, {"role": "user", "content": "second"}]
    engine = simulator()
    whole = prompt + reply
    engine.submit(request("one", tokens_in(prompt), len(pieces(reply)), block_keys(whole, BLOCK)), now=0.0)
    done = run(engine)
    second = rendered_chat(turn, ())
    at = records(done)["one"].finished
    engine.submit(request("two", tokens_in(second), 4, block_keys(second, BLOCK)), now=at)
    cached = records(run(engine))["two"].cached_tokens
    assert cached == (tokens_in(whole) - 1) // BLOCK * BLOCK
    assert engine.counters.prefix_hits_tokens == cached
    assert engine.counters.prefix_queries_tokens == tokens_in(prompt) + tokens_in(second)


def test_without_prefix_caching_nothing_is_asked_and_nothing_found() -> None:
    engine = simulator(prefix_caching=False)
    for name in ("one", "two"):
        engine.submit(request(name, 160, 2, tuple(range(10))), now=0.0)
    run(engine)
    assert engine.counters.prefix_queries_tokens == 0
    assert engine.counters.cached_prompt_tokens == 0


def test_two_with_the_same_beginning_share_its_blocks() -> None:
    engine = simulator(prefill=1e9, step=1.0)
    keys = tuple(range(10))
    engine.submit(request("one", 160, 50, keys), now=0.0)
    engine.advance(0.5)
    alone = engine.cache.used_blocks
    engine.submit(request("two", 160, 50, keys), now=0.5)
    engine.advance(3.0)
    engine.check()
    assert engine.cache.used_blocks <= alone + 2


def test_a_full_cache_sends_the_youngest_back_and_both_end_well() -> None:
    engine = simulator(blocks=12, prefill=1e9)
    engine.submit(request("old", prompt=80, reply=60), now=0.0)
    engine.submit(request("young", prompt=80, reply=60), now=0.0)
    done = records(run(engine))
    assert done["young"].preemptions > 0
    assert done["old"].preemptions == 0
    assert {record.generated_tokens for record in done.values()} == {60}


def test_an_abort_gives_room_and_slot_back() -> None:
    engine = simulator(seqs=1)
    engine.submit(request("gone", reply=1000), now=0.0)
    engine.submit(request("waiting"), now=0.0)
    engine.advance(0.2)
    (finished,) = engine.abort("gone", 0.2)
    assert isinstance(finished, Finished)
    assert finished.record.reason is FinishReason.ABORT
    assert records(run(engine))["waiting"].generated_tokens == 5
    assert engine.cache.used_blocks == 0
    assert engine.abort("gone", 1.0) == []


def test_a_waiting_request_can_be_aborted() -> None:
    engine = simulator(seqs=1)
    engine.submit(request("running"), now=0.0)
    engine.submit(request("queued"), now=0.0)
    engine.advance(0.05)
    (finished,) = engine.abort("queued", 0.05)
    assert isinstance(finished, Finished)
    assert finished.record.scheduled is None


def test_texts_that_share_words_lie_closer_than_texts_that_do_not() -> None:
    def close(one: str, other: str) -> float:
        return sum(a * b for a, b in zip(embedding(one, 384), embedding(other, 384), strict=True))

    assert close("The database server", "the database server.") == pytest.approx(1.0)
    assert close("the database server", "a database server") > close("the database server", "blue whales")


requests = st.lists(
    st.builds(
        lambda prompt, reply, shared: (prompt, reply, shared),
        st.integers(1, 200),
        st.integers(0, 60),
        st.integers(0, 3),
    ),
    min_size=1,
    max_size=12,
)


@given(requests, st.integers(1, 5), st.integers(1, 64), st.integers(17, 40), st.booleans(), st.data())
@example([(200, 60, 1), (200, 60, 1)], 2, 1, 17, True, None)
def test_every_request_ends_with_all_its_tokens_in_order(
    wanted: list[tuple[int, int, int]],
    seqs: int,
    batched: int,
    blocks: int,
    prefix_caching: bool,
    data: st.DataObject | None,
) -> None:
    """Whatever the load, the room and the time of arrival; and at the end the engine is empty."""
    engine = simulator(seqs=seqs, batched=batched, blocks=blocks, prefix_caching=prefix_caching)
    events: list[Event] = []
    now = 0.0
    for number, (prompt, reply, shared) in enumerate(wanted):
        now += data.draw(st.floats(0, 0.5)) if data else 0.0
        events.extend(engine.advance(now))
        keys = tuple(hash((shared, place)) for place in range((prompt + reply) // BLOCK))
        engine.submit(request(str(number), prompt, reply, keys), now)
        engine.check()
    events.extend(run(engine))
    done = records(events)
    for number, (prompt, reply, _) in enumerate(wanted):
        tokens = [e for e in events if isinstance(e, Generated) and e.request_id == str(number)]
        assert [token.index for token in tokens] == list(range(reply))
        assert [token.at for token in tokens] == sorted(token.at for token in tokens)
        record = done[str(number)]
        assert record.scheduled is not None
        assert record.first_token is not None
        assert record.arrived <= record.scheduled <= record.first_token <= record.finished
        assert record.cached_tokens < prompt + reply
    assert engine.counters.generated_tokens == sum(reply for _, reply, _ in wanted)
    assert engine.cache.used_blocks == 0
    assert engine.counters.prefix_hits_tokens <= engine.counters.prefix_queries_tokens


@given(requests)
def test_the_same_load_gives_the_same_events(wanted: list[tuple[int, int, int]]) -> None:
    runs = []
    for _ in range(2):
        engine = simulator(blocks=40)
        for number, (prompt, reply, shared) in enumerate(wanted):
            engine.submit(request(str(number), prompt, reply, (shared,)), 0.0)
        runs.append(run(engine))
    assert runs[0] == runs[1]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 6)), max_size=40))
def test_the_cache_keeps_its_invariants_and_finds_what_it_remembers(
    takes: list[tuple[int, int]],
) -> None:
    """Sequences of one of five texts come and go, three at a time."""
    cache = KVCache(blocks=24, block_tokens=BLOCK)
    held: list[tuple[int, ...]] = []
    for text, length in takes:
        keys = tuple(hash((text, place)) for place in range(length))
        assert cache.room_for(keys, 1)
        cache.hold(keys, 1)
        cache.check()
        assert cache.cached_blocks(keys) == length
        held.append(keys)
        if len(held) == 3:
            cache.release(held.pop(0), 1)
            cache.check()
    while held:
        cache.release(held.pop(), 1)
    assert cache.used_blocks == 0
    cache.check()
