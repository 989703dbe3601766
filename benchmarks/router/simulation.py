"""Simulates the trace on simulated engines with the router's real rule, in virtual time.

Hashes decide which conversations share a replica, and a replica evicts what does not fit into its KV cache.
So the result of one real run is chance, and the mean over many hash seeds shows what the rule gains. The same
seed always gives the same figures.
"""

import hashlib
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from engine_double.kv_cache import KVCache
from engine_double.simulator import Simulator
from engine_double.work import Finished, Limits, Request, Speeds
from flotilla_runtime.contract import RouterConfig
from flotilla_runtime.router.servers import limits
from router.lua_choice import Load, RouterLua, chat_body
from router.trace import BLOCK_TOKENS, Turn, Writer

CHAT = "/v1/chat/completions"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """The replicas and routers of a simulation, and how much faster than recorded the requests arrive."""

    replicas: int
    routers: int
    speeds: Speeds
    engine: Limits
    factor: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The figures of one run over the whole trace."""

    prefix_hit_rate: float
    busiest_over_mean: float
    moved_share: float
    ttft_p95_seconds: float


@dataclass(slots=True, kw_only=True)
class _Run:
    fleet: Fleet
    engines: list[Simulator]
    in_flight: list[dict[str, int]]
    router_of: dict[str, int] = field(default_factory=dict)
    waits: list[float] = field(default_factory=list)

    def advance(self, now: float) -> None:
        """Run the engines up to this time, and take finished requests from the routers' counts."""
        for number, engine in enumerate(self.engines):
            for event in engine.advance(now):
                if isinstance(event, Finished):
                    self.in_flight[self.router_of[event.request_id]][replica_name(number)] -= 1
                    first = event.record.first_token
                    assert first is not None
                    self.waits.append(first - event.record.arrived)


def replica_name(number: int) -> str:
    """The routers' name of a replica; its server id is one more than its number."""
    return f"r{number + 1}"


def keys_found(turns: Iterable[Turn], *, headers: bool) -> tuple[bytes, ...]:
    """For each turn, a digest of the text that router.lua hashes to get the key."""
    seen: list[bytes] = []

    def digest(text: str) -> int:
        seen.append(hashlib.blake2b(text.encode("latin-1"), digest_size=16).digest())
        return 0

    router = RouterLua(digest)
    writer = Writer()
    for number, turn in enumerate(turns, start=1):
        body = chat_body((message.role, message.content) for message in writer.messages(turn))
        router.key(CHAT, body, session=turn.session if headers else None)
        assert len(seen) == number, "a chat without a key"
    return tuple(seen)


def simulate(
    turns: Sequence[Turn],
    keys: Sequence[bytes],
    fleet: Fleet,
    *,
    seed: int,
    bound_from_share: float | None = None,
) -> Outcome:
    """Run the whole trace once; the seed decides the hashes of keys and the router of each request.
    `bound_from_share` changes the share of a replica's capacity from which the load bound applies.
    """
    chance = random.Random(seed)
    rule = RouterLua(lambda _: 0, bound_from_share=bound_from_share)
    config = _config(fleet)
    share = limits(config, fleet.routers)
    names = [replica_name(number) for number in range(fleet.replicas)]
    ids = {name: number for number, name in enumerate(names, start=1)}
    run = _Run(
        fleet=fleet,
        engines=[Simulator(fleet.speeds, fleet.engine) for _ in names],
        in_flight=[dict.fromkeys(names, 0) for _ in range(fleet.routers)],
    )
    asked = dict.fromkeys(names, 0)
    moved = 0
    for number, (turn, key) in enumerate(zip(turns, keys, strict=True)):
        now = turn.due_seconds / fleet.factor
        run.advance(now)
        router = chance.randrange(fleet.routers)
        loads = {
            name: Load(connections=count, most=share.max_connections)
            for name, count in run.in_flight[router].items()
        }
        choice = rule.pick(_hashed(key, seed), ids, loads, load_factor=config.load_factor)
        assert choice is not None, "a full fleet"
        moved += choice.moved
        asked[choice.replica] += 1
        run.in_flight[router][choice.replica] += 1
        run.router_of[str(number)] = router
        run.engines[ids[choice.replica] - 1].submit(_request(number, turn, fleet.factor), now)
    run.advance(float("inf"))
    counters = [engine.counters for engine in run.engines]
    return Outcome(
        prefix_hit_rate=sum(each.prefix_hits_tokens for each in counters)
        / sum(each.prefix_queries_tokens for each in counters),
        busiest_over_mean=max(asked.values()) * fleet.replicas / len(turns),
        moved_share=moved / len(turns),
        ttft_p95_seconds=sorted(run.waits)[int(0.95 * len(run.waits))],
    )


def bound(turns: Iterable[Turn], fleet: Fleet) -> float:
    """The hit rate of a single replica with the KV memory of all, asked in the trace's order."""
    cache = KVCache(blocks=fleet.engine.kv_blocks * fleet.replicas, block_tokens=BLOCK_TOKENS)
    hits = asked = 0
    for turn in turns:
        usable = turn.full_blocks[: (turn.prompt_tokens - 1) // BLOCK_TOKENS]
        hits += cache.cached_blocks(usable) * BLOCK_TOKENS
        asked += turn.prompt_tokens
        cache.hold(turn.full_blocks)
        cache.release(turn.full_blocks, 0)
    return hits / asked


def _request(number: int, turn: Turn, factor: float) -> Request:
    return Request(
        id=str(number),
        prompt_tokens=turn.prompt_tokens,
        reply_tokens=max(1, int(turn.reply_tokens / factor)),
        block_keys=turn.full_blocks,
    )


def _hashed(key: bytes, seed: int) -> int:
    return int.from_bytes(hashlib.blake2b(key, digest_size=4, salt=seed.to_bytes(8)).digest())


def _config(fleet: Fleet) -> RouterConfig:
    return RouterConfig(
        name="m",
        namespace="bench",
        models=("m",),
        engine_selector={"app": "m"},
        router_selector={"app": "r"},
        max_num_seqs=fleet.engine.max_num_seqs,
    )
