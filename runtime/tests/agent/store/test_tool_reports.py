"""Reports of tools in a real Redis: told once, repeated by many, gone when nobody repeats them."""

import asyncio

import pytest
from redis.asyncio import Redis

from flotilla_runtime.agent.errors import StoreUnavailableError
from flotilla_runtime.agent.store import tool_reports
from flotilla_runtime.agent.store.tool_reports import MOST_MESSAGE, ToolReports
from flotilla_runtime.contract import TaskKeys, ToolReport, ToolTrouble
from redis_servers import ADMIN, RedisServer

pytestmark = pytest.mark.services
KEYS = TaskKeys("default/support")


def report(tool: str, message: str = "no answer") -> ToolReport:
    return ToolReport(tool=tool, trouble=ToolTrouble.NO_ANSWER, message=message)


def client_of(server: RedisServer) -> Redis:
    return Redis.from_url(server.url, username=ADMIN, password=server.password, decode_responses=True)


@pytest.mark.holds("tools.md", "Workers report what they cannot use, and take it back")
async def test_reports_stand_once_and_go_when_nobody_repeats_them(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = client_of(redis_server)
    one, other = ToolReports(client, KEYS), ToolReports(client, KEYS)
    assert await one.now() == ()
    await one.tell([report("b"), report("a", "x" * 5000)])
    await other.tell([report("b")])
    assert [(told.tool, len(told.message)) for told in await one.now()] == [("a", MOST_MESSAGE), ("b", 9)]
    await other.tell([], over=[report("a", "x" * 5000)])
    assert await one.now() == (report("b"),)
    assert 0 < await client.ttl(KEYS.tool_reports) <= tool_reports.HOLDS_SECONDS
    monkeypatch.setattr(tool_reports, "HOLDS_SECONDS", -1)
    await other.tell([report("b")])
    assert await one.now() == ()
    await client.aclose()


async def test_a_redis_that_is_away_is_said_to_be(redis_server: RedisServer) -> None:
    client = client_of(redis_server)
    redis_server.stop()
    with pytest.raises(StoreUnavailableError):
        await ToolReports(client, KEYS).tell([report("a")])
    with pytest.raises(StoreUnavailableError):
        await asyncio.wait_for(ToolReports(client, KEYS).now(), 5)
    await client.aclose()
