"""How a stream learns that a journal has grown, and what it holds in memory; a real Redis.

What an event says is in test_history.py. Streams over HTTP, and across gateways, are in test_task_api.py.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from flotilla_runtime.agent.journal import CallKind, Intended
from flotilla_runtime.agent.store.connections import connect
from flotilla_runtime.agent.store.task_store import TaskStore
from flotilla_runtime.agent.store.texts import Piece, TaskPieces, TextStore
from flotilla_runtime.agent.tasks import Claim, NewTask
from flotilla_runtime.contract import QueueConfig, TaskKeys, TaskLimits
from flotilla_runtime.gateway.events import READ_AT_ONCE, Sight, followed, task_events
from flotilla_runtime.gateway.growth import Growth
from router_support.waiting import until

pytestmark = pytest.mark.services

NEVER = 3600.0  # nobody looks without being told
KEYS = TaskKeys("default/support")


class Gateway:
    """A store, a subscription, and the streams of a test."""

    def __init__(self, server: Any, look_every_seconds: float, **connection: Any) -> None:
        config = QueueConfig(
            **{
                "fleet": "default/support",
                "url": server.url,
                "password_path": server.password_path,
                "lease_seconds": 30,
                **connection,
            }
        )
        client = connect(config)
        self.store = TaskStore(client, config)
        self.texts = TextStore(client, config.fleet)
        self.growth = Growth(client, self.store.keys.events, look_every_seconds, NEVER)
        self.stopping = asyncio.Event()

    @property
    def sight(self) -> Sight:
        return Sight(store=self.store, texts=self.texts, growth=self.growth, stopping=self.stopping)

    def stream(self, task: str, first: int = 0) -> AsyncIterator[str]:
        return task_events(self.sight, task, first)


@contextlib.asynccontextmanager
async def gateway(server: Any, look_every_seconds: float = NEVER) -> AsyncIterator[Gateway]:
    opened = Gateway(server, look_every_seconds)
    following = asyncio.create_task(opened.growth.follow())
    yield opened
    following.cancel()
    await opened.store.close()


async def running(store: TaskStore, task: str = "t1") -> Claim:
    await store.submit(NewTask(id=task, input="why?", caller="ann", limits=TaskLimits()))
    [claim] = await store.claim("w1", 1)
    return claim


def call(number: int) -> Intended:
    return Intended(at=1, call=f"c{number}", kind=CallKind.NOW, target="", arguments="x" * 1000)


async def next_event(stream: AsyncIterator[str]) -> str:
    """The id and the kind of the next event."""
    async for text in stream:
        if not text.startswith(":"):
            number, kind, _ = text.split("\n", 2)
            return f"{number.removeprefix('id: ')} {kind.removeprefix('event: ')}"
    return "the end"


@pytest.mark.holds(
    "tasks.md",
    "Events are pushed; without a subscription a gateway looks every few seconds; a slow reader "
    "holds up nobody",
)
async def test_a_stream_hears_of_growth_without_looking(redis_server: Any) -> None:
    async with gateway(redis_server) as own:
        claim = await running(own.store)
        stream = own.stream("t1")
        assert [await next_event(stream) for _ in range(2)] == ["0 submitted", "1 started"]
        waiting = asyncio.create_task(next_event(stream))
        await until(lambda: own.growth.subscribed == 1)
        await own.store.append(claim, 2, [call(1)])
        began = time.monotonic()
        assert await asyncio.wait_for(waiting, 5) == "2 callStarted"
        assert time.monotonic() - began < 1
        await stream.aclose()  # type: ignore[attr-defined]


async def test_growth_between_reading_and_subscribing_is_not_missed(redis_server: Any) -> None:
    """Redis' confirmation of the subscription makes the stream look once more."""
    async with gateway(redis_server) as own:
        claim = await running(own.store)
        streams = [own.stream("t1", first=2) for _ in range(20)]
        hearing = [asyncio.create_task(next_event(stream)) for stream in streams]
        await own.store.append(claim, 2, [call(1)])
        assert await asyncio.wait_for(asyncio.gather(*hearing), 10) == ["2 callStarted"] * 20
        assert own.growth.subscribed == 1, "one channel for all streams of a task"


