"""The operator as it ships, with its three controllers and its CRDs, against a real API server.

What each kind does is tested beside its controller; here is what concerns all of them at once.
"""

import copy
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from local_cluster.control_plane import ControlPlane
from local_cluster.pytest_plugin import create_namespace
from tests.support.processes import ROOT, WHOLE
from tests.support.site import USER, Manifest, Site, reconciles, unscheduled
from tests.support.waiting import eventually

pytestmark = [pytest.mark.apiserver, pytest.mark.timeout(900)]

KINDS = ("modelreplicasets", "vectorindexes", "agentfleets")
COPIES = 17


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane of this module's own with the CRDs that the chart installs."""
    with ControlPlane(tmp_path_factory.mktemp("whole-plane")) as started:
        started.kubectl("apply", "--server-side", f"-f={ROOT / 'crds'}")
        started.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=180s")
        yield started


@pytest.fixture
def site(plane: ControlPlane, tmp_path: Path) -> Site:
    return Site(plane, create_namespace(plane), tmp_path)


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


def test_fifty_settled_objects_of_all_kinds_cost_nothing_and_memory_stays_small(site: Site) -> None:
    by_kind = {manifest["kind"]: manifest for manifest in example_objects()}
    objects = [one for manifest in by_kind.values() for one in copies_of(manifest, COPIES)]
    assert len(objects) >= 50
    assert {one["kind"] for one in objects} >= {"ModelReplicaSet", "VectorIndex", "AgentFleet"}
    with site.operator(module=WHOLE) as operator:
        site.plane.kubectl(f"-n={site.namespace}", "apply", "-f=-", manifest=yaml.safe_dump_all(objects))
        eventually(lambda: operator.logged("leader_elected"))
        eventually(lambda: reconciles(operator) > len(objects))
        eventually(site.quiet)
        since = len(list(site.plane.audit_events(user=USER)))
        before = reconciles(operator)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            for plural in KINDS:
                site.plane.kubectl(
                    f"-n={site.namespace}", "annotate", plural, "--all", f"again={time.time()}", "--overwrite"
                )
            time.sleep(4)
        eventually(lambda: reconciles(operator) - before >= len(objects))
        assert unscheduled(site.asked(since)) == []
        assert operator.memory_mib() < 150
        assert "reconcile_failed" not in operator.log()


def test_a_wrong_configuration_ends_the_start_with_the_field_s_name(site: Site) -> None:
    with site.operator(module=WHOLE, images={"runtime": "x"}) as operator:
        assert operator.ended() == 2
    assert operator.log().startswith("images.haproxy: Field required")
