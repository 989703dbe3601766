"""A router when something around it changes or fails: replicas, HAProxy, the agent, the API server.

The real HAProxy, as in test_router_service.py, where the undisturbed router is.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp
import pytest

from flotilla_runtime.contract import RouterStatus
from flotilla_runtime.router.__main__ import run_agent
from flotilla_runtime.router.admin_socket import AdminSocket
from flotilla_runtime.router.agent import ENDPOINTS_FORGET_SECONDS, LOOK_SECONDS
from flotilla_runtime.router.caller_keys import map_text, read_caller_keys
from flotilla_runtime.router.errors import RouterProcessError
from flotilla_runtime.router.files import RunFiles
from flotilla_runtime.router.pod_watch import KubernetesAccess
from free_ports import free_ports
from leaks.planted import planted
from router_support.builders import ROUTERS, config, pod
from router_support.fake_pods import FakePods
from router_support.haproxy_version import ON_BOTH
from router_support.routers import Caller, Fleet, Router, fleet
from router_support.waiting import until, until_told

pytestmark = [pytest.mark.services, pytest.mark.usefixtures("haproxy")]

LATEST_SECONDS = 10.0  # for a change that a busy machine holds up


@asynccontextmanager
async def two_replicas(**fields: Any) -> AsyncIterator[tuple[Fleet, Router, Caller]]:
    async with fleet() as made:
        await made.add("a", 1)
        await made.add("b", 2)
        async with Router(made.api, "router-1", engine_port=made.engine_port, **fields) as router:
            await until(lambda: router.ready_servers() == {"a", "b"})
            async with Caller(router) as caller:
                yield made, router, caller


async def get(router: Router, path: str) -> tuple[int, str]:
    url = f"http://127.0.0.1:{router.config.agent_port}{path}"
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status, await response.text()


async def homes(caller: Caller, count: int = 20) -> list[str]:
    return [(await caller.post(session=str(number))).replica for number in range(count)]


@pytest.mark.holds("decisions/0002-haproxy.md", "Servers change without a reload of HAProxy")
async def test_most_changes_of_readiness_reach_haproxy_within_a_second() -> None:
    async with two_replicas() as (made, router, _):
        went, came = [], []
        for _ in range(5):
            made.change("a", ready=False)
            went.append(await until(lambda: router.ready_servers() == {"b"}))
            made.change("a", ready=True)
            came.append(await until(lambda: router.ready_servers() == {"a", "b"}))
        for took in (went, came):
            assert median(took) < 1, "a busy machine may be late at times, and not most of the time"
            assert max(took) < LATEST_SECONDS


@pytest.mark.holds("draining.md", "A router takes the replica out of rotation and lets it finish what it has")
@ON_BOTH
async def test_a_drain_keeps_open_streams_and_is_acknowledged() -> None:
    async with two_replicas() as (made, router, caller):
        for engine in made.engines.values():
            engine.gate.clear()
        async with caller.stream(**{"X-Session-Id": "talk"}) as response:
            home = response.headers["X-Flotilla-Replica"]
            other = {"a": "b", "b": "a"}[home]
            assert await response.content.readline() == b"data: first\n"
            made.change(home, drain_epoch=3)
            await until(lambda: server(router, home).acknowledged_drain_epoch == 3)
            assert server(router, home).state == "Draining"
            await until(lambda: server(router, home).in_flight == 1)
            assert server(router, home).idle_looks == 0
            made.engines[other].gate.set()
            assert set(await homes(caller)) == {other}
            made.engines[home].gate.set()
            assert (await response.content.read()).endswith(b"data: [DONE]\n\n")
        await until(lambda: server(router, home).in_flight == 0)
        await until(lambda: server(router, home).idle_looks >= 2)
        made.change(home)
        await until(lambda: router.ready_servers() == {"a", "b"})
        assert server(router, home).idle_looks == 0
        assert set(await homes(caller)) == {"a", "b"}


@pytest.mark.holds("draining.md", "A router takes the replica out of rotation and lets it finish what it has")
async def test_what_waits_for_a_draining_replica_goes_elsewhere() -> None:
    async with two_replicas(max_num_seqs=1) as (made, router, caller):
        for engine in made.engines.values():
            engine.gate.clear()
        running = [asyncio.create_task(caller.post(session=str(number))) for number in range(4)]
        await until(lambda: router.status.in_flight == 4)
        late = [asyncio.create_task(caller.post(session="late")) for _ in range(4)]
        await until(lambda: router.status.waiting == 4)
        made.change("a", terminating=True)
        await until(lambda: router.ready_servers() == {"b"})
        made.engines["b"].gate.set()
        assert {answer.replica for answer in await asyncio.gather(*late)} == {"b"}
        made.engines["a"].gate.set()
        assert {answer.status for answer in await asyncio.gather(*running)} == {200}


@pytest.mark.holds("decisions/0002-haproxy.md", "Servers change without a reload of HAProxy")
@ON_BOTH
async def test_a_replica_that_is_gone_is_forgotten_and_its_id_is_free_again() -> None:
    async with two_replicas() as (made, router, caller):
        made.api.remove("a")
        await made.add("c", 3)
        made.api.put(pod("d", server_id=1, ip="127.0.1.3"))
        await until(lambda: router.ready_servers() == {"b", "c", "d"})
        assert set(await homes(caller, 40)) == {"b", "c", "d"}


async def test_a_replica_that_came_back_with_another_address() -> None:
    async with two_replicas() as (made, router, caller):
        await made.add("a", 3)
        made.api.put(pod("a", server_id=1, ip="127.0.1.3"))
        await until(lambda: server(router, "a").address.startswith("127.0.1.3:"))
        await until(lambda: router.ready_servers() == {"a", "b"})
        assert set(await homes(caller)) == {"a", "b"}
        assert made.engines["a"].seen


@pytest.mark.holds("decisions/0002-haproxy.md", "A replica that refuses connections costs no request")
async def test_a_replica_that_refuses_connections_costs_no_request() -> None:
    async with two_replicas() as (made, _, caller):
        await made.engines["a"].stop()
        assert set(await homes(caller, 30)) == {"b"}


@pytest.mark.holds(
    "decisions/0002-haproxy.md",
    "A replica that dies in a request answers 502 and the request is not sent again",
)
@ON_BOTH
async def test_a_replica_that_dies_in_a_request_answers_502_and_is_not_tried_again() -> None:
    async with two_replicas() as (made, router, caller):
        for engine in made.engines.values():
            engine.gate.clear()
        request = asyncio.create_task(caller.post(session="x"))
        await until(lambda: router.status.in_flight == 1)
        home = next(engine for engine in made.engines.values() if engine.running)
        await home.stop()
        answer = await request
        assert (answer.status, answer.body["error"]["code"]) == (502, "replica_failed")
        assert sum(len(engine.seen) for engine in made.engines.values()) == 1


@pytest.mark.holds(
    "decisions/0002-haproxy.md", "HAProxy that is restarted by itself comes back with its servers and keys"
)
@ON_BOTH
async def test_haproxy_restarts() -> None:
    async with two_replicas() as (_, router, caller):
        before = await homes(caller)
        await router.stop_haproxy()
        await router.start_haproxy()
        await until_told(lambda: haproxy_knows_all(router))
        await answered(caller)
        assert await homes(caller) == before
        await until(lambda: counted_requests(router) >= 2 * len(before))


@pytest.mark.holds(
    "decisions/0002-haproxy.md", "HAProxy that is restarted by itself comes back with its servers and keys"
)
async def test_haproxy_restarts_with_the_keys_it_had(tmp_path: Any) -> None:
    (tmp_path / "fleet").write_text(planted("old"))
    async with two_replicas(caller_keys_directory=str(tmp_path)) as (_, router, caller):
        (tmp_path / "fleet").write_text(planted("new"))
        known = map_text(read_caller_keys(tmp_path).by_hash)
        await until(lambda: (router.directory / "keys.map").read_text() == known)
        await router.stop_agent()
        await router.stop_haproxy()
        await router.start_haproxy()
        answer = await caller.post(headers={"Authorization": f"Bearer {planted('new')}"})
        assert answer.body["error"]["code"] == "no_replicas"
        assert (await caller.post(headers={"Authorization": f"Bearer {planted('old')}"})).status == 401
        await router.start_agent()
        assert (await caller.post(headers={"Authorization": f"Bearer {planted('new')}"})).status == 200


@pytest.mark.holds("draining.md", "A router that starts during a drain applies it before it is ready")
async def test_the_agent_restarts_after_replicas_came_drained_and_went() -> None:
    async with two_replicas() as (made, router, caller):
        await made.add("c", 3)
        await until(lambda: router.ready_servers() == {"a", "b", "c"})
        await router.stop_agent()
        assert set(await homes(caller)) == {"a", "b", "c"}
        made.api.remove("a")
        made.change("b", drain_epoch=9)
        await made.add("d", 4)
        await router.start_agent()
        assert router.ready_servers() == {"c", "d"}
        assert server(router, "b").acknowledged_drain_epoch == 9
        assert set(await homes(caller)) == {"c", "d"}


@pytest.mark.holds(
    "router.md", "The agent is never in a request's path, so HAProxy answers while there is no agent"
)
@pytest.mark.holds(
    "router.md",
    "What the operator judges by is read again from HAProxy after a restart of the agent, each at its time",
)
async def test_the_agent_restarts_and_every_answer_counts_once() -> None:
    async with two_replicas() as (_, router, caller):
        used = await homes(caller)
        await until(lambda: counted_requests(router) == len(used))
        await router.stop_agent()
        used += await homes(caller)
        await router.start_agent()
        await until(lambda: sum(row.answers for row in router.status.servers) == len(used))
        for row in router.status.servers:
            assert (row.answers, row.sessions) == (used.count(row.name), used.count(row.name) / 2)
        assert counted_requests(router) == 0, "a counter that starts anew holds nothing old"
        await caller.post(session="x")
        await until(lambda: counted_requests(router) == 1)
        assert sum(row.answers for row in router.status.servers) == len(used) + 1


@pytest.mark.holds("draining.md", "A router that starts during a drain applies it before it is ready")
async def test_an_agent_that_has_not_seen_the_pods_is_not_ready() -> None:
    async with fleet() as made:
        await made.add("a", 1)
        router = Router(made.api, "router-1", engine_port=made.engine_port)
        async with router:
            await router.stop_agent()
            made.api.failing = True
            start = asyncio.create_task(router.start_agent())
            await listens(router)
            assert (await get(router, "/readyz"))[0] == 503
            assert (await get(router, "/healthz"))[0] == 200
            assert not router.status.synced
            made.api.failing = False
            await start
            assert (await get(router, "/readyz"))[0] == 200


async def test_an_agent_of_one_address_listens_there_alone(tmp_path: Path) -> None:
    async with FakePods() as api:
        (port,) = free_ports(1)
        settings = config(run_directory=str(tmp_path), agent_port=port)
        access = KubernetesAccess(url=api.url)
        running = asyncio.create_task(run_agent(settings, access, own_pod="router-1", address="127.0.0.3"))
        async with aiohttp.ClientSession() as session:
            await until_told(lambda: answers(session, f"http://127.0.0.3:{port}/healthz"))
            assert not await answers(session, f"http://127.0.0.1:{port}/healthz")
        running.cancel()
        await running


@pytest.mark.holds(
    "router.md", "The agent is never in a request's path, so HAProxy answers while there is no agent"
)
async def test_the_api_server_is_away() -> None:
    async with two_replicas() as (made, router, caller):
        made.api.failing = True
        made.api.break_watches()
        await until(lambda: made.api.failed >= 3)
        assert set(await homes(caller)) == {"a", "b"}
        made.api.failing = False
        await made.add("c", 3)
        await until(lambda: "c" in router.ready_servers())


async def test_the_status_is_what_the_contract_says() -> None:
    async with two_replicas() as (made, router, caller):
        made.api.put(pod("broken", server_id=0, ip="127.0.1.9"))
        await caller.get("/v1/nothing/at/all")
        await caller.post(path="/other")
        await until(lambda: "broken" in router.status.unusable and "UnknownPath" in router.status.refused)
        status, text = await get(router, "/v1/status")
        parsed = RouterStatus.model_validate_json(text)
        assert (status, parsed.synced, parsed.live_routers) == (200, True, 1)
        assert {row.name: row.address for row in parsed.servers} == {
            "a": f"127.0.1.1:{made.engine_port}",
            "b": f"127.0.1.2:{made.engine_port}",
        }
        assert set(json.loads(text)["servers"][0]) >= {"inFlight", "queued", "acknowledgedDrainEpoch"}


@pytest.mark.holds(
    "router.md", "Counters start at zero with the agent, and refused ones at zero for every caller"
)
@pytest.mark.parametrize("keyed", [False, True], ids=["without keys", "with callers' keys"])
async def test_a_refusal_is_an_increase_from_zero(keyed: bool, tmp_path: Any) -> None:
    (tmp_path / "fleet").write_text(planted("key"))
    directory = str(tmp_path) if keyed else None
    refused = (
        f'flotilla_router_refused_total{{caller="{"fleet" if keyed else "anonymous"}",reason="NoReplicas"}}'
    )
    async with fleet() as made, Router(made.api, "router-1", caller_keys_directory=directory) as router:
        assert f"{refused} 0.0" in (await get(router, "/metrics"))[1]
        async with Caller(router) as caller:
            assert (await caller.post(headers={"Authorization": f"Bearer {planted('key')}"})).status == 503

        async def counted() -> bool:
            return f"{refused} 1.0" in (await get(router, "/metrics"))[1]

        await until_told(counted)


async def test_the_status_counts_answers_and_conversations_by_replica() -> None:
    async with two_replicas(promised_total_seconds=60.0) as (_, router, caller):
        used = await homes(caller, 12)
        used += await homes(caller, 12)
        await until(lambda: sum(row.answers for row in router.status.servers) == 24)
        for row in router.status.servers:
            assert (row.answers, row.sessions) == (used.count(row.name), used.count(row.name) / 2)
            assert (row.failed, row.kept) == (0, row.answers)


async def test_the_status_counts_the_answers_that_failed_and_those_that_kept_the_promise() -> None:
    promised_seconds = 2.0  # far beyond what an answer takes that nobody holds back
    async with two_replicas(promised_total_seconds=promised_seconds) as (made, router, caller):
        made.engines["a"].status = 500
        made.engines["b"].gate.clear()
        held = [asyncio.create_task(caller.post(session=str(number))) for number in range(20)]
        await until(lambda: server(router, "a").answers + server(router, "b").in_flight == 20)
        await asyncio.sleep(promised_seconds)
        made.engines["b"].gate.set()
        answers = await asyncio.gather(*held)
        assert {(answer.replica, answer.status) for answer in answers} == {("a", 500), ("b", 200)}
        late = [answer.replica for answer in answers].count("b")

        used = await homes(caller)
        await until(lambda: sum(row.answers for row in router.status.servers) == 40)
        failing, good = server(router, "a"), server(router, "b")
        assert (failing.failed, failing.kept) == (failing.answers, 0)
        assert (good.answers, good.failed, good.kept) == (late + used.count("b"), 0, used.count("b"))
        assert 0 < good.kept < good.answers


async def test_a_router_that_is_deleted_ends_its_streams_first() -> None:
    async with two_replicas() as (made, router, caller):
        refusing = asyncio.create_task(get(router, "/v1/drained"))
        await until_waited_for_deletion(router, refusing)
        assert (await refusing)[0] == 409
        for engine in made.engines.values():
            engine.gate.clear()
        async with caller.stream() as response:
            made.api.put(pod("router-1", labels=ROUTERS, terminating=True))
            await until(lambda: router.status.draining)
            waiting = asyncio.create_task(get(router, "/v1/drained"))
            assert (await get(router, "/readyz"))[0] == 503
            async with aiohttp.ClientSession() as session, session.get(f"{router.url}/v1/models") as models:
                assert models.headers["Connection"] == "close"
            router.leap(ENDPOINTS_FORGET_SECONDS)
            await asyncio.sleep(5 * LOOK_SECONDS)  # the point: the agent looks again and again
            assert not waiting.done()
            for engine in made.engines.values():
                engine.gate.set()
            assert (await response.content.read()).endswith(b"data: [DONE]\n\n")
            assert (await asyncio.wait_for(waiting, 30))[0] == 200


@pytest.mark.holds(
    "router.md", "A router that is called to drain asks for its own pod, and drains while nobody answers"
)
async def test_a_router_whose_watch_says_nothing_asks_whether_it_is_being_deleted() -> None:
    async with two_replicas() as (made, router, _):
        made.api.silent = True
        made.api.put(pod("router-1", labels=ROUTERS, terminating=True))
        waiting = asyncio.create_task(get(router, "/v1/drained"))
        await until_waited_for_deletion(router, waiting)
        assert (await waiting)[0] == 200
        await until(lambda: router.status.draining)


@pytest.mark.holds(
    "router.md", "A router that is called to drain asks for its own pod, and drains while nobody answers"
)
async def test_a_router_drains_when_the_api_server_is_away_and_goes_on_if_it_was_not_deleted() -> None:
    async with two_replicas() as (made, router, caller):
        made.api.failing = True
        made.api.break_watches()
        waiting = asyncio.create_task(get(router, "/v1/drained"))
        await until_waited_for_deletion(router, waiting)
        assert (await waiting)[0] == 200
        await until(lambda: router.status.draining)
        made.api.failing = False
        await until(lambda: not router.status.draining)
        assert (await caller.post(session="x")).status == 200


async def test_a_router_that_is_deleted_waits_until_its_service_has_forgotten_it() -> None:
    """Also one that has nothing to do: callers may still be sent to it."""
    async with two_replicas() as (made, router, _):
        made.api.put(pod("router-1", labels=ROUTERS, terminating=True))
        await until(lambda: router.status.draining)
        waiting = asyncio.create_task(get(router, "/v1/drained"))
        await asyncio.sleep(5 * LOOK_SECONDS)
        assert not waiting.done()
        router.leap(ENDPOINTS_FORGET_SECONDS)
        assert (await asyncio.wait_for(waiting, 30))[0] == 200


async def until_waited_for_deletion(router: Router, answer: "asyncio.Task[tuple[int, str]]") -> None:
    """The agent gives a pod's deletion some time to reach it before it says that there is none."""
    while not answer.done():
        router.leap(ENDPOINTS_FORGET_SECONDS)
        await asyncio.wait({answer}, timeout=LOOK_SECONDS)


def server(router: Router, name: str) -> Any:
    return next(row for row in router.status.servers if row.name == name)


async def haproxy_knows_all(router: Router) -> bool:
    """By its own word: the agent's last look may be of the HAProxy before."""
    files = RunFiles(router.config.run_directory)
    try:
        return "servers a=1,b=2" in await AdminSocket(files).send(f"show map {files.path(files.CONTROL_MAP)}")
    except RouterProcessError:
        return False


async def answered(caller: Caller) -> None:
    async def is_answered() -> bool:
        return (await caller.post(session="x")).status == 200

    await until_told(is_answered)


async def listens(router: Router) -> None:
    async with aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{router.config.agent_port}/healthz"
        await until_told(lambda: answers(session, url))


async def answers(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(url) as response:
            return response.status == 200
    except aiohttp.ClientConnectionError:
        return False


def counted_requests(router: Router) -> float:
    assert router.agent is not None
    samples = [sample for metric in router.agent.metrics.registry.collect() for sample in metric.samples]
    return sum(sample.value for sample in samples if sample.name == "flotilla_router_requests_total")