@pytest.mark.holds(
    "tasks.md",
    "Events are pushed; without a subscription a gateway looks every few seconds; a slow reader "
    "holds up nobody",
)
async def test_a_lost_subscription_is_made_anew_and_everybody_looks(redis_server: Any) -> None:
    async with gateway(redis_server) as own:
        claim = await running(own.store)
        stream = own.stream("t1", first=2)
        hearing = asyncio.create_task(next_event(stream))
        await until(lambda: own.growth.subscribed == 1)
        redis_server.ask("client", "kill", "type", "pubsub")
        await own.store.append(claim, 2, [call(1)])
        assert await asyncio.wait_for(hearing, 10) == "2 callStarted"
        hearing = asyncio.create_task(next_event(stream))
        await until(lambda: KEYS.events("t1") in redis_server.ask("pubsub", "shardchannels"))
        await own.store.append(claim, 3, [call(2)])
        assert await asyncio.wait_for(hearing, 5) == "3 callStarted"


@pytest.mark.holds(
    "tasks.md",
    "Events are pushed; without a subscription a gateway looks every few seconds; a slow reader "
    "holds up nobody",
)
async def test_a_user_of_redis_without_channels_has_tasks_and_events_all_the_same(redis_server: Any) -> None:
    """Redis gives a new user no channels, unless it is told to."""
    rights = ("on", f">{redis_server.password}", "~*", "+@all", "resetchannels")
    redis_server.ask("acl", "setuser", "narrow", *rights)
    own = Gateway(redis_server, look_every_seconds=0.2, user="narrow")
    following = asyncio.create_task(own.growth.follow())
    claim = await running(own.store)
    hearing = asyncio.create_task(next_event(own.stream("t1", first=2)))
    await own.store.append(claim, 2, [call(1)])
    assert await asyncio.wait_for(hearing, 5) == "2 callStarted"
    following.cancel()
    await own.store.close()


@pytest.mark.holds(
    "tasks.md",
    "Events are pushed; without a subscription a gateway looks every few seconds; a slow reader "
    "holds up nobody",
)
async def test_without_a_subscription_a_stream_looks_every_few_seconds(redis_server: Any) -> None:
    own = Gateway(redis_server, look_every_seconds=0.2)  # nobody follows
    claim = await running(own.store)
    hearing = asyncio.create_task(next_event(own.stream("t1", first=2)))
    await asyncio.sleep(0)
    await own.store.append(claim, 2, [call(1)])
    assert await asyncio.wait_for(hearing, 5) == "2 callStarted"
    await own.store.close()


@pytest.mark.holds(
    "tasks.md",
    "Events are pushed; without a subscription a gateway looks every few seconds; a slow reader "
    "holds up nobody",
)
@pytest.mark.attack("A caller opens event streams and does not read them")
async def test_a_reader_that_does_not_read_holds_up_nobody_and_nothing_is_kept_for_it(
    redis_server: Any,
) -> None:
    async with gateway(redis_server) as own:
        claim = await running(own.store)
        slow, quick = followed(own.sight, "t1", 0), own.stream("t1", first=2)
        assert (await anext(slow)).number == 0
        for number in range(100):
            await own.store.append(claim, 2 + number, [call(number)])
            assert await asyncio.wait_for(next_event(quick), 5) == f"{2 + number} callStarted"
        frame = slow.ag_frame  # type: ignore[attr-defined]
        assert len(frame.f_locals["entries"]) <= READ_AT_ONCE
        rest = [heard.number for heard in [await anext(slow) for _ in range(102)] if heard.event]
        assert rest[-1] == 101, "it has missed nothing"


async def test_a_channel_is_left_when_its_last_reader_has_gone(redis_server: Any) -> None:
    async with gateway(redis_server) as own:
        await running(own.store)
        stream = own.stream("t1")
        assert await next_event(stream) == "0 submitted"
        await until(lambda: own.growth.subscribed == 1)
        await stream.aclose()  # type: ignore[attr-defined]
        async with own.growth.of("t2"):
            await until(lambda: own.growth.subscribed == 1)
            assert KEYS.events("t1") not in redis_server.ask("pubsub", "shardchannels")


