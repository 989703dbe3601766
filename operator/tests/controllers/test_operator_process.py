"""A whole operator in a process of its own against the fake API: barrier, lease, signals, probes, recovery.

The same against a real API server, with crashes, is in test_real_api_server.py.
"""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from flotilla_operator.objects.resources import (
    CONFIG_MAPS,
    LEASES,
    MODEL_REPLICA_SETS,
    NAMESPACES,
    PODS,
    Manifest,
)
from tests.builders.api_objects import smallest
from tests.support.fake_api import FakeApi
from tests.support.fake_requests import Request
from tests.support.processes import SHORT_LEADER, WHOLE, OperatorProcess, operator_process
from tests.support.site import reconciles
from tests.support.waiting import DEADLINE_SECONDS, until

# No API server is needed, but a process a test is too slow for the unit tests.
pytestmark = [pytest.mark.apiserver, pytest.mark.timeout(600)]

STATUS_INTERVAL_SECONDS = 1  # how long the operator of a test may hold back a status
MIB = "x" * 2**20
SETS = 12
NOTHING_WRITTEN_SECONDS = 2.0  # how long a test watches an operator that must not write


def tiny(name: str = "m", replicas: int = 2) -> Manifest:
    return {"metadata": {"name": name, "namespace": "default"}, "spec": {"replicas": replicas}}


def placed(api: FakeApi, name: str = "m") -> bool:
    manifest = api.get(MODEL_REPLICA_SETS, "default", name) or {}
    conditions = (manifest.get("status") or {}).get("conditions") or []
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def holder(api: FakeApi) -> str:
    lease = api.get(LEASES, "default", "flotilla-operator") or {"spec": {}}
    return str(lease["spec"].get("holderIdentity", ""))


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Path:
    return tmp_path / "kubeconfig"


@asynccontextmanager
async def served(api: FakeApi, kubeconfig: Path) -> AsyncIterator[FakeApi]:
    async with api.running():
        kubeconfig.write_text(api.kubeconfig())  # noqa: ASYNC240 - a few bytes
        yield api


def forget_leader(api: FakeApi) -> None:
    """Free the lease of an operator that has ended, so that the next need not wait until it expires."""
    if api.get(LEASES, "default", "flotilla-operator"):
        api.remove(LEASES, "default", "flotilla-operator")


async def ended(operator: OperatorProcess) -> int:
    await until(lambda: not operator.running)
    return operator.ended()


