"""The router as its pod runs it: the real HAProxy, the agent, engines on loopback, a small pod API.

Choices made before anything runs (rendering, plans, pods) have tests of their own beside this file. Faults of
the two containers are in test_router_recovery.py.
"""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from flotilla_runtime import contract
from flotilla_runtime.contract import RouterTask
from flotilla_runtime.router.admin_socket import AdminSocket
from flotilla_runtime.router.files import RunFiles
from leaks.planted import planted
from router_support.haproxy_version import ON_BOTH, ON_EVERY, parser_takes_our_words
from router_support.routers import Answer, Caller, Engine, Fleet, Router, first_token_received_at, fleet
from router_support.waiting import until, until_told

pytestmark = [pytest.mark.services, pytest.mark.usefixtures("haproxy")]

KEYS = 1000
ENGINE_KEY = planted("engine")


@asynccontextmanager
async def routed(
    made: Fleet, *names: str, blocked: bool = False, **fields: Any
) -> AsyncIterator[tuple[Router, Caller]]:
    for server_id, name in enumerate(names, 1):
        await made.add(name, server_id, blocked=blocked)
    router = Router(made.api, "router-1", engine_port=made.engine_port, **fields)
    router.environment = {contract.ENV_ENGINE_KEY: ENGINE_KEY}
    async with router:
        await until(lambda: router.ready_servers() == set(names))
        async with Caller(router) as caller:
            yield router, caller


