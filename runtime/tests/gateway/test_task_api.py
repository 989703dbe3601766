"""The task API as callers use it, against a real Redis, a gateway process and worker processes.

Parsing, figures and views are in test_requests.py, authentication in test_auth.py.
"""

import asyncio
import json
import signal
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest

from flotilla_runtime.contract import FleetStatus, GatewayAuth, TaskKeys
from leaks.planted import planted
from router_support.waiting import until, until_told

# One process of pytest-xdist for all, since they share a gateway.
pytestmark = [pytest.mark.services, pytest.mark.xdist_group("gateway")]

LAG = "flotilla_worker_loop_lag_seconds"


def events_of(text: str) -> list[dict[str, Any]]:
    """The events in a stream, with their ids."""
    found = []
    for block in text.split("\n\n"):
        lines = [line for line in block.splitlines() if line and not line.startswith(":")]
        if lines:
            fields = dict(line.split(": ", 1) for line in lines)
            found.append({"id": int(fields["id"]), "event": fields["event"], **json.loads(fields["data"])})
    return found


def problem(response: httpx2.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = response.json()
    assert document["status"] == status
    assert {"type", "title", "detail"} <= set(document)
    return document


async def test_a_question_is_answered_with_its_source(fleet: Any) -> None:
    await fleet.start_worker("w1")
    task = await fleet.ended(await fleet.submit(metadata={"team": "docs"}))
    assert (task["status"], task["reason"]) == ("Succeeded", "Completed")
    assert task["result"]["answer"] == "VACUUM recovers disk space [1]."
    (citation,) = task["result"]["citations"]
    assert (citation["document"], citation["index"], citation["generation"]) == (
        "routine-vacuuming.html",
        "manual",
        "g-1",
    )
    assert task["usage"] == {"steps": 2, "tokens": 88, "costUSD": None}
    assert [moment["event"] for moment in task["timeline"]] == [
        *("submitted", "started"),
        *("callStarted", "callEnded", "callStarted", "callEnded", "ended"),
    ]
    took = datetime.fromisoformat(task["endedAt"]) - datetime.fromisoformat(task["submittedAt"])
    assert sum(task["time"].values()) == pytest.approx(took.total_seconds(), abs=0.002)
    assert task["metadata"] == {"team": "docs"}
    assert fleet.services.asked == [task["id"]]


@pytest.mark.holds("tasks.md", "The same idempotency key of the same caller is the same task with 200")
@pytest.mark.holds(
    "recovery.md", "A gateway that is killed: streams go on at another one, and a key finds its task"
)
async def test_the_same_idempotency_key_is_the_same_task(fleet: Any) -> None:
    async with fleet.client() as client:
        first = await client.post("/v1/tasks", json={"input": "a", "idempotencyKey": "k"})
        again = await client.post("/v1/tasks", json={"input": "a", "idempotencyKey": "k"})
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["id"] == again.json()["id"]
    assert first.headers["location"] == f"/v1/tasks/{first.json()['id']}"


@pytest.mark.holds(
    "tasks.md",
    "What happens to a task is a stream of events until the end, and resumes after `Last-Event-ID`",
)
async def test_events_are_followed_to_the_end_and_resumed_from_any_place(fleet: Any) -> None:
    fleet.services.answering.clear()
    task_id = await fleet.submit()
    async with fleet.client() as client, client.stream("GET", f"/v1/tasks/{task_id}/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        text = ""
        async for part in stream.aiter_text():
            text += part
            if "submitted" in text and not fleet.processes:
                await fleet.start_worker("w1")
                fleet.services.answering.set()
    whole = events_of(text)
    assert [event["id"] for event in whole] == list(range(7))
    assert whole[-1]["event"] == "ended"
    searched, answered = whole[3], whole[5]
    assert (searched["kind"], searched["target"]) == ("Retrieve", "manual")
    assert searched["result"][0]["document"] == "routine-vacuuming.html"
    assert (answered["target"], answered["tokens"], answered["outcome"]) == ("smol", 88, "Succeeded")
    assert "Answer." not in text, "the fleet's prompt is no part of an event"
    async with fleet.client() as client:
        rest = await client.get(f"/v1/tasks/{task_id}/events", headers={"Last-Event-ID": "3"})
        assert events_of(rest.text) == whole[4:]
        problem(await client.get(f"/v1/tasks/{task_id}/events", headers={"Last-Event-ID": "x"}), 400)


async def read_until_killed(stream: httpx2.Response, gateway: Any) -> str:
    """Read a stream until its gateway is killed, as soon as a worker has claimed the task."""
    text = ""
    try:
        async for part in stream.aiter_text():
            text += part
            if "started" in text and gateway.popen.poll() is None:
                gateway.kill()
    except httpx2.TransportError:
        return text
    raise AssertionError(f"the stream ended by itself: {text}")


@pytest.mark.holds(
    "tasks.md", "A stream is resumed at another gateway, with nothing missing and nothing doubled"
)
@pytest.mark.holds("tasks.md", "A gateway that is lost: clients go to another one")
@pytest.mark.holds(
    "recovery.md", "A gateway that is killed: streams go on at another one, and a key finds its task"
)
async def test_a_stream_whose_gateway_is_killed_is_resumed_at_another_one(own_fleet: Any) -> None:
    gateway = await own_fleet.start_gateway()
    lost = own_fleet.client()
    await own_fleet.start_gateway()
    own_fleet.services.answering.clear()
    task_id = await own_fleet.submit()
    await own_fleet.start_worker("w1")
    path = f"/v1/tasks/{task_id}/events"
    async with lost, lost.stream("GET", path) as stream:
        text = await read_until_killed(stream, gateway)
    seen = events_of(text.rpartition("\n\n")[0])
    assert [event["event"] for event in seen[:2]] == ["submitted", "started"]
    assert "event: ended" not in text
    async with own_fleet.client() as client:
        after = {"Last-Event-ID": str(seen[-1]["id"])}
        async with client.stream("GET", path, headers=after) as stream:
            assert stream.status_code == 200
            own_fleet.services.answering.set()
            rest = events_of("".join([part async for part in stream.aiter_text()]))
        whole = events_of((await client.get(path)).text)
    assert seen + rest == whole
    assert [event["id"] for event in whole] == list(range(7))
    assert whole[-1]["event"] == "ended"


@pytest.mark.holds("tasks.md", "204 when the task has ended and nothing is left to tell")
async def test_a_browser_that_has_seen_the_end_is_told_not_to_come_back(fleet: Any) -> None:
    """An EventSource connects again after every end, with the id of the last event it has seen."""
    await fleet.start_worker("w1")
    task_id = (await fleet.ended(await fleet.submit()))["id"]
    async with fleet.client() as client:
        seen = events_of((await client.get(f"/v1/tasks/{task_id}/events")).text)
        for last in (seen[-1]["id"], 999):
            again = await client.get(f"/v1/tasks/{task_id}/events", headers={"Last-Event-ID": str(last)})
            assert (again.status_code, again.content) == (204, b"")


async def test_a_stream_ends_when_its_task_is_forgotten(fleet: Any) -> None:
    task_id = await fleet.submit()
    keys = TaskKeys(fleet.queue.fleet)
    async with fleet.client() as client, client.stream("GET", f"/v1/tasks/{task_id}/events") as stream:
        lines = stream.aiter_lines()
        assert "id: 0" in [await anext(lines), await anext(lines)]
        fleet.redis.ask("del", keys.task(task_id), keys.journal(task_id))
        fleet.redis.ask("spublish", keys.events(task_id), "")  # else it looks only after some seconds
        async with asyncio.timeout(30):
            assert not any("event:" in line for line in [line async for line in lines])


@pytest.mark.holds("tasks.md", "Cancel answers 200, 202 or 409")
async def test_a_task_is_cancelled_while_it_waits_and_while_it_runs(fleet: Any) -> None:
    waiting = await fleet.submit()
    async with fleet.client() as client:
        cancelled = await client.post(f"/v1/tasks/{waiting}/cancel")
        assert (cancelled.status_code, cancelled.json()["status"]) == (200, "Cancelled")
        assert (await client.post(f"/v1/tasks/{waiting}/cancel")).status_code == 200
        fleet.services.answering.clear()
        await fleet.start_worker("w1")
        running = await fleet.submit()
        await fleet.services.are_asked()
        asked = await client.post(f"/v1/tasks/{running}/cancel")
        assert (asked.status_code, asked.json()["status"]) == (202, "Running")
        task = await fleet.ended(running)
        assert (task["status"], task["reason"]) == ("Cancelled", "Cancelled")
        assert task["partial"]["passages"][0]["document"] == "routine-vacuuming.html"
        fleet.services.answering.set()
        done = await fleet.ended(await fleet.submit())
        problem(await client.post(f"/v1/tasks/{done['id']}/cancel"), 409)


@pytest.mark.holds("tasks.md", "Tasks are listed newest first, page by page and by status")
async def test_tasks_are_listed_page_by_page_and_by_status(fleet: Any) -> None:
    ids = [await fleet.submit(f"question {number}") for number in range(5)]
    async with fleet.client() as client:
        await client.post(f"/v1/tasks/{ids[1]}/cancel")
        first = (await client.get("/v1/tasks", params={"limit": 3})).json()
        assert [task["id"] for task in first["tasks"]] == ids[:1:-1]
        second = (await client.get("/v1/tasks", params={"limit": 3, "cursor": first["nextCursor"]})).json()
        assert [task["id"] for task in second["tasks"]] == ids[1::-1]
        assert second["nextCursor"] is None
        cancelled = (await client.get("/v1/tasks", params={"status": "Cancelled"})).json()
        assert [task["id"] for task in cancelled["tasks"]] == [ids[1]]
        wrong = await client.get("/v1/tasks", params={"status": "Gone", "limit": "0", "of": "me"})
        assert [error["field"] for error in problem(wrong, 400)["errors"]] == ["of", "status", "limit"]


@pytest.mark.holds("tasks.md", "A full queue is 429 with Retry-After")
async def test_a_full_queue_says_when_to_come_back_and_takes_tasks_again_later(fleet: Any) -> None:
    for number in range(50):
        await fleet.submit(f"question {number}")
    async with fleet.client() as client:
        refused = await client.post("/v1/tasks", json={"input": "one more"})
        assert "50 tasks are waiting" in problem(refused, 429)["detail"]
        assert int(refused.headers["retry-after"]) > 0
        await fleet.start_worker("w1")
        taken: list[str] = []

        async def is_taken() -> bool:
            response = await client.post("/v1/tasks", json={"input": "one more"})
            if response.status_code == 201:
                taken.append(response.json()["id"])
            return bool(taken)

        await until_told(is_taken)
        await fleet.ended(taken[0])


@pytest.mark.holds("tasks.md", "A body over 1 MiB is 413 without being read whole")
@pytest.mark.parametrize("announced", [True, False], ids=["with its length announced", "in chunks"])
async def test_a_task_of_10_mb_is_refused_without_being_read_whole(fleet: Any, announced: bool) -> None:
    body = b'{"input": "' + b"x" * 10_000_000 + b'"}'

    async def parts() -> Any:
        for start in range(0, len(body), 65536):
            yield body[start : start + 65536]

    async with fleet.client() as client:
        content = body if announced else parts()
        refused = await client.post("/v1/tasks", content=content)
        assert "1048576 bytes" in problem(refused, 413)["detail"]
        assert (await client.get("/v1/tasks")).json()["tasks"] == []


@pytest.mark.holds("tasks.md", "`/openapi.json` describes the whole API")
@pytest.mark.holds("tasks.md", "Refusals are problem details that name every wrong field")
async def test_bad_requests_are_refused_with_words_and_nothing_is_kept(fleet: Any) -> None:
    async with fleet.client() as client:
        assert "not JSON" in problem(await client.post("/v1/tasks", content=b"why?"), 400)["detail"]
        unknown = problem(await client.post("/v1/tasks", json={"input": "a", "wish": 1}), 400)
        assert unknown["errors"] == [{"field": "wish", "problem": "unknown field"}]
        problem(await client.post("/v1/tasks", json={"input": "a", "limits": {"maxSteps": 99}}), 400)
        problem(await client.get("/v1/tasks/0123456789abcdefghjkmnpqrs"), 404)
        problem(await client.get("/v1/tasks/..%2f..%2fsecrets"), 404)
        problem(await client.get("/v2/anything"), 404)
        problem(await client.delete("/v1/tasks"), 405)
        assert (await client.get("/v1/tasks")).json() == {"tasks": [], "nextCursor": None}
        assert (await client.get("/openapi.json")).json()["openapi"] == "3.1.0"


@pytest.mark.holds("tasks.md", "With `Secret` each entry is a caller, and a change applies without a restart")
async def test_with_a_secret_each_caller_sees_its_own_tasks(own_fleet: Any) -> None:
    (own_fleet.callers / "ann").write_text(planted("a"))
    (own_fleet.callers / "bob").write_text(planted("b"))
    await own_fleet.start_gateway(GatewayAuth.SECRET)
    async with (
        own_fleet.client(planted("a")) as ann,
        own_fleet.client(planted("b")) as bob,
        own_fleet.client("x") as stranger,
    ):
        task_id = (await ann.post("/v1/tasks", json={"input": "a"})).json()["id"]
        assert (await ann.get(f"/v1/tasks/{task_id}")).status_code == 200
        for path in ("", "/events"):
            problem(await bob.get(f"/v1/tasks/{task_id}{path}"), 404)
        problem(await bob.post(f"/v1/tasks/{task_id}/cancel"), 404)
        assert (await bob.get("/v1/tasks")).json()["tasks"] == []
        assert len((await ann.get("/v1/tasks")).json()["tasks"]) == 1
        wrong = await stranger.post("/v1/tasks", json={"input": "a"})
        problem(wrong, 401)
        assert wrong.headers["www-authenticate"].startswith("Bearer")
        (own_fleet.callers / "carl").write_text(planted("c"))
        async with own_fleet.client(planted("c")) as carl:

            async def is_known() -> bool:
                answer: httpx2.Response = await carl.get("/v1/tasks")
                return answer.status_code == 200

            await until_told(is_known)


@pytest.mark.holds(
    "tasks.md", "A Redis that is nearly full answers 429, and results that lived their time make room"
)
async def test_a_redis_that_is_nearly_full_refuses_tasks_and_takes_them_again_later(fleet: Any) -> None:
    fleet.redis.ask("config", "set", "maxmemory", "1")
    try:
        async with fleet.client() as client:

            async def is_refused() -> bool:
                full = await client.post("/v1/tasks", json={"input": "b"})
                return bool(full.status_code == 429 and full.json()["type"].endswith("/store-full"))

            await until_told(is_refused)
    finally:
        fleet.redis.ask("config", "set", "maxmemory", "0")
    await fleet.start_worker("w1")

    async def is_taken() -> bool:
        async with fleet.client() as client:
            return bool((await client.post("/v1/tasks", json={"input": "c"})).status_code == 201)

    await until_told(is_taken)


@pytest.mark.holds("tasks.md", "A gateway of a managed Redis is ready once Redis has answered, and stays so")
async def test_a_gateway_is_ready_once_redis_has_answered_and_stays_so(own_fleet: Any) -> None:
    own_fleet.redis.stop()
    await own_fleet.start_gateway(becomes_ready=False)

    async def ready() -> bool:
        return bool((await own_fleet.get(f"{own_fleet.status_url}/readyz")).status_code == 200)

    assert not await ready()
    own_fleet.redis.start()
    await until_told(ready)
    await own_fleet.submit()
    own_fleet.redis.stop()
    async with own_fleet.client() as client:
        problem(await client.post("/v1/tasks", json={"input": "b"}), 503)
    assert await ready()


@pytest.mark.holds("tasks.md", "A task is answered with 201 once it is on disk")
@pytest.mark.holds("tasks.md", "503 with Retry-After while Redis or the API server is away")
@pytest.mark.holds("recovery.md", "Redis that is killed and comes back has what it answered")
@pytest.mark.once
async def test_a_redis_killed_right_after_the_201_still_has_the_task(own_fleet: Any) -> None:
    await own_fleet.start_gateway()
    task_id = await own_fleet.submit()
    own_fleet.redis.stop(signal.SIGKILL)
    async with own_fleet.client() as client:
        away = await client.post("/v1/tasks", json={"input": "b", "idempotencyKey": "b"})
        problem(away, 503)
        assert away.headers["retry-after"] == "2"
        problem(await client.get(f"/v1/tasks/{task_id}"), 503)
    own_fleet.redis.start()
    await own_fleet.start_worker("w1")
    task = await own_fleet.ended(task_id)
    assert task["status"] == "Succeeded"


@pytest.mark.holds(
    "tasks.md", "Redis lost in the middle: workers go on and send each result until it is written"
)
@pytest.mark.holds("recovery.md", "Redis that is killed and comes back has what it answered")
@pytest.mark.once
async def test_a_redis_killed_in_the_middle_of_a_task_loses_and_doubles_nothing(own_fleet: Any) -> None:
    await own_fleet.start_gateway()
    worker = await own_fleet.start_worker("w1")
    own_fleet.services.answering.clear()
    task_id = await own_fleet.submit()
    await own_fleet.services.are_asked()
    own_fleet.redis.stop(signal.SIGKILL)
    own_fleet.services.answering.set()
    # The first failure of the claims, and the first of the write of the model's answer.
    await until(lambda: len(first_failures(worker)) == 2)
    own_fleet.redis.start()
    task = await own_fleet.ended(task_id)
    assert task["status"] == "Succeeded"
    assert len(own_fleet.services.retrieved) == 1


@pytest.mark.once
async def test_a_redis_that_comes_back_empty_has_lost_its_tasks_and_takes_new_ones(own_fleet: Any) -> None:
    await own_fleet.start_gateway()
    worker = await own_fleet.start_worker("w1")
    own_fleet.services.answering.clear()
    waiting, under_way = await own_fleet.submit(), await own_fleet.submit()
    await own_fleet.services.are_asked(2)
    own_fleet.redis.stop(signal.SIGKILL)
    own_fleet.redis.empty()
    own_fleet.redis.start()
    own_fleet.services.answering.set()
    async with own_fleet.client() as client:
        for lost in (waiting, under_way):
            problem(await client.get(f"/v1/tasks/{lost}"), 404)
    assert (await own_fleet.ended(await own_fleet.submit()))["status"] == "Succeeded"
    assert worker.popen.poll() is None


def first_failures(worker: Any) -> list[dict[str, Any]]:
    """The worker's log lines for each kind of request that Redis began to leave unanswered."""
    lines = [json.loads(line) for line in worker.log.read_text().splitlines() if "store_unavailable" in line]
    return [line for line in lines if line["failures"] == 1]


@pytest.mark.holds("README.md", "A task survives the worker that runs it")
@pytest.mark.holds(
    "tasks.md", "A lost worker is replaced after the lease, and no finished call is made again"
)
@pytest.mark.once
async def test_a_worker_killed_in_the_middle_is_replaced_and_no_finished_call_is_repeated(fleet: Any) -> None:
    first = await fleet.start_worker("first")
    fleet.services.answering.clear()
    ids = [await fleet.submit(f"question {number}") for number in range(10)]
    await fleet.services.are_asked(10)
    await fleet.start_worker("second")
    first.kill()
    fleet.services.answering.set()
    for task_id in ids:
        task = await fleet.ended(task_id)
        assert (task["status"], task["attempts"]) == ("Succeeded", 1), "nobody knows which one killed it"
        assert {"first", "second"} == {moment["worker"] for moment in task["timeline"] if moment["worker"]}
    assert len(fleet.services.retrieved) == 10
    assert sorted(fleet.services.asked) == sorted(ids * 2)
    status = await figures(fleet)
    assert (status.recovered, status.ended) == (10, {"Completed": 10})


@pytest.mark.holds("tasks.md", "A worker that is asked to leave hands its tasks over")
@pytest.mark.holds("recovery.md", "A worker that is told to stop hands over")
async def test_a_worker_that_is_stopped_hands_over_and_leaves_at_once(fleet: Any) -> None:
    first = await fleet.start_worker("first", handover_seconds=1)
    fleet.services.answering.clear()
    task_id = await fleet.submit()
    await fleet.services.are_asked()
    assert await asyncio.wait_for(first.stop(), 30) == 0
    fleet.services.answering.set()
    await fleet.start_worker("second")
    task = await fleet.ended(task_id)
    assert (task["status"], task["attempts"]) == ("Succeeded", 1)
    starts = [moment for moment in task["timeline"] if moment["event"] == "started"]
    assert [(start["worker"], start["attempt"]) for start in starts] == [("first", 1), ("second", 1)]


@pytest.mark.holds("tasks.md", "`recovery.maxAttempts` lost workers end a task")
async def test_a_worker_that_always_dies_is_given_up_on(fleet: Any) -> None:
    fleet.services.answering.clear()
    task_id = await fleet.submit()
    queue = fleet.queue.model_copy(update={"max_attempts": 2})
    for attempt in range(1, 3):
        worker = await fleet.start_worker(f"w{attempt}", queue=queue)
        await fleet.services.are_asked(attempt)
        worker.kill()
    await fleet.start_worker("last", queue=queue)
    task = await fleet.ended(task_id)
    assert (task["status"], task["reason"]) == ("Failed", "Infrastructure")
    assert task["partial"]["passages"]


async def figures(fleet: Any) -> FleetStatus:
    return FleetStatus.model_validate((await fleet.get(f"{fleet.status_url}/v1/status")).json())


@pytest.mark.holds("tasks.md", "Gateways and workers serve metrics and probes")
@pytest.mark.holds("tasks.md", "The operator reads the gateways' `/v1/status`")
async def test_the_figures_say_what_waits_what_runs_and_what_ended(own_fleet: Any) -> None:
    await own_fleet.start_gateway()
    own_fleet.services.answering.clear()
    ids = [await own_fleet.submit(f"question {number}", priority="Batch") for number in range(3)]
    before = await figures(own_fleet)
    assert (before.waiting, before.in_flight, before.p95_seconds) == (3, 0, None)
    assert before.oldest_waiting_seconds is not None
    await own_fleet.start_worker("w1", concurrency=2)
    await own_fleet.services.are_asked(2)
    during = await figures(own_fleet)
    assert (during.waiting, during.in_flight) == (1, 2)
    own_fleet.services.answering.set()
    for task_id in ids:
        await own_fleet.ended(task_id)
    after = await figures(own_fleet)
    assert (after.waiting, after.in_flight, after.ended) == (0, 0, {"Completed": 3})
    assert (after.steps, after.tokens) == (6, 264)
    assert after.p95_seconds is not None
    assert {"Model/smol", "Index/manual", "Queue"} <= set(after.busy_seconds)
    metrics = (await own_fleet.get(f"{own_fleet.status_url}/metrics")).text
    assert 'flotilla_fleet_tasks_ended_1h{reason="Completed"} 3.0' in metrics
    assert 'flotilla_gateway_requests_total{route="/v1/tasks",status="201"} 3.0' in metrics
    assert not any(task_id in metrics for task_id in ids)


@pytest.mark.holds("tasks.md", "Gateways and workers serve metrics and probes")
async def test_many_tasks_at_once_do_not_hold_the_event_loop(own_fleet: Any) -> None:
    """Sixty calls wait for a model that answers none, and meanwhile the worker's event loop is never late but
    for the time in which the worker computed, or waited for a processor on a busy machine.
    """
    await own_fleet.start_gateway(queue=own_fleet.queue.model_copy(update={"max_waiting": 1000}))
    worker = await own_fleet.start_worker("w1", concurrency=100)
    own_fleet.services.answering.clear()
    before, excused_before = await worker_metrics(own_fleet), computed_or_runnable_seconds(worker)
    async with own_fleet.client() as client:
        answers = await asyncio.gather(
            *(client.post("/v1/tasks", json={"input": f"question {number}"}) for number in range(60))
        )
    await own_fleet.services.are_asked(60)

    async def has_ticked() -> bool:
        return (await worker_metrics(own_fleet))[LAG + "_count"] >= before[LAG + "_count"] + 8

    await until_told(has_ticked)
    own_fleet.services.answering.set()
    for response in answers:
        await own_fleet.ended(response.json()["id"], within_seconds=60)
    after, excused = await worker_metrics(own_fleet), computed_or_runnable_seconds(worker) - excused_before
    assert after['flotilla_worker_runs_total{outcome="Ended"}'] == 60
    assert after[LAG + "_sum"] - before[LAG + "_sum"] < excused + 0.5


async def worker_metrics(fleet: Any) -> dict[str, float]:
    """The samples of the worker that was started behind the gateway."""
    port = json.loads((fleet.folder / "config-1.json").read_text())["metrics_port"]
    text = (await fleet.get(f"http://127.0.0.1:{port}/metrics")).text
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in lines}


def computed_or_runnable_seconds(process: Any) -> float:
    """How long the process's main thread has had a processor or has waited for one."""
    computed, runnable, _ = Path(f"/proc/{process.popen.pid}/schedstat").read_text().split()
    return (int(computed) + int(runnable)) / 1e9


async def test_keys_of_a_fleet_share_one_hash_tag(fleet: Any) -> None:
    await fleet.start_worker("w1")
    await fleet.ended(await fleet.submit(idempotencyKey="k"))
    keys = [key for key in fleet.redis.ask("keys", "*").splitlines() if key]
    prefix = TaskKeys("default/support").prefix
    assert keys
    assert all(key.startswith(prefix) for key in keys)
    assert prefix == "flotilla:{default/support}:"
