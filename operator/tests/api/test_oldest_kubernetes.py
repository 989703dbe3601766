"""The oldest Kubernetes that is supported: our kinds on it, and an operator that lacks an API there."""

from collections.abc import Iterator

import pytest

from flotilla_operator.api.generate import ROOT
from flotilla_operator.api.kinds import KINDS
from local_cluster import definitions
from local_cluster.api_client import documents
from local_cluster.control_plane import ControlPlane, Options
from local_cluster.pytest_plugin import create_namespace
from tests.controllers.model_replica_set.stage import Stage
from tests.support.kinds import kinds_operator

EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
PLACES = {kind.name: ("/apis/flotilla.dev/v1alpha1", kind.plural) for kind in KINDS}
PLACES["ConfigMap"] = ("/api/v1", "configmaps")

pytestmark = [
    pytest.mark.apiserver,
    pytest.mark.xdist_group("oldest"),
    pytest.mark.timeout(1800),  # where nobody ran `make tools`, it builds this API server first
]


@pytest.fixture(scope="module")
def oldest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    options = Options(oldest=True, definitions=definitions.OURS)
    with ControlPlane(tmp_path_factory.mktemp("oldest-plane"), options) as plane:
        yield plane


def test_it_is_the_oldest(oldest: ControlPlane) -> None:
    assert oldest.client.get("/version")["gitVersion"].startswith("v1.31.")


def test_it_takes_definitions_and_examples(oldest: ControlPlane) -> None:
    assert len(EXAMPLES) >= len(KINDS)
    for path in EXAMPLES:
        namespace = create_namespace(oldest)
        for manifest in documents(path.read_text()):
            root, plural = PLACES[manifest["kind"]]
            folder = f"{root}/namespaces/{namespace}/{plural}"
            assert oldest.client.create(f"{folder}?fieldValidation=Strict", manifest)["metadata"]["uid"]


def test_without_resource_claims_the_operator_works_and_says_that_there_is_no_class(
    oldest: ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert not oldest.client.exists("/apis/resource.k8s.io/v1/resourceslices")
    stage = Stage(oldest, create_namespace(oldest))
    with kinds_operator(oldest, tmp_path_factory.mktemp("operator"), "ModelReplicaSet") as operator:
        stage.create(replicas=1, accelerator={"deviceClass": {"name": "gpu"}})
        message = stage.wait("SpecValid", "False", "DeviceClassMissing")
        assert "Kubernetes 1.34" in message
        stage.create("plain", replicas=1)
        stage.wait("SpecValid", "True", name="plain")
        assert operator.failures() == []