def assert_openai_error(answer: Answer, status: int, code: str) -> None:
    assert answer.status == status, answer
    error = answer.body["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == code
    assert answer.headers["X-Request-Id"]


@pytest.mark.holds("README.md", "A conversation stays on the replica that holds its KV cache")
@pytest.mark.holds("router.md", "`X-Flotilla-Replica` names the replica that answered")
@ON_BOTH
async def test_a_session_stays_on_its_replica() -> None:
    async with fleet() as made, routed(made, "a", "b", "c") as (_, caller):
        homes = {}
        for session in map(str, range(12)):
            answers = [await caller.post(session=session) for _ in range(4)]
            homes[session] = {answer.replica for answer in answers}
            assert all(answer.body["replica"] == answer.replica for answer in answers)
        assert all(len(replicas) == 1 for replicas in homes.values())
        assert len(set.union(*homes.values())) == 3


@pytest.mark.holds("router.md", "Two routers agree on the homes, and only the keys of a lost replica move")
async def test_two_routers_agree_on_homes_and_use_every_replica() -> None:
    """The first router learns of four and then of the others, the last one first; the second begins with all
    eight. Then the first one is restarted.
    """
    names = [f"replica-{number}" for number in range(8)]
    async with fleet() as made, routed(made, *names[:4]) as (early, first):
        known = set(names[:4])
        for number, name in reversed(list(enumerate(names[4:], 5))):
            await made.add(name, number)
            known.add(name)
            await until(lambda: known <= early.ready_servers())
        async with Router(made.api, "router-2", engine_port=made.engine_port) as late, Caller(late) as second:
            await until(lambda: late.ready_servers() == set(names))

            async def homes(caller: Caller) -> list[str]:
                return [(await caller.post(session=f"s-{key}")).replica for key in range(KEYS)]

            told = [await homes(first), await homes(second)]
            await early.restart()
            await until(lambda: early.ready_servers() == set(names))
            told.append(await homes(first))
        agreed = sum(len(set(replicas)) == 1 for replicas in zip(*told, strict=True))
        assert agreed >= 0.99 * KEYS
        for answered in told:
            counts = Counter(answered)
            assert set(counts) == set(names)
            assert max(counts.values()) < 1.4 * KEYS / len(names)


@pytest.mark.holds("router.md", "Two routers agree on the homes, and only the keys of a lost replica move")
async def test_only_the_keys_of_a_lost_replica_move() -> None:
    async with fleet() as made, routed(made, "a", "b", "c", "d") as (router, caller):
        before = {key: (await caller.post(session=f"s-{key}")).replica for key in range(200)}
        made.api.remove("b")
        await until(lambda: router.ready_servers() == {"a", "c", "d"})
        after = {key: (await caller.post(session=f"s-{key}")).replica for key in range(200)}
        moved = [key for key in before if before[key] != after[key]]
        assert moved == [key for key in before if before[key] == "b"]


CHAT = "/v1/chat/completions"
RESPONSES = "/v1/responses"
COMPLETIONS = "/v1/completions"
LONG = "x" * 400_000


def chat(*messages: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"model": "smollm2", "messages": list(messages), **fields}


def message(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def parts(text: str) -> list[dict[str, Any]]:
    return [{"type": "text", "text": text}]


def image_then(text: str) -> list[dict[str, Any]]:
    return [{"type": "image_url", "image_url": {"url": "data:,abc"}}, *parts(text)]


@pytest.mark.holds(
    "router.md", "The key of a conversation is `X-Session-Id`, else `prompt_cache_key`, else its beginning"
)
@pytest.mark.holds("router.md", "The beginning is the first system and the first user message, both whole")
@pytest.mark.holds("router.md", "With a first message behind the 64 KiB, the first 32 KiB are the key")
@pytest.mark.holds("decisions/0002-haproxy.md", "Conversations of 400 KB keep their replica")
@pytest.mark.parametrize(
    ("path", "source", "first", "later"),
    [
        pytest.param(
            CHAT,
            "CacheKey",
            lambda key: chat(message("user", "hello"), prompt_cache_key=key),
            lambda key: chat(message("user", "else"), prompt_cache_key=key),
            id="prompt_cache_key goes before the messages",
        ),
        pytest.param(
            CHAT,
            "Messages",
            lambda key: chat(message("system", "be kind"), message("user", key)),
            lambda key: chat(
                message("system", "be kind"),
                message("user", key),
                message("assistant", LONG),
                message("user", "go on"),
            ),
            id="a chat that has grown to 400 KB is found by its first system and user message",
        ),
        pytest.param(
            CHAT,
            "Messages",
            lambda key: chat(message("system", parts("be kind")), message("user", image_then(key))),
            lambda key: chat(
                message("system", parts("be kind")), message("user", image_then(key)), message("user", LONG)
            ),
            id="content in parts, the text behind an image",
        ),
        pytest.param(
            CHAT,
            "Messages",
            lambda key: chat(message("developer", "x"), message("assistant", "hi"), message("user", key)),
            lambda key: chat(
                message("developer", "x"),
                message("assistant", "hi"),
                message("user", key),
                message("user", "b"),
            ),
            id="the first user message comes later",
        ),
        pytest.param(
            CHAT,
            "Messages",
            lambda key: chat(message("user", key + LONG)),
            lambda key: chat(message("user", key + LONG), message("assistant", "ok"), message("user", "b")),
            id="a first message longer than the buffer counts by its beginning",
        ),
        pytest.param(
            CHAT,
            "Messages",
            lambda key: chat(message("system", key + LONG[:70_000]), message("user", "hello")),
            lambda key: chat(
                message("system", key + LONG[:70_000]),
                message("user", "hello"),
                message("assistant", LONG),
                message("user", "go on"),
            ),
            id="a system message longer than the buffer counts by its beginning",
        ),
        pytest.param(
            CHAT,
            "Messages",
            lambda key: {"tools": [key + LONG[:70_000]], **chat(message("user", "hello"))},
            lambda key: {
                "tools": [key + LONG[:70_000]],
                **chat(message("user", "hello"), message("assistant", LONG), message("user", "go on")),
            },
            id="tools longer than the buffer, written before the messages, count by their beginning",
        ),
        pytest.param(
            RESPONSES,
            "Input",
            lambda key: {"instructions": key + LONG[:70_000], "input": [message("user", "hello")]},
            lambda key: {
                "instructions": key + LONG[:70_000],
                "input": [message("user", "hello"), message("assistant", LONG)],
            },
            id="instructions longer than the buffer, written before the input, count by their beginning",
        ),
        pytest.param(
            RESPONSES,
            "Input",
            lambda key: {"instructions": "be kind", "input": key},
            lambda key: {"instructions": "be kind", "input": key, "tools": LONG},
            id="responses by an input that is a text",
        ),
        pytest.param(
            RESPONSES,
            "Input",
            lambda key: {"input": [message("user", key)], "instructions": "be kind"},
            lambda key: {
                "input": [message("user", key), message("assistant", LONG)],
                "instructions": "be kind",
            },
            id="responses whose instructions stand behind 400 KB of input, as OpenAI's clients write them",
        ),
        pytest.param(
            RESPONSES,
            "Input",
            lambda key: {"input": [message("user", parts(key))]},
            lambda key: {"input": [message("user", parts(key)), message("assistant", LONG)]},
            id="responses by the first input of a list",
        ),
        pytest.param(
            RESPONSES,
            "Input",
            lambda key: {"input": [message("developer", LONG[:99]), message("user", parts(key))]},
            lambda key: {
                "input": [message("developer", LONG[:99]), message("user", parts(key)), message("user", LONG)]
            },
            id="responses by the first input of a user's, behind what the developer says",
        ),
        pytest.param(
            RESPONSES,
            "Input",
            lambda key: {"input": [{"type": "item_reference", "id": "x"}, message("user", key)]},
            lambda key: {
                "input": [{"type": "item_reference", "id": "x"}, message("user", key), {"type": "y"}]
            },
            id="responses by the first input of a user's, behind an item of another type",
        ),
        pytest.param(
            COMPLETIONS,
            "Prompt",
            lambda key: {"model": "smollm2", "prompt": key + LONG[:4096]},
            lambda key: {"model": "smollm2", "prompt": key + LONG, "max_tokens": 9},
            id="completions by the first 4 KiB of the prompt",
        ),
        pytest.param(
            COMPLETIONS,
            "Prompt",
            lambda key: {"model": "smollm2", "prompt": f'say \\"{key}', "max_tokens": 1},
            lambda key: {"model": "smollm2", "prompt": f'say \\"{key}', "max_tokens": 2},
            id="a short prompt ends at its own quotation mark",
        ),
    ],
)
async def test_the_key_in_a_body(path: str, source: str, first: Any, later: Any) -> None:
    async with fleet() as made, routed(made, "a", "b", "c", "d", "e") as (router, caller):
        homes = []
        for key in map(str, range(10)):
            one = await caller.post(first(key), path=path)
            again = await caller.post(later(key), path=path)
            assert (one.status, again.status) == (200, 200)
            assert one.replica == again.replica
            homes.append(one.replica)
        assert len(set(homes)) > 1
        assert {line["key"] for line in request_lines(router)} == {source}


@pytest.mark.holds(
    "router.md", "The key of a conversation is `X-Session-Id`, else `prompt_cache_key`, else its beginning"
)
async def test_a_header_goes_before_the_body() -> None:
    async with fleet() as made, routed(made, "a", "b", "c") as (router, caller):
        answers = [
            await caller.post(
                chat(message("user", str(number)), prompt_cache_key=str(number)), session="mine"
            )
            for number in range(9)
        ]
        assert len({answer.replica for answer in answers}) == 1
        assert {line["key"] for line in request_lines(router)} == {"Header"}


@pytest.mark.holds("router.md", "Without a key, and for task Embed, the least loaded replica answers")
@pytest.mark.holds("router.md", "`previous_response_id` keeps no conversation")
@pytest.mark.parametrize(
    ("body", "path"),
    [
        pytest.param(chat(message("system", "be kind")), CHAT, id="a system prompt alone is no conversation"),
        pytest.param(chat(), CHAT, id="no messages"),
        pytest.param({"messages": "text"}, CHAT, id="messages that are no list"),
        pytest.param({"model": "smollm2"}, COMPLETIONS, id="no prompt"),
        pytest.param({"input": [message("system", "be kind")]}, RESPONSES, id="an input that no user gave"),
        pytest.param(
            {"previous_response_id": "resp-1", "input": "go on"},
            RESPONSES,
            id="an answer before, which every call names anew",
        ),
        pytest.param({"model": "smollm2", "input": ["a", "b"]}, "/v1/embeddings", id="another path"),
    ],
)
async def test_without_a_key_the_least_loaded_replica_answers(body: Any, path: str) -> None:
    async with fleet() as made, routed(made, "a", "b", "c", blocked=True) as (router, caller):
        waiting = [asyncio.create_task(caller.post(body, path=path)) for _ in range(6)]
        await until(lambda: sum(engine.running for engine in made.engines.values()) == 6)
        assert {engine.running for engine in made.engines.values()} == {2}
        open_gates(made)
        await asyncio.gather(*waiting)
        await until(lambda: counted(router, 'flotilla_router_routed_total{by="LeastConnections"}') == 6)


async def test_bytes_that_are_not_json_are_the_engines_business() -> None:
    async with fleet() as made, routed(made, "a") as (_, caller):
        assert (await caller.post(data=b'{"messages": [{"role": "user", "content": "\xff\x00')).status == 200


@pytest.mark.holds("router.md", "Without a key, and for task Embed, the least loaded replica answers")
async def test_embeddings_have_no_home() -> None:
    async with fleet() as made, routed(made, "a", "b", task=RouterTask.EMBED, blocked=True) as (_, caller):
        waiting = [asyncio.create_task(caller.post(session="one", path="/v1/embeddings")) for _ in range(4)]
        await until(lambda: sum(engine.running for engine in made.engines.values()) == 4)
        assert {engine.running for engine in made.engines.values()} == {2}
        open_gates(made)
        await asyncio.gather(*waiting)


@pytest.mark.holds("router.md", "A home keeps no more than its share of the load, by `loadFactor`")
@ON_BOTH
async def test_a_home_keeps_at_most_its_share() -> None:
    """One session with 20 requests at once: the load factor of 1.25 spreads them 5 to 7 on each of four."""
    names = ("a", "b", "c", "d")
    async with fleet() as made, routed(made, *names, max_num_seqs=8, blocked=True) as (router, caller):
        waiting = [asyncio.create_task(caller.post(session="hot")) for _ in range(20)]
        await until(lambda: sum(engine.running for engine in made.engines.values()) == 20)
        loads = sorted(engine.running for engine in made.engines.values())
        assert loads[-1] <= 7
        assert loads[0] >= 1
        open_gates(made)
        await asyncio.gather(*waiting)
        await until(lambda: (counted(router, "flotilla_router_moved_total") or 0) >= 10)


@pytest.mark.holds("router.md", "A home keeps no more than its share of the load, by `loadFactor`")
async def test_a_home_with_much_room_is_not_passed_over() -> None:
    """Less than half of 53 at once: ten requests of one session stay together, though the others are idle."""
    async with fleet() as made, routed(made, "a", "b", "c", "d", blocked=True) as (_, caller):
        waiting = [asyncio.create_task(caller.post(session="hot")) for _ in range(10)]
        await until(lambda: sum(engine.running for engine in made.engines.values()) == 10)
        assert sorted(engine.running for engine in made.engines.values()) == [0, 0, 0, 10]
        open_gates(made)
        await asyncio.gather(*waiting)


@pytest.mark.holds("router.md", "An engine never gets more than `maxNumSeqs` requests")
@ON_BOTH
async def test_an_engine_never_gets_more_than_its_limit() -> None:
    async with fleet() as made, routed(made, "a", "b", max_num_seqs=3, blocked=True) as (router, caller):
        waiting = [asyncio.create_task(caller.post(session=str(number))) for number in range(30)]
        await until(lambda: router.status.waiting == 30 - 2 * 4)
        assert router.status.in_flight == 8
        open_gates(made)
        answers = await asyncio.gather(*waiting)
        assert {answer.status for answer in answers} == {200}
        assert {engine.most for engine in made.engines.values()} == {4}


@pytest.mark.holds(
    "decisions/0002-haproxy.md", "A queue that stands still moves when another replica has room"
)
@ON_EVERY
async def test_a_request_that_waits_moves_when_another_replica_has_room() -> None:
    """Both full, requests queued at the one: as soon as the other is idle, they go there."""
    async with fleet() as made, routed(made, "a", "b", max_num_seqs=1, blocked=True) as (router, caller):
        running, late, other = await queued_at_a_full_replica(made, router, caller)
        other.gate.set()
        answers = await asyncio.wait_for(asyncio.gather(*late), 30)
        assert {answer.replica for answer in answers} == {other.name}
        open_gates(made)
        assert {answer.status for answer in await asyncio.gather(*running)} == {200}
        assert {engine.most for engine in made.engines.values()} == {2}
        assert (counted(router, "flotilla_router_rebalanced_total") or 0) >= 1


@pytest.mark.holds(
    "decisions/0002-haproxy.md", "The limit of a server holds while its queue is moved, on 3.x too"
)
@ON_EVERY
async def test_what_waits_for_a_replica_that_drains_goes_to_another() -> None:
    """Not to the one that drains, beyond its limit; what runs there is answered there."""
    async with fleet() as made, routed(made, "a", "b", max_num_seqs=1, blocked=True) as (router, caller):
        running, late, other = await queued_at_a_full_replica(made, router, caller)
        (leaving,) = made.engines.keys() - {other.name}
        made.change(leaving, drain_epoch=1)
        await until(lambda: router.ready_servers() == {other.name})
        other.gate.set()
        answers = await asyncio.wait_for(asyncio.gather(*late), 30)
        assert {answer.replica for answer in answers} == {other.name}
        open_gates(made)
        assert {answer.status for answer in await asyncio.gather(*running)} == {200}
        assert {engine.most for engine in made.engines.values()} == {2}


async def queued_at_a_full_replica(
    made: Fleet, router: Router, caller: Caller
) -> tuple[list[asyncio.Task[Answer]], list[asyncio.Task[Answer]], Engine]:
    """Fill both replicas; return the calls that fill them, those that wait at the one, and the other."""
    running = [asyncio.create_task(caller.post(session=f"fill-{number}")) for number in range(4)]
    await until(lambda: {engine.running for engine in made.engines.values()} == {2})
    late = [asyncio.create_task(caller.post(session="late")) for _ in range(2)]
    await until(lambda: router.status.waiting == 2)
    queues = {server.name: server.queued for server in router.status.servers}
    stuck = max(queues, key=lambda name: queues[name])
    assert queues[stuck] >= 1
    return running, late, made.engines["b" if stuck == "a" else "a"]


async def test_a_new_replica_takes_what_waits() -> None:
    async with fleet() as made, routed(made, "a", max_num_seqs=1, blocked=True) as (router, caller):
        waiting = [asyncio.create_task(caller.post(session=str(number))) for number in range(4)]
        await until(lambda: router.status.waiting == 2)
        await made.add("b", 2)
        done, _ = await asyncio.wait(waiting, timeout=30, return_when=asyncio.FIRST_COMPLETED)
        await until(lambda: sum(task.done() for task in waiting) == 2)
        assert {task.result().replica for task in done} == {"b"}
        open_gates(made)
        await asyncio.gather(*waiting)


@pytest.mark.holds(
    "router.md", "Interactive requests go before batch ones, by `X-Flotilla-Priority` or `service_tier`"
)
@ON_BOTH
async def test_interactive_goes_before_batch() -> None:
    async with fleet() as made, routed(made, "a", max_num_seqs=1, blocked=True) as (router, caller):
        engine = made.engines["a"]
        tasks = []

        async def send(name: str, body: Any = None, **headers: str) -> None:
            before = router.status.waiting + router.status.in_flight
            tasks.append(asyncio.create_task(caller.post(body, headers={"X-Test": name, **headers})))
            await until(lambda: router.status.waiting + router.status.in_flight == before + 1)

        await send("running-1")
        await send("running-2")
        await send("batch-1", **{"X-Flotilla-Priority": "Batch"})
        await send("flex", {"model": "smollm2", "service_tier": "flex"})
        await send("interactive-1", **{"X-Flotilla-Priority": "interactive"})
        header_wins = {"model": "smollm2", "service_tier": "flex"}
        await send("interactive-2", header_wins, **{"X-Flotilla-Priority": "Interactive"})
        open_gates(made)
        await asyncio.gather(*tasks)
        assert engine.seen[2:4] == ["interactive-1", "interactive-2"]
        assert engine.seen[4:] == ["batch-1", "flex"]


@pytest.mark.holds("router.md", "A full queue is answered with 429, and one who waited too long with 503")
@ON_BOTH
async def test_a_full_queue_answers_429() -> None:
    limits = {"max_num_seqs": 1, "max_queue": 3, "retry_after_seconds": 7}
    async with fleet() as made, routed(made, "a", blocked=True, **limits) as (router, caller):
        waiting = [asyncio.create_task(caller.post(session=str(number))) for number in range(5)]
        await until(lambda: router.status.waiting == 3)
        refused = await caller.post(session="too-much")
        assert_openai_error(refused, 429, "queue_full")
        assert refused.headers["Retry-After"] == "7"
        open_gates(made)
        assert {answer.status for answer in await asyncio.gather(*waiting)} == {200}
        await until(lambda: router.status.refused == {"QueueFull": 1})


@pytest.mark.holds("router.md", "A full queue is answered with 429, and one who waited too long with 503")
async def test_a_request_that_waited_too_long_answers_503() -> None:
    limits = {"max_num_seqs": 1, "queue_timeout_seconds": 1}
    async with fleet() as made, routed(made, "a", blocked=True, **limits) as (router, caller):
        running = [asyncio.create_task(caller.post(session=str(number))) for number in range(2)]
        await until(lambda: router.status.in_flight == 2)
        late = await caller.post(session="late")
        assert_openai_error(late, 503, "queue_timeout")
        assert late.headers["Retry-After"] == "5"
        open_gates(made)
        await asyncio.gather(*running)
        await until(lambda: router.status.refused == {"QueueTimeout": 1})
        await until(lambda: [(row.answers, row.failed) for row in router.status.servers] == [(2, 0)])


@pytest.mark.holds("router.md", "At zero without `autoscaling` a request is answered with 503 at once")
async def test_no_replica_answers_503_at_once() -> None:
    async with fleet() as made, routed(made) as (router, caller):
        answer = await asyncio.wait_for(caller.post(session="a"), 30)
        assert_openai_error(answer, 503, "no_replicas")
        assert answer.headers["Retry-After"] == "5"
        await until(lambda: router.status.refused == {"NoReplicas": 1})


async def test_a_replica_that_only_drains_is_none() -> None:
    async with fleet() as made, routed(made, "a") as (router, caller):
        made.change("a", drain_epoch=1)
        await until(lambda: not router.ready_servers())
        assert_openai_error(await caller.post(session="a"), 503, "no_replicas")


@pytest.mark.holds("router.md", "An engine never gets more than `maxNumSeqs` requests")
@pytest.mark.holds("router.md", "Routers share `maxNumSeqs` and `maxQueue` evenly")
async def test_limits_follow_the_number_of_routers() -> None:
    limits: dict[str, Any] = {"max_num_seqs": 48, "max_queue": 100}
    async with fleet() as made, routed(made, "a", **limits) as (router, _):
        assert (router.status.max_connections_per_replica, router.status.queue_limit) == (53, 100)
        async with Router(made.api, "router-2", engine_port=made.engine_port, **limits) as second:
            await until(lambda: router.status.queue_limit == second.status.queue_limit == 50)
            assert router.status.max_connections_per_replica == 27
        made.api.remove("router-2")
        await until(lambda: router.status.queue_limit == 100)


@pytest.mark.holds("router.md", "A change of the keys acts without a reload")
@ON_BOTH
async def test_callers_keys_change_without_a_reload(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "fleet").write_text(planted("first") + "\n")
    async with fleet() as made, routed(made, "a", caller_keys_directory=str(keys)) as (router, caller):
        admin = AdminSocket(RunFiles(router.config.run_directory))
        process = await admin.process()

        async def status_with(header: str | None) -> int:
            headers = {} if header is None else {"Authorization": header}
            return (await caller.post(headers=headers)).status

        for refused in (
            None,
            "",
            "Bearer",
            "Bearer wrong",
            f"Basic {planted('first')}",
            f"bearer {planted('first')}s",
        ):
            assert await status_with(refused) == 401, refused
        assert await status_with(f"Bearer {planted('first')}") == 200
        (keys / "build").write_text(planted("second"))
        (keys / "fleet").unlink()

        async def has_changed() -> bool:
            now = [await status_with(f"Bearer {planted(which)}") for which in ("first", "second")]
            return now == [401, 200]

        await until_told(has_changed)
        answer = await caller.post()
        assert_openai_error(answer, 401, "invalid_api_key")
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert all("Authorization" not in headers for headers in made.engines["a"].headers)
        assert await admin.process() == process
        assert planted("first") not in router.log + (router.directory / "keys.map").read_text()
        callers = {line["caller"] for line in request_lines(router) if line["status"] == "200"}
        assert callers == {"fleet", "build"}


@pytest.mark.holds("router.md", "The operator makes the engines' key once, and the routers send it")
@pytest.mark.holds("router.md", "Engines with a key of the user's own get what the caller sent")
@pytest.mark.holds(
    "decisions/0009-engine-key.md",
    "HAProxy sends the key in the place of the caller's own, from its environment",
)
@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(None, id="a caller without a key"),
        pytest.param(f"Bearer {planted('mine')}", id="a caller with its own"),
    ],
)
async def test_the_router_has_the_key_that_engines_ask_for(sent: str | None) -> None:
    headers = {} if sent is None else {"Authorization": sent}
    async with (
        fleet() as made,
        routed(made, "a", engine_key_environment=contract.ENV_ENGINE_KEY) as (
            router,
            caller,
        ),
    ):
        engine = made.engines["a"]
        engine.key = ENGINE_KEY
        async with httpx2.AsyncClient() as past_the_router:
            url = f"http://{engine.ip}:{engine.port}/v1/chat/completions"
            assert (await past_the_router.post(url, json={}, headers=headers)).status_code == 401
        assert (await caller.post(headers=headers)).status == 200
        assert engine.headers[-1].getall("Authorization") == [f"Bearer {ENGINE_KEY}"]
        assert ENGINE_KEY not in router.log
        assert all(
            ENGINE_KEY not in path.read_text() for path in router.directory.iterdir() if path.is_file()
        )


