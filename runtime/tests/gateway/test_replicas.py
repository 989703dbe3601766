"""A submission that no replica of Redis confirms, at a gateway; the rest is in test_connections.py."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
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


@pytest.mark.holds(
    "tasks.md", "A submission that no replica confirms in time is a 503, and its key finds the task"
)
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


@pytest.mark.holds(
    "tasks.md",
    "A submission or replay without a key that may be kept is a 503 that is not to be repeated and "
    "names the task, so OpenAI's client makes one task",
)
@pytest.mark.once
async def test_the_official_openai_client_makes_one_task_of_an_unconfirmed_submission(
    replica: RedisServer, own_fleet: Any
) -> None:
    await own_fleet.start_gateway(serves_openai=True)
    asker = openai.AsyncOpenAI(base_url=f"{own_fleet.gateway_url}/v1", api_key="none")
    async with own_fleet.client() as client, asker:
        with paused(replica), pytest.raises(openai.InternalServerError) as uncertain:
            await asker.responses.create(model="support", input="pay ann", background=True)
        [task] = (await client.get("/v1/tasks")).json()["tasks"]
    assert uncertain.value.code == "uncertain"
    assert f"GET /v1/tasks/{task['id']} finds it" in uncertain.value.message
    assert "retry-after" not in uncertain.value.response.headers


@pytest.mark.holds(
    "tasks.md",
    "A replay that is sent again with its key makes no second task, and `flotilla replay` sends one",
)
async def test_an_unconfirmed_replay_is_found_by_its_key_and_without_one_is_not_to_be_sent_again(
    replica: RedisServer, own_fleet: Any
) -> None:
    await own_fleet.start_gateway()
    task = await own_fleet.submit("pay ann")
    path = f"/v1/tasks/{task}/replay"
    async with own_fleet.client() as client:
        await client.post(f"/v1/tasks/{task}/cancel")
        with paused(replica):
            keyed = await client.post(path, json={"idempotencyKey": "k"})
            bare = await client.post(path)
        again = await client.post(path, json={"idempotencyKey": "k"})
        tasks = [each["id"] for each in (await client.get("/v1/tasks")).json()["tasks"]]
    assert (keyed.status_code, keyed.headers["retry-after"]) == (503, "2")
    assert (bare.status_code, bare.headers["x-should-retry"]) == (503, "false")
    assert again.status_code == 200, "the task was there"
    assert tasks[1:] == [again.json()["id"], task], "and the other replay is one more task"
    assert tasks[0] in bare.json()["detail"]
