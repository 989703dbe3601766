"""A submission that no replica of Redis confirms, at a gateway; the rest is in test_connections.py."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from redis_servers import RedisServer
from redis_topologies import paused, server, wait_until

pytestmark = [pytest.mark.services, pytest.mark.xdist_group("redis_topologies")]


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """The fleet's Redis, with a replica."""
    started = server(tmp_path / "primary")
    yield started
    started.stop()


@pytest.fixture
def replica(tmp_path: Path, redis_server: RedisServer) -> Iterator[RedisServer]:
    started = server(tmp_path / "replica", "--replicaof", f"127.0.0.1 {redis_server.port}")
    wait_until(lambda: "state=online" in redis_server.ask("info", "replication"), "no replica")
    yield started
    started.stop()


async def test_an_unconfirmed_submission_is_told_so_and_its_key_finds_it(
    replica: RedisServer, own_fleet: Any
) -> None:
    await own_fleet.start_gateway()
    submission = {"input": "why?", "idempotencyKey": "k"}
    async with own_fleet.client() as client:
        with paused(replica):
            unconfirmed = await client.post("/v1/tasks", json=submission)
        assert unconfirmed.status_code == 503
        assert unconfirmed.headers["retry-after"] == "2"
        assert "send the request again with the same idempotencyKey" in unconfirmed.json()["detail"]
        again = await client.post("/v1/tasks", json=submission)
        assert again.status_code == 200, "the task was there"
        assert [task["id"] for task in (await client.get("/v1/tasks")).json()["tasks"]] == [
            again.json()["id"]
        ]