@pytest.mark.holds("router.md", "Meanwhile a call may get 503 `replica_unauthorized` with Retry-After")
@pytest.mark.holds("decisions/0009-engine-key.md", "A 401 of an engine becomes a 503 with Retry-After")
async def test_a_replica_that_has_another_key_is_not_the_callers_fault() -> None:
    async with (
        fleet() as made,
        routed(made, "a", engine_key_environment=contract.ENV_ENGINE_KEY) as (
            router,
            caller,
        ),
    ):
        made.engines["a"].key = "made anew"
        answer = await caller.post()
        assert_openai_error(answer, 503, "replica_unauthorized")
        assert answer.headers["Retry-After"] == "5"
        await until(lambda: router.status.refused == {"ReplicaUnauthorized": 1})


@pytest.mark.holds("engine.md", "The router lists the model and its adapters at `/v1/models`")
@ON_BOTH
async def test_models_are_listed_with_no_replica_at_all() -> None:
    names = ("meta-llama/Llama-3.3", 'it\'s "sql"')
    async with fleet() as made, routed(made, models=names) as (_, caller):
        listed = await caller.get("/v1/models")
        assert [model["id"] for model in listed.body["data"]] == list(names)
        assert (await caller.get("/v1/models/meta-llama/Llama-3.3")).body["id"] == names[0]
        assert (await caller.get("/v1/models/meta-llama%2FLlama-3.3")).body["owned_by"] == "demo/smol"
        assert_openai_error(await caller.get("/v1/models/other"), 404, "model_not_found")
        assert (await caller.get("/health")).status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/metrics",
        "/v1/load_lora_adapter",
        "/v1/%6Coad_lora_adapter",
        "/v1/unload_lora%5fadapter?model=x",
        "//v1/load_lora_adapter",
        "/v1%2Fload_lora_adapter",
        "/v2/models",
        "/",
        "/v1",
        "/sleep",
        "/invocations",
    ],
)
async def test_other_paths_are_not_passed_on(path: str) -> None:
    async with fleet() as made, routed(made, "a") as (_, caller):
        assert_openai_error(await caller.post(path=path), 404, "unknown_url")
        assert made.engines["a"].seen == []


