"""A whole operator against a real API server: crashes, restarts, ownership, and what it asks when settled.

The tiny controller uses every kind of write, so what holds for it holds for the loop; the three kinds have
tests of their own. Its custom resource has the name of ours and no schema, hence a control plane of its own.
"""

import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from flotilla_operator.cluster.crash_points import CrashPoint
from local_cluster.control_plane import ControlPlane
from local_cluster.pytest_plugin import create_namespace
from tests.support.processes import USUAL_LEADER
from tests.support.site import (
    USER,
    Site,
    install_tiny_kind,
    killed,
    reconciles,
    unscheduled,
)
from tests.support.waiting import eventually

pytestmark = [pytest.mark.apiserver, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane of this module's own, without controllers."""
    with ControlPlane(tmp_path_factory.mktemp("operator-plane")) as started:
        install_tiny_kind(started)
        yield started


@pytest.fixture
def here(plane: ControlPlane) -> str:
    return create_namespace(plane)


@pytest.fixture
def site(plane: ControlPlane, here: str, tmp_path: Path) -> Site:
    return Site(plane, here, tmp_path)


@pytest.mark.parametrize("point", list(CrashPoint))
def test_a_crash_at_any_write_loses_and_doubles_nothing(site: Site, point: CrashPoint) -> None:
    with site.operator(crash_at=point) as doomed:
        site.create("m", replicas=3, data={"a": "1"})
        if point in (CrashPoint.BEFORE_DELETE, CrashPoint.AFTER_DELETE):
            eventually(lambda: site.settled("m", 3, a="1"))
            site.patch("modelreplicasets", "m", {"spec": {"replicas": 2}})
        eventually(lambda: killed(doomed))
    site.forget_leader()
    replicas = site.get("modelreplicasets", "m")["spec"]["replicas"]
    with site.operator():
        eventually(lambda: site.settled("m", replicas, a="1"))
        survivors = {pod["metadata"]["uid"] for pod in site.pods()}
        created = site.created_pods()  # less the one whose answer nobody was there to take
        assert len(created) == len(set(created)) <= 3
        site.patch("modelreplicasets", "m", {"spec": {"replicas": 1, "data": {"a": "2"}}})
        eventually(lambda: site.settled("m", 1, a="2"))
        assert {pod["metadata"]["uid"] for pod in site.pods()} < survivors
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
        site.patch("modelreplicasets", "before", {"spec": {"replicas": 2}})
        eventually(lambda: site.settled("before", 2))
        assert operator.running
        assert len(site.created_pods()) == 4


def test_an_api_server_that_hangs_costs_the_lease_and_a_new_process_goes_on(site: Site) -> None:
    with site.operator(leader=USUAL_LEADER) as operator:
        site.create("m", replicas=1)
        eventually(lambda: site.settled("m", 1))
        with site.plane.hung_api_server():
            assert operator.ended() == 1
    site.forget_leader()
    site.patch("modelreplicasets", "m", {"spec": {"replicas": 2}})
    with site.operator():
        eventually(lambda: site.settled("m", 2))
        assert len(site.created_pods()) == 2


def test_events_are_accepted_by_the_server(site: Site) -> None:
    mine = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m-config"}, "data": {"mine": "1"}}
    site.plane.client.create(site.path("configmaps"), mine)

    def told() -> str:
        return site.plane.kubectl(f"-n={site.namespace}", "events", "--for=modelreplicaset/m")

    with site.operator():
        site.create("m", replicas=1)
        eventually(lambda: "NameTaken" in told())
        site.plane.client.delete(site.path("configmaps", "m-config"))
        eventually(lambda: site.settled("m", 1))
        assert told().count("NameTaken") == 1


def test_kubectl_wait_waits_from_the_first_moment(site: Site) -> None:
    with site.operator():
        site.create("m", replicas=1)
        site.plane.kubectl(
            *(f"-n={site.namespace}", "wait", "--for=condition=Ready", "modelreplicaset/m", "--timeout=180s")
        )
        assert site.settled("m", 1)


def test_a_stopped_leader_is_followed_and_writes_nothing_when_it_goes_on(site: Site) -> None:
    with site.operator() as first:
        site.create("m", replicas=1)
        eventually(lambda: site.settled("m", 1))
        with site.operator() as second:
            eventually(lambda: second.logged("caches_complete"))
            first.signal(signal.SIGSTOP)
            site.patch("modelreplicasets", "m", {"spec": {"replicas": 3}})
            eventually(lambda: site.settled("m", 3))
            first.signal(signal.SIGCONT)
            assert first.ended() == 1
            assert second.running
        assert len(site.created_pods()) == 3


def test_the_managers_and_the_drift_are_seen_by_the_server_as_meant(site: Site) -> None:
    with site.operator():
        site.create("m", replicas=1, data={"a": "1", "b": "2"})
        eventually(lambda: site.settled("m", 1, a="1", b="2"))
        managed = site.plane.kubectl(
            *(f"-n={site.namespace}", "get", "cm", "m-config", "-ojson", "--show-managed-fields")
        )
        assert '"manager": "flotilla"' in managed
        assert '"operation": "Apply"' in managed
        site.patch("configmaps", "m-config", {"data": {"a": "changed", "theirs": "kept"}})
        eventually(lambda: site.get("configmaps", "m-config")["data"]["a"] == "1")
        site.patch("modelreplicasets", "m", {"spec": {"data": {"a": "1", "b": None}}})
        eventually(lambda: "b" not in site.get("configmaps", "m-config")["data"])
        assert site.get("configmaps", "m-config")["data"]["theirs"] == "kept"


def test_a_terminating_namespace_is_left_in_peace(site: Site) -> None:
    with site.operator() as operator:
        site.create("m", replicas=1)
        eventually(lambda: site.settled("m", 1))
        site.plane.kubectl("delete", "namespace", site.namespace, "--wait=false")
        site.patch("modelreplicasets", "m", {"spec": {"replicas": 2}})
        eventually(lambda: site.pods() == [])
        time.sleep(5)
        refused = [
            event
            for event in site.asked()
            if event["responseStatus"]["code"] == 403
            and event.get("objectRef", {}).get("namespace") == site.namespace
        ]
        assert len(refused) < 5
        assert len(site.created_pods()) == 1
        assert operator.running


@pytest.mark.parametrize(
    ("mistake", "seconds"),
    [pytest.param("", 60, id="as it is"), pytest.param("1", 10, id="with a deliberate no-op write")],
)
def test_settled_objects_cost_nothing_but_renewals_watches_and_sweeps(
    site: Site, mistake: str, seconds: float
) -> None:
    names = [f"m{index}" for index in range(50)]
    with site.operator(environment={"NO_OP_WRITES": mistake}) as operator:
        for name in names:
            site.create(name, replicas=1, data={"a": "1"})
        for name in names:
            eventually(partial(site.settled, name, 1, a="1"))
        eventually(site.quiet)
        since = len(list(site.plane.audit_events(user=USER)))
        reconciles_before = reconciles(operator)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            site.plane.kubectl(
                f"-n={site.namespace}",
                "annotate",
                "--all",
                "modelreplicasets",
                f"again={time.time()}",
                "--overwrite",
            )
            time.sleep(2)
        eventually(lambda: reconciles(operator) - reconciles_before >= 50)
        assert operator.memory_mib() < 150
        found = unscheduled(site.asked(since))
        assert bool(found) is bool(mistake), found[:10]
