"""The text that the router benchmark makes of a trace of ids: what is cached, and which turn goes on."""

import json
from pathlib import Path

import pytest

from engine_double.text import block_keys, rendered_chat, tokens_in
from router.__main__ import main
from router.lua_choice import Load, RouterLua
from router.trace import BLOCK_TOKENS, Message, Turn, Writer, read_turns

FIRST = Turn(due_seconds=0, prompt_tokens=1600, reply_tokens=100, blocks=(0, 1, 2, 3))
NEXT = Turn(due_seconds=9, prompt_tokens=1750, reply_tokens=50, blocks=(0, 1, 2, 4))
THIRD = Turn(due_seconds=20, prompt_tokens=2600, reply_tokens=50, blocks=(0, 1, 2, 5, 6, 7))
EDITED = Turn(due_seconds=30, prompt_tokens=1300, reply_tokens=50, blocks=(0, 1, 8))
OTHER = Turn(due_seconds=40, prompt_tokens=1100, reply_tokens=50, blocks=(0, 9, 10))
TURNS = (FIRST, NEXT, THIRD, EDITED, OTHER)


def chats() -> list[tuple[Message, ...]]:
    writer = Writer()
    return [writer.messages(turn) for turn in TURNS]


def rendered(chat: tuple[Message, ...]) -> str:
    return rendered_chat([{"role": each.role, "content": each.content} for each in chat], ())


def test_a_prompt_is_as_long_as_the_trace_says() -> None:
    assert [tokens_in(rendered(chat)) for chat in chats()] == [turn.prompt_tokens for turn in TURNS]


@pytest.mark.holds("performance.md", "The trace's text has the same shared blocks as the recording")
def test_equal_ids_and_only_they_are_equal_blocks_to_an_engine() -> None:
    block_of_key: dict[int, int] = {}
    for turn, chat in zip(TURNS, chats(), strict=True):
        keys = block_keys(rendered(chat), BLOCK_TOKENS)
        for block, key in zip(turn.full_blocks, keys, strict=True):
            assert block_of_key.setdefault(key, block) == block
    assert sorted(block_of_key.values()) == [0, 1, 2, 5, 6, 9]


@pytest.mark.holds("performance.md", "The trace's text has the same shared blocks as the recording")
def test_a_longer_prompt_over_all_of_an_earlier_one_is_the_next_turn() -> None:
    first, later, third, edited, other = chats()
    roles = [message.role for message in third]
    assert roles == ["system", "user", "assistant", "user", "assistant", "user"]
    assert third[: len(later) - 1] == later[:-1]
    assert later[:2] == first[:2]
    assert [message.role for message in edited] == ["system", "user"]
    assert edited[1].content != other[1].content


def test_a_conversation_and_its_edits_have_one_session() -> None:
    assert [turn.session for turn in TURNS] == ["1", "1", "1", "1", "9"]


def test_a_window_of_the_trace_begins_at_time_zero(tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    rows = [
        {"timestamp": 3000 * number, "input_length": 600, "output_length": 9, "hash_ids": [0, number]}
        for number in range(9)
    ]
    trace.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    turns = read_turns(trace, 3, skipped=4)
    assert [(turn.due_seconds, turn.blocks[1]) for turn in turns] == [(0, 4), (3, 5), (6, 6)]


@pytest.mark.parametrize(
    ("bound_from_share", "moved"),
    [
        pytest.param(None, False, id="from half, as router.lua says"),
        pytest.param(0.5, False, id="from half, as asked for"),
        pytest.param(0.25, True, id="from a quarter"),
        pytest.param(0.0, True, id="from the first request on"),
    ],
)
def test_from_which_share_of_its_load_a_replica_is_bound(bound_from_share: float | None, moved: bool) -> None:
    ids = {"r1": 1, "r2": 2}
    rule = RouterLua(lambda _: 0, bound_from_share=bound_from_share)
    idle = rule.pick(7, ids, dict.fromkeys(ids, Load(connections=0, most=12)), load_factor=1.25)
    assert idle is not None
    loads = {name: Load(connections=3 if name == idle.replica else 0, most=12) for name in ids}
    chosen = rule.pick(7, ids, loads, load_factor=1.25)
    assert chosen is not None
    assert chosen.moved is moved


@pytest.mark.holds("performance.md", "`make bench-router` without a trace fails at once")
@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param((), id="no trace is named"),
        pytest.param(("--trace", "/nonexistent"), id="it is not there"),
    ],
)
def test_the_benchmark_ends_at_once_without_a_trace(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    told = capsys.readouterr().err
    assert "TRACE=FILE" in told
    assert "--no-trace" in told