async def test_a_body_that_is_too_large_is_refused() -> None:
    async with fleet() as made, routed(made, "a", max_request_mib=1) as (_, caller):
        mebibyte = 1024 * 1024
        assert (await caller.post(data=b"x" * mebibyte)).body["bytes"] == mebibyte
        assert_openai_error(await caller.post(data=b"x" * (mebibyte + 1)), 413, "request_too_large")
        assert len(made.engines["a"].seen) == 1


@pytest.mark.holds("router.md", "A body of more than 48 KiB without a length is refused with 411")
async def test_a_long_body_without_a_length_is_refused() -> None:
    async def chunks(count: int) -> AsyncIterator[bytes]:
        for _ in range(count):
            yield b"x" * 1024

    async with fleet() as made, routed(made, "a") as (_, caller):
        assert (await caller.post(data=chunks(20))).body["bytes"] == 20 * 1024
        assert_openai_error(await caller.post(data=chunks(200)), 411, "length_required")


@ON_BOTH
async def test_a_refused_caller_reads_the_answer_however_long_its_body() -> None:
    """With a client that stops reading when it cannot write on, as OpenAI's own does."""
    async with fleet() as made, routed(made) as (router, _), httpx2.AsyncClient() as client:
        url = f"{router.url}/v1/chat/completions"
        for size, status in ((400_000, 503), (20_000_000, 413)):
            for _ in range(5):
                answer = await client.post(url, content=b"x" * size)
                assert answer.status_code == status
                assert answer.json()["error"]["message"]