async def test_streams_end_when_the_gateway_stops(redis_server: Any) -> None:
    async with gateway(redis_server) as own:
        await running(own.store)
        stream = own.stream("t1", first=2)
        hearing = asyncio.create_task(next_event(stream))
        await until(lambda: own.growth.subscribed == 1)
        own.stopping.set()
        own.growth.wake_all()
        assert await asyncio.wait_for(hearing, 5) == "the end"


@pytest.mark.parametrize(
    "broken",
    [pytest.param("no JSON", id="no JSON"), pytest.param('{"type":"Ended","at":"x"}', id="no fields")],
)
async def test_an_entry_that_cannot_be_read_is_no_event(redis_server: Any, broken: str) -> None:
    async with gateway(redis_server) as own:
        claim = await running(own.store)
        redis_server.ask("rpush", KEYS.journal("t1"), broken)
        await own.store.append(claim, 3, [call(1)])
        assert await next_event(own.stream("t1", first=2)) == "3 callStarted"


async def test_a_large_value_is_in_its_event(redis_server: Any) -> None:
    async with gateway(redis_server) as own:
        claim = await running(own.store)
        large = replace(call(1), kind=CallKind.TOOL, arguments={"q": "x" * 100_000})
        await own.store.append(claim, 2, [large])
        text = await anext(own.stream("t1", first=2))
        assert json.loads(text.partition("data: ")[2])["arguments"] == large.arguments
        redis_server.ask("del", KEYS.payloads("t1"))
        text = await anext(own.stream("t1", first=2))
        assert "arguments" not in json.loads(text.partition("data: ")[2]), "the event without what is gone"


def shown(claim: Claim, *pieces: Piece) -> list[TaskPieces]:
    return [TaskPieces(task=claim.id, token=claim.token, pieces=pieces)]


@pytest.mark.holds(
    "tasks.md",
    "`text` comes as the model writes it, whole for who comes late, taken back with its try, and "
    "is not written to the append-only file",
)
async def test_text_is_shown_to_who_watches_and_whole_to_who_comes_late(redis_server: Any) -> None:
    async with gateway(redis_server) as own:
        claim = await running(own.store)
        await own.store.append(claim, 2, [Intended(at=1, call="c", kind=CallKind.MODEL, target="m")])
        assert await own.texts.watched(["t1", "t2"]) == set()
        first = own.stream("t1", first=3)
        hearing = asyncio.create_task(anext(text async for text in first if "text" in text))
        await until(lambda: own.growth.subscribed == 1)
        assert await own.texts.watched(["t1", "t2"]) == {"t1"}
        before = redis_server.ask("info", "persistence")
        await own.texts.show(shown(claim, Piece(call="c", text="VACUUM ")))
        assert '"offset":0,"text":"VACUUM "' in await asyncio.wait_for(hearing, 5)
        await own.texts.show(shown(claim, Piece(call="c", at=7, text="recovers")))
        late = own.stream("t1", first=3)
        told = [await asyncio.wait_for(anext(late), 5) for _ in range(2)]
        assert '"offset":0,"text":"VACUUM "' in told[0]
        assert '"offset":7,"text":"recovers"' in told[1]
        assert "id:" not in told[0]
        assert appended(before) == appended(redis_server.ask("info", "persistence"))


def appended(info: str) -> str:
    [size] = [line for line in info.splitlines() if line.startswith("aof_current_size")]
    return size


@pytest.mark.holds(
    "tasks.md",
    "`text` comes as the model writes it, whole for who comes late, taken back with its try, and "
    "is not written to the append-only file",
)
async def test_a_worker_that_lost_the_task_shows_nothing_of_it(redis_server: Any) -> None:
    async with gateway(redis_server) as own:
        claim = await running(own.store)
        stale = Claim(id=claim.id, token=claim.token - 1)
        await own.texts.show(shown(stale, Piece(call="c", text="old")))
        assert await own.texts.after("t1", "", 10) == []
        await own.texts.show(shown(claim, Piece(call="c", text="new")))
        assert [one.piece.text for one in await own.texts.after("t1", "", 10)] == ["new"]
        await own.texts.show(shown(claim))
        assert await own.texts.after("t1", "", 10) == [], "dropped"