async def answers(
    operator: OperatorProcess, endpoint: str, path: str, wanted: Callable[[int, str], bool]
) -> None:
    """Return once the operator answers as wanted."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not wanted(*await asyncio.to_thread(operator.get, endpoint, path)):  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def calm(api: FakeApi) -> int:
    """How much has been written, once nothing more is for twice the time that a status may be held back."""
    seen = -1
    async with asyncio.timeout(DEADLINE_SECONDS):
        while len(api.writes()) != seen:
            seen = len(api.writes())
            await asyncio.sleep(2 * STATUS_INTERVAL_SECONDS)
    return seen


async def test_an_object_is_reconciled_until_nothing_is_left_to_do(tmp_path: Path, kubeconfig: Path) -> None:
    api = FakeApi()
    api.put(MODEL_REPLICA_SETS, tiny(replicas=3))
    async with served(api, kubeconfig):
        loop = {"statusIntervalSeconds": STATUS_INTERVAL_SECONDS}
        with operator_process(tmp_path, kubeconfig, loop=loop) as operator:
            await until(lambda: placed(api))
            assert len(api.shelf(PODS).objects) == 3
            settled, done = await calm(api), reconciles(operator)
            looked = dict(api.get(MODEL_REPLICA_SETS, "default", "m") or {})
            looked["metadata"] = {**looked["metadata"], "annotations": {"look": "again"}}
            api.put(MODEL_REPLICA_SETS, looked)
            await until(lambda: reconciles(operator) > done)
            assert await calm(api) == settled
            scaled = dict(api.get(MODEL_REPLICA_SETS, "default", "m") or {})
            metadata = {**scaled["metadata"], "generation": 2}
            api.put(MODEL_REPLICA_SETS, {**scaled, "metadata": metadata, "spec": {"replicas": 1}})
            await until(lambda: len(api.shelf(PODS).objects) == 1)
            assert len(api.writes()) > settled
            assert operator.get("health", "/healzh")[0] == 404
            for path in ("/healthz", "/readyz"):
                await answers(operator, "health", path, lambda *answer: answer == (200, "ok\n"))
            _, text = await asyncio.to_thread(operator.get, "metrics", "/metrics")
            assert 'flotilla_controller_reconcile_total{kind="ModelReplicaSet",result="success"}' in text
            await answers(operator, "metrics", "/metrics", lambda _, text: "flotilla_leader 1.0" in text)
    asked = {request.path for request in api.requests}
    assert not [path for path in asked if "secrets" in path or "customresourcedefinitions" in path]
    lists = [r for r in api.requests if r.path == "/api/v1/namespaces" and "watch" not in r.query]
    assert len(lists) == 1, "by our reflector alone"


@pytest.mark.holds("architecture.md", "Nothing is decided before every cache is complete")
async def test_nothing_is_written_before_every_cache_is_complete(tmp_path: Path, kubeconfig: Path) -> None:
    api = FakeApi()
    api.put(MODEL_REPLICA_SETS, tiny())
    released = False

    def is_list_of_pods(request: Request) -> bool:
        return request.path == "/api/v1/pods" and not request.is_watch and not released

    api.fail(is_list_of_pods, 500, times=10_000)
    async with served(api, kubeconfig):
        with operator_process(tmp_path, kubeconfig) as operator:
            await until(lambda: api.shelf(MODEL_REPLICA_SETS).watches)
            waits = (503, "pods have not been listed yet\n")
            await answers(operator, "health", "/readyz", lambda *answer: answer == waits)
            await asyncio.sleep(NOTHING_WRITTEN_SECONDS)
            assert api.writes(leases=True) == []
            released = True
            await until(lambda: placed(api))


@pytest.mark.holds("decisions/0001-kopf.md", "What vanished in a gap of a watch is dropped")
async def test_an_object_deleted_in_a_gap_of_kopf_is_swept(tmp_path: Path, kubeconfig: Path) -> None:
    api = FakeApi()
    api.put(MODEL_REPLICA_SETS, tiny("a"))
    api.put(MODEL_REPLICA_SETS, tiny("b"))
    async with served(api, kubeconfig):
        with operator_process(tmp_path, kubeconfig, loop={"sweepIntervalSeconds": 1}) as operator:
            await until(lambda: placed(api, "a") and placed(api, "b"))
            api.remove(MODEL_REPLICA_SETS, "default", "b", silently=True)
            api.end_watches(MODEL_REPLICA_SETS, 410)
            one = 'flotilla_cache_objects{resource="ModelReplicaSet"} 1.0'
            await answers(operator, "metrics", "/metrics", lambda _, text: one in text)


@pytest.mark.holds(
    "decisions/0001-kopf.md",
    "A watch that expires, falls silent or ends with an error is survived, and so is a server that "
    "only answers 5xx",
)
async def test_a_kopf_watch_that_expires_is_survived(tmp_path: Path, kubeconfig: Path) -> None:
    api = FakeApi()
    async with served(api, kubeconfig):
        with operator_process(tmp_path, kubeconfig) as operator:
            await until(lambda: api.shelf(MODEL_REPLICA_SETS).watches and holder(api))
            api.end_watches(MODEL_REPLICA_SETS, 410)
            api.put(MODEL_REPLICA_SETS, tiny())
            await until(lambda: placed(api))
            assert operator.running


@pytest.mark.holds(
    "decisions/0001-kopf.md",
    "A watch that expires, falls silent or ends with an error is survived, and so is a server that "
    "only answers 5xx",
)
async def test_kopf_is_started_again_after_an_error_of_a_watch(tmp_path: Path, kubeconfig: Path) -> None:
    api = FakeApi()
    async with served(api, kubeconfig):
        with operator_process(tmp_path, kubeconfig) as operator:
            for name in ("first", "second"):
                await until(lambda: api.shelf(MODEL_REPLICA_SETS).watches and holder(api))
                api.end_watches(MODEL_REPLICA_SETS, 500)
                api.put(MODEL_REPLICA_SETS, tiny(name))
                await until(partial(placed, api, name))
            assert operator.running
            assert operator.logged("kopf_ended")


@pytest.mark.holds(
    "decisions/0001-kopf.md",
    "A watch that expires, falls silent or ends with an error is survived, and so is a server that "
    "only answers 5xx",
)
async def test_a_server_that_only_answers_5xx_ends_no_process(tmp_path: Path, kubeconfig: Path) -> None:
    """The lease is lost, kopf ends again and again, and nothing can be listed; then all goes on."""
    api = FakeApi()
    async with served(api, kubeconfig):
        with operator_process(tmp_path, kubeconfig, leader=SHORT_LEADER) as operator:
            await until(lambda: api.shelf(MODEL_REPLICA_SETS).watches and holder(api))
            api.fail(lambda _: True, 503, times=1_000_000)
            for resource in (MODEL_REPLICA_SETS, PODS):
                api.end_watches(resource, 500)
            await until(lambda: operator.logged("leadership_lost") and operator.logged("kopf_ended"))
            assert operator.running
            api.faults.clear()
            api.put(MODEL_REPLICA_SETS, tiny())
            await until(lambda: placed(api))
            assert operator.running


@pytest.mark.holds(
    "decisions/0001-kopf.md",
    "A watch that expires, falls silent or ends with an error is survived, and so is a server that "
    "only answers 5xx",
)
async def test_a_silent_kopf_watch_is_left_and_the_change_seen(tmp_path: Path, kubeconfig: Path) -> None:
    api = FakeApi()
    async with served(api, kubeconfig):
        with operator_process(tmp_path, kubeconfig, loop={"watchSilenceSeconds": 2}):
            await until(lambda: api.shelf(MODEL_REPLICA_SETS).watches and holder(api))
            api.shelf(MODEL_REPLICA_SETS).watches.clear()
            api.put(MODEL_REPLICA_SETS, tiny())
            await until(lambda: placed(api))


@pytest.mark.holds("architecture.md", "No write without a lease that was renewed in time")
@pytest.mark.once
async def test_a_leader_stopped_amid_its_writes_writes_nothing_when_it_goes_on(
    tmp_path: Path, kubeconfig: Path
) -> None:
    api = FakeApi()
    api.put(MODEL_REPLICA_SETS, tiny(replicas=200))
    async with served(api, kubeconfig):
        with operator_process(tmp_path, kubeconfig, leader=SHORT_LEADER) as operator:
            await until(lambda: len(api.shelf(PODS).objects) > 10)
            operator.signal(signal.SIGSTOP)
            for index in range(50):
                api.put(MODEL_REPLICA_SETS, tiny(f"late-{index}"))
            # The lease has not expired yet: only its holder knows that it was not renewed in time.
            await asyncio.sleep(SHORT_LEADER["renewDeadlineSeconds"] + 0.5)
            before = len(api.writes(leases=True))
            assert len(api.shelf(PODS).objects) < 200
            operator.signal(signal.SIGCONT)
            await until(lambda: len(api.writes(leases=True)) > before)
            assert "/leases/" in api.writes(leases=True)[before].path, "first it takes the lease again"
            await until(lambda: operator.logged("leadership_lost"))


async def test_sigterm_hands_the_lease_over_long_before_it_expires(tmp_path: Path, kubeconfig: Path) -> None:
    api = FakeApi()
    async with served(api, kubeconfig):
        with operator_process(tmp_path, kubeconfig) as first:
            await until(lambda: holder(api))
            with operator_process(tmp_path, kubeconfig) as second:
                await until(lambda: second.logged("caches_complete"))
                before, asked_at = holder(api), time.monotonic()
                first.signal(signal.SIGTERM)
                await until(lambda: holder(api) not in ("", before))
                assert time.monotonic() - asked_at < 10, "released, not expired after 30 s"
                assert await ended(first) == 0
                api.put(MODEL_REPLICA_SETS, tiny())
                await until(lambda: placed(api))


@pytest.mark.once
async def test_a_follower_writes_nothing_but_has_warm_caches(tmp_path: Path, kubeconfig: Path) -> None:
    api = FakeApi()
    async with served(api, kubeconfig):
        with operator_process(tmp_path, kubeconfig) as leader:
            await until(lambda: holder(api))
            with operator_process(tmp_path, kubeconfig) as follower:
                await until(lambda: follower.logged("caches_complete"))
                leader.signal(signal.SIGSTOP)
                api.put(MODEL_REPLICA_SETS, tiny())
                await asyncio.sleep(NOTHING_WRITTEN_SECONDS)
                assert api.writes() == []
                await answers(follower, "health", "/readyz", lambda status, _: status == 200)
                forget_leader(api)
                await until(lambda: placed(api))


@pytest.mark.holds("install.md", "With a list of namespaces the operator may write there and nowhere else")
async def test_only_its_namespaces_are_watched_when_some_are_named(tmp_path: Path, kubeconfig: Path) -> None:
    api = FakeApi()
    api.put(MODEL_REPLICA_SETS, {"metadata": {"name": "m", "namespace": "other"}, "spec": {}})
    api.put(MODEL_REPLICA_SETS, tiny())
    async with served(api, kubeconfig):
        with operator_process(tmp_path, kubeconfig, watchNamespaces=["default", "second"]):
            await until(lambda: placed(api))
            assert "status" not in (api.get(MODEL_REPLICA_SETS, "other", "m") or {})
            lists = {r.path for r in api.requests if r.method == "GET" and "configmaps" in r.path}
            assert lists >= {f"/api/v1/namespaces/{ns}/configmaps" for ns in ("default", "second")}
            assert "/api/v1/configmaps" not in lists


@pytest.mark.holds("security.md", "Strangers' objects take little of the operator's memory")
@pytest.mark.attack("Somebody fills the cluster with large ConfigMaps and pods")
@pytest.mark.parametrize(
    ("times", "restarted", "largest_mib"),
    [
        pytest.param(1, True, 180, id="before the start"),
        pytest.param(4, True, 300, id="four times as much", marks=pytest.mark.rare),
        pytest.param(4, False, 300, id="four times as much, after the start", marks=pytest.mark.rare),
    ],
)
async def test_the_memory_does_not_depend_on_what_strangers_make(
    tmp_path: Path,
    kubeconfig: Path,
    times: int,
    restarted: bool,
    largest_mib: int,
    record_property: Callable[[str, object], None],
) -> None:
    """So many times 100 ConfigMaps of 1 MiB, 1,250 pods of 64 KiB and 12 sets of 1 MiB."""
    api = FakeApi()
    api.put(NAMESPACES, {"metadata": {"name": "default"}})
    if restarted:
        fill(api, times)
    async with served(api, kubeconfig):
        with operator_process(tmp_path, kubeconfig, module=WHOLE) as operator:
            await until(lambda: operator.logged("leader_elected"))
            if not restarted:
                fill(api, times)
            await until(lambda: told(api) == times * SETS)
            peak = operator.memory_mib(peak=True)
            record_property("operator_peak_mib", peak)
            assert peak < largest_mib


def fill(api: FakeApi, times: int) -> None:
    """Make what strangers could make; all objects share one text, so it takes little memory here."""
    kib = "x" * 1024
    for number in range(times * 100):
        metadata = {"name": f"stranger-{number}", "namespace": "default"}
        api.put(CONFIG_MAPS, {"metadata": metadata, "data": {"a": MIB}})
    env = [{"name": f"V{one}", "value": kib} for one in range(64)]
    container: Manifest = {"name": "c", "image": "i", "env": env, "resources": {"requests": {"cpu": "1"}}}
    for number in range(times * 1250):
        metadata = {"name": f"stranger-{number}", "namespace": "default"}
        spec = {"nodeName": "a", "containers": [container]}
        api.put(PODS, {"metadata": metadata, "spec": spec, "status": {"phase": "Running"}})
    volume = {"name": "v", "emptyDir": {}, "note": MIB}
    for number in range(times * SETS):
        wanted = {**smallest("ModelReplicaSet")["spec"], "replicas": 0, "pod": {"volumes": [volume]}}
        large = {"name": f"large-{number}", "namespace": "default", "generation": 1}
        api.put(MODEL_REPLICA_SETS, {"metadata": large, "spec": wanted})


def told(api: FakeApi) -> int:
    """How many sets have a status."""
    return sum("conditions" in (one.get("status") or {}) for one in api.listed(MODEL_REPLICA_SETS))