@pytest.mark.holds("router.md", "`X-Request-Id` is kept, or generated if there is none")
async def test_request_ids_are_kept_or_made() -> None:
    async with fleet() as made, routed(made, "a") as (_, caller):
        kept = await caller.post(headers={"X-Request-Id": "mine-1"})
        made_up = await caller.post()
        replaced = await caller.post(headers={"X-Request-Id": 'evil"\\ id'})
        assert kept.headers["X-Request-Id"] == "mine-1"
        assert len({made_up.headers["X-Request-Id"], replaced.headers["X-Request-Id"], "mine-1"}) == 3
        assert '"' not in replaced.headers["X-Request-Id"]
        sent = [headers["X-Request-Id"] for headers in made.engines["a"].headers]
        assert sent == [answer.headers["X-Request-Id"] for answer in (kept, made_up, replaced)]


@ON_BOTH
async def test_a_caller_that_leaves_frees_its_place() -> None:
    async with fleet() as made, routed(made, "a", max_num_seqs=1, blocked=True) as (router, caller):
        running = [asyncio.create_task(caller.post(session=str(number))) for number in range(2)]
        await until(lambda: router.status.in_flight == 2)
        queued = asyncio.create_task(caller.post(session="late"))
        await until(lambda: router.status.waiting == 1)
        queued.cancel()
        await until(lambda: (router.status.in_flight, router.status.waiting) == (2, 0))
        for task in running:
            task.cancel()
        await until(lambda: router.status.in_flight == 0)
        assert made.engines["a"].cancelled == 2
        assert len(made.engines["a"].seen) == 2


