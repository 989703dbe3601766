"""A whole operator against a real API server: crashes, restarts, ownership, and what it asks when settled.

The tiny controller uses every kind of write, so what holds for it holds for the loop; the three kinds have
tests of their own. Nothing else is at work in this control plane: pods are neither bound nor run.
"""

import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from flotilla_operator.cluster.crash_points import CrashPoint
from local_cluster.control_plane import ControlPlane
from local_cluster.pytest_plugin import create_namespace
from tests.support.processes import SHORT_LEADER
from tests.support.site import Site, killed, unscheduled
from tests.support.waiting import eventually

pytestmark = [pytest.mark.apiserver, pytest.mark.timeout(600)]
ATTENDED = pytest.mark.xdist_group("attended")

RETRIES_SEEN_SECONDS = 5.0  # an operator that repeats a refused request without a pause has repeated it often


@pytest.fixture
def site(control_plane: ControlPlane, tmp_path: Path) -> Site:
    return Site(control_plane, create_namespace(control_plane), tmp_path)


@pytest.fixture(scope="module")
def attended(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A namespace with an operator at work in it."""
    made = Site(control_plane, create_namespace(control_plane), tmp_path_factory.mktemp("attended"))
    with made.operator():
        yield made


# In the order in which an object meets them; "before" comes first, since what has been done is not met again.
CRASHES_WHILE_IT_IS_MADE = (
    CrashPoint.BEFORE_LEASE,
    CrashPoint.AFTER_LEASE,
    CrashPoint.BEFORE_STATUS,
    CrashPoint.AFTER_STATUS,
    CrashPoint.BEFORE_FINALIZERS,
    CrashPoint.AFTER_FINALIZERS,
    CrashPoint.BEFORE_APPLY,
    CrashPoint.AFTER_APPLY,
    CrashPoint.BEFORE_CREATE,
    CrashPoint.AFTER_CREATE,
    CrashPoint.BEFORE_JSON_PATCH,
    CrashPoint.AFTER_JSON_PATCH,
)
CRASHES_WHILE_A_POD_GOES = (CrashPoint.BEFORE_DELETE, CrashPoint.AFTER_DELETE)
CRASHES_WHILE_ANOTHER_GOES = (CrashPoint.BEFORE_EVENT, CrashPoint.AFTER_EVENT)  # it is told, and then the end
CRASHES = (*CRASHES_WHILE_IT_IS_MADE, *CRASHES_WHILE_A_POD_GOES, *CRASHES_WHILE_ANOTHER_GOES)


def crash(site: Site, moments: tuple[str, ...], points: Sequence[CrashPoint]) -> None:
    """One operator after another ends at such a point; each goes on where the one before it ended."""
    for point in points:
        if point.name.startswith(moments):
            crash_at(site, point)


def crash_at(site: Site, point: CrashPoint) -> None:
    with site.operator(crash_at=point) as doomed:
        eventually(lambda: killed(doomed), what=f"a crash {point}")
    site.forget_leader()


@pytest.mark.holds("architecture.md", "A crash at any write loses and doubles nothing")
@pytest.mark.once
@pytest.mark.parametrize(
    "moments",
    [
        pytest.param(("AFTER",), id="after it"),
        # Before a write everything is as the write before it left it.
        pytest.param(("BEFORE", "AFTER"), id="before and after it", marks=pytest.mark.rare),
    ],
)
def test_crashes_at_every_write_lose_and_double_nothing(site: Site, moments: tuple[str, ...]) -> None:
    assert sorted(CRASHES) == sorted(CrashPoint)
    site.create("m", replicas=3, data={"a": "1"})
    crash(site, moments, CRASHES_WHILE_IT_IS_MADE)
    with site.operator():
        eventually(lambda: site.settled("m", 3, a="1"))
    site.forget_leader()
    made = {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in site.pods()}
    site.change("m", replicas=2)
    crash(site, moments, CRASHES_WHILE_A_POD_GOES)
    site.change("m", replicas=1)
    crash(site, moments, CRASHES_WHILE_ANOTHER_GOES)
    with site.operator():
        eventually(lambda: site.settled("m", 1, a="1"))
        created = site.created_pods()  # less the one whose answer nobody was there to take
        assert len(created) == len(set(created)) <= 3
        assert [pod["metadata"]["uid"] for pod in site.pods()] == [made["m-0"]]
        site.change("m", data={"a": "2"})
        eventually(lambda: site.settled("m", 1, a="2"))
        site.plane.client.delete(site.path("modelreplicasets", "m"))
        eventually(lambda: not site.plane.client.exists(site.path("modelreplicasets", "m")))
        assert site.pods() == []


def test_a_restart_of_the_api_server_is_survived(site: Site) -> None:
    with site.operator() as operator:
        site.create("before", replicas=1)
        eventually(lambda: site.settled("before", 1))
        site.plane.restart_api_server()
        site.create("after", replicas=2)
        eventually(lambda: site.settled("after", 2))
        site.change("before", replicas=2)
        eventually(lambda: site.settled("before", 2))
        assert operator.running
        assert len(site.created_pods()) == 4


@pytest.mark.holds("architecture.md", "A leader that loses the lease follows, and leads again")
def test_an_api_server_that_hangs_costs_the_lease_and_the_process_leads_again(site: Site) -> None:
    with site.operator(leader=SHORT_LEADER) as operator:
        site.create("m", replicas=1)
        eventually(lambda: site.settled("m", 1))
        with site.plane.hung_api_server():
            eventually(lambda: operator.logged("leadership_lost"))
        site.change("m", replicas=2)
        eventually(lambda: site.settled("m", 2))
        assert operator.running
        assert len(site.created_pods()) == 2


@pytest.mark.holds("architecture.md", "No write without a lease that was renewed in time")
@pytest.mark.once
def test_a_stopped_leader_is_followed_and_writes_nothing_when_it_goes_on(site: Site) -> None:
    with site.operator(leader=SHORT_LEADER) as first:
        site.create("m", replicas=1)
        eventually(lambda: site.settled("m", 1))
        with site.operator() as second:
            eventually(lambda: second.logged("caches_complete"))
            first.signal(signal.SIGSTOP)
            site.change("m", replicas=3)
            eventually(lambda: site.settled("m", 3))
            first.signal(signal.SIGCONT)
            eventually(lambda: first.logged("leadership_lost"))
            site.change("m", replicas=4)
            eventually(lambda: site.settled("m", 4))
            assert first.running
            assert second.running
        assert len(site.created_pods()) == 4


@pytest.mark.holds(
    "architecture.md", "In a namespace that is being deleted pods go without a drain and nothing is made"
)
def test_a_terminating_namespace_is_left_in_peace(site: Site) -> None:
    with site.operator() as operator:
        site.create("m", replicas=1)
        eventually(lambda: site.settled("m", 1))
        site.plane.client.delete(f"/api/v1/namespaces/{site.namespace}")
        site.change("m", replicas=2)
        eventually(lambda: site.pods() == [])
        time.sleep(RETRIES_SEEN_SECONDS)
        refused = [
            event
            for event in site.asked()
            if event["responseStatus"]["code"] == 403
            and event.get("objectRef", {}).get("namespace") == site.namespace
        ]
        assert len(refused) < 5
        assert len(site.created_pods()) == 1
        assert operator.running


@pytest.mark.once
def test_writes_that_change_nothing_would_be_seen_where_a_settled_operator_must_not_ask(site: Site) -> None:
    """The check of test_whole_operator.py finds a deliberate mistake."""
    with site.operator(environment={"NO_OP_WRITES": "1"}):
        site.create("m", replicas=1, data={"a": "1"})
        eventually(lambda: site.settled("m", 1, a="1"))
        since = site.asked_so_far()

        def found() -> list[str]:
            """A write that is none, after a look at an object that is settled."""
            site.patch("modelreplicasets", "m", annotated(time.time()))
            return [asked for asked in unscheduled(site.asked(since)) if asked.startswith("patch configmaps")]

        eventually(found)


def annotated(value: float) -> dict[str, Any]:
    return {"metadata": {"annotations": {"again": str(value)}}}


@pytest.mark.holds("architecture.md", "An object that is not ours is never written")
@ATTENDED
def test_a_name_that_is_taken_is_told_once_and_left_alone_until_it_is_free(attended: Site) -> None:
    path = attended.path("configmaps")
    metadata = {"name": "taken-config"}
    mine = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"mine": "1"}}
    theirs = attended.plane.client.create(path, mine)

    def told() -> list[dict[str, Any]]:
        selector = "fieldSelector=involvedObject.name=taken,reason=NameTaken"
        found = attended.plane.client.get(f"{attended.path('events')}?{selector}")
        events: list[dict[str, Any]] = found["items"]
        return events

    def ready_reason() -> str:
        status = attended.get("modelreplicasets", "taken").get("status") or {}
        return next((c["reason"] for c in status.get("conditions", []) if c["type"] == "Ready"), "")

    attended.create("taken", replicas=1)
    eventually(lambda: ready_reason() == "NameTaken")
    eventually(told)
    assert attended.get("configmaps", "taken-config") == theirs
    attended.plane.client.delete(f"{path}/taken-config")
    eventually(lambda: attended.settled("taken", 1))
    assert [event.get("series") for event in told()] == [None]


@ATTENDED
def test_kubectl_wait_waits_from_the_first_moment(attended: Site) -> None:
    attended.create("waited", replicas=1)
    wait = ("wait", "--for=condition=Ready", "modelreplicaset/waited", "--timeout=180s")
    attended.plane.kubectl(f"-n={attended.namespace}", *wait)
    assert attended.settled("waited", 1)


@pytest.mark.holds(
    "architecture.md",
    "What is edited goes by server-side apply with the manager `flotilla`, pods and jobs by POST",
)
@pytest.mark.holds(
    "architecture.md", "An unchanged object that has not drifted is not sent, and drift is mended"
)
@ATTENDED
def test_the_managers_and_the_drift_are_seen_by_the_server_as_meant(attended: Site) -> None:
    attended.create("drifts", replicas=1, data={"a": "1", "b": "2"})
    eventually(lambda: attended.settled("drifts", 1, a="1", b="2"))
    managed = attended.get("configmaps", "drifts-config")["metadata"]["managedFields"]
    assert ("flotilla", "Apply") in {(entry["manager"], entry["operation"]) for entry in managed}
    attended.patch("configmaps", "drifts-config", {"data": {"a": "changed", "theirs": "kept"}})
    eventually(lambda: attended.get("configmaps", "drifts-config")["data"]["a"] == "1")
    attended.change("drifts", data={"a": "1", "b": None})
    eventually(lambda: "b" not in attended.get("configmaps", "drifts-config")["data"])
    assert attended.get("configmaps", "drifts-config")["data"]["theirs"] == "kept"
