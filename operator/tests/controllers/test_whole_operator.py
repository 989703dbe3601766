"""The operator as it ships, with its three controllers and its CRDs, against a real API server.

What each kind does is tested beside its controller; here is what concerns all of them at once.
"""

import copy
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import pytest
import yaml

from flotilla_operator.api.kinds import KINDS
from local_cluster.control_plane import ControlPlane
from local_cluster.pytest_plugin import create_namespace
from tests.support.processes import ROOT, WHOLE, OperatorProcess
from tests.support.site import SCHEDULED_AT_MOST, Manifest, Site, reconciles, unscheduled
from tests.support.waiting import eventually

pytestmark = [pytest.mark.apiserver, pytest.mark.timeout(900)]

FOLDER = "/apis/flotilla.dev/v1alpha1/namespaces/{namespace}/{plural}"
PLURALS = {kind.name: kind.plural for kind in KINDS}
NAMESPACES = 20
STATUS_INTERVAL_SECONDS = 2
LOOKS = SCHEDULED_AT_MOST + 2  # what is asked in every look is then asked more often than what is scheduled


@pytest.fixture
def site(control_plane: ControlPlane, tmp_path: Path) -> Site:
    return Site(control_plane, create_namespace(control_plane), tmp_path)


def example_objects() -> list[Manifest]:
    documents = yaml.safe_load_all((ROOT / "examples" / "agentfleet.yaml").read_text())
    return [document for document in documents if document]


def copies_of(manifest: Manifest, count: int) -> list[Manifest]:
    made = []
    for index in range(count):
        one = copy.deepcopy(manifest)
        one["metadata"]["name"] = f"{manifest['metadata']['name']}-{index}"
        made.append(one)
    return made


def create(site: Site, objects: Iterable[Manifest]) -> list[str]:
    """Create the objects; returns their paths."""
    paths = []
    for one in objects:
        folder = FOLDER.format(namespace=site.namespace, plural=PLURALS[one["kind"]])
        site.plane.client.create(folder, one)
        paths.append(f"{folder}/{one['metadata']['name']}")
    return paths


def has_reconciled(operator: OperatorProcess, times: float) -> bool:
    return reconciles(operator) >= times


@pytest.mark.holds("performance.md", "The idle operator takes less than 150 MiB")
@pytest.mark.holds(
    "architecture.md", "An unchanged object that has not drifted is not sent, and drift is mended"
)
@pytest.mark.holds("decisions/0001-kopf.md", "kopf's handlers write nothing into users' objects")
@pytest.mark.parametrize("copies", [4, pytest.param(17, marks=pytest.mark.rare)])
def test_settled_objects_of_all_kinds_cost_nothing_and_memory_stays_small(site: Site, copies: int) -> None:
    by_kind = {manifest["kind"]: manifest for manifest in example_objects()}
    objects = [one for manifest in by_kind.values() for one in copies_of(manifest, copies)]
    assert {one["kind"] for one in objects} >= {"ModelReplicaSet", "VectorIndex", "AgentFleet"}
    interval = {"statusIntervalSeconds": STATUS_INTERVAL_SECONDS}
    with site.operator(module=WHOLE, loop=interval) as operator:
        paths = create(site, objects)
        eventually(lambda: operator.logged("leader_elected"))
        eventually(lambda: reconciles(operator) > len(objects))
        eventually(lambda: site.quiet(STATUS_INTERVAL_SECONDS))
        since = site.asked_so_far()
        for look in range(LOOKS):
            done = reconciles(operator)
            for path in paths:
                site.plane.client.merge(path, {"metadata": {"annotations": {"look": str(look)}}})
            eventually(partial(has_reconciled, operator, done + len(objects)))
        assert unscheduled(site.asked(since)) == []
        assert operator.memory_mib() < 150
        assert "reconcile_failed" not in operator.log()


def test_a_wrong_configuration_ends_the_start_with_the_field_s_name(site: Site) -> None:
    with site.operator(module=WHOLE, images={"runtime": "x"}) as operator:
        assert operator.ended() == 2
    assert operator.log().startswith("images.haproxy: Field required")


@pytest.mark.holds("architecture.md", "Watches keep no write waiting")
def test_twenty_watched_namespaces_do_not_keep_writes_waiting(
    control_plane: ControlPlane, tmp_path: Path
) -> None:
    namespaces = [create_namespace(control_plane) for _ in range(NAMESPACES)]
    first, *_, last = (Site(control_plane, namespace, tmp_path) for namespace in namespaces)
    with first.operator(module=WHOLE, watchNamespaces=namespaces):
        last.create("m", replicas=2)
        routers = f"/apis/apps/v1/namespaces/{last.namespace}/deployments"
        eventually(lambda: last.plane.client.get(routers)["items"])