@pytest.mark.holds("performance.md", "The first token of a stream is not held back for 200 ms")
@ON_BOTH
async def test_no_streams_first_token_is_held_back() -> None:
    """The kernel would hold for 200 ms what HAProxy says may grow."""
    async with fleet() as made, routed(made, "a", blocked=True) as (router, _):
        took: list[float] = []
        async with asyncio.timeout(60):
            while len(took) < 20:
                received_at = await asyncio.to_thread(first_token_received_at, router)
                if received_at is not None:
                    took.append(received_at - made.engines["a"].first_tokens_at[-1])
        assert min(took) > 0
        # The kernel would hold back all of them. A busy machine may make one or two late.
        assert sum(seconds < 0.15 for seconds in took) >= 18


async def test_a_caller_that_leaves_in_the_middle_of_a_stream_ends_it_at_the_engine() -> None:
    async with fleet() as made, routed(made, "a", blocked=True) as (router, caller):
        async with caller.stream() as response:
            assert await response.content.readline() == b"data: first\n"
            assert made.engines["a"].running == 1
        await until(lambda: made.engines["a"].cancelled == 1)
        await until(lambda: router.status.in_flight == 0)


@pytest.mark.holds("decisions/0002-haproxy.md", "Slow or oversized headers are refused by the parser")
@ON_BOTH
async def test_headers_of_two_megabytes_are_refused_and_disturb_nobody() -> None:
    """HAProxy's parser refuses them before there is a request; 2.6 does it in words of its own."""
    async with fleet() as made, routed(made, "a", blocked=True) as (router, caller):
        other = asyncio.create_task(caller.post(session="other"))
        await until(lambda: router.status.in_flight == 1)
        reader, writer = await asyncio.open_connection("127.0.0.1", router.config.port)
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * 2_000_000)
        answer = (await asyncio.wait_for(reader.read(8192), 30)).decode()
        writer.close()
        if parser_takes_our_words():
            assert answer.startswith("HTTP/1.1 431 ")
            assert json.loads(answer.partition("\r\n\r\n")[2])["error"]["code"] == "headers_too_large"
        else:
            assert answer.startswith("HTTP/1.1 400 ")
        open_gates(made)
        assert (await other).status == 200
        assert len(made.engines["a"].seen) == 1


@pytest.mark.holds("router.md", "HAProxy serves its own page on 8404")
async def test_metrics_of_haproxy_itself() -> None:
    async with fleet() as made, routed(made, "a") as (router, caller):
        await caller.post()
        url = f"http://127.0.0.1:{router.config.metrics_port}"
        async with caller._session.get(f"{url}/metrics") as response:
            assert 'haproxy_server_max_queue{proxy="engines",server="a"}' in await response.text()
        async with caller._session.get(f"{url}/other") as response:
            assert response.status == 404


def open_gates(made: Fleet) -> None:
    for engine in made.engines.values():
        engine.gate.set()


def request_lines(router: Router) -> list[dict[str, str]]:
    return [json.loads(line) for line in router.log.splitlines() if line.startswith("{")]


def counted(router: Router, sample: str) -> float | None:
    assert router.agent is not None
    name, _, labels = sample.partition("{")
    wanted = dict(part.split("=") for part in labels.rstrip("}").replace('"', "").split(",") if part)
    return router.agent.metrics.registry.get_sample_value(name, wanted)
