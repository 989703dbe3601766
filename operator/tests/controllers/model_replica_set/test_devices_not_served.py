"""A Kubernetes that does not serve devices, as those before 1.34: the operator works, and says so."""

import pytest

from local_cluster import definitions
from local_cluster.control_plane import ControlPlane, Options
from local_cluster.pytest_plugin import create_namespace
from tests.controllers.model_replica_set.stage import Stage
from tests.support.kinds import kinds_operator

pytestmark = pytest.mark.apiserver

WITHOUT_DEVICES = (
    "--runtime-config=resource.k8s.io/v1=false",
    "--feature-gates=DynamicResourceAllocation=false",
)


@pytest.mark.holds("placement.md", "Where the API of devices is not served, the operator works and says so")
def test_without_resource_claims_the_operator_works_and_says_that_there_is_no_class(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    options = Options(definitions=definitions.OURS, api_server_arguments=WITHOUT_DEVICES)
    with ControlPlane(tmp_path_factory.mktemp("plane"), options) as plane:
        assert not plane.client.exists("/apis/resource.k8s.io/v1/resourceslices")
        stage = Stage(plane, create_namespace(plane))
        with kinds_operator(plane, tmp_path_factory.mktemp("operator"), "ModelReplicaSet") as operator:
            stage.create(replicas=1, accelerator={"deviceClass": {"name": "gpu"}})
            message = stage.wait("SpecValid", "False", "DeviceClassMissing")
            assert "Kubernetes 1.34" in message
            stage.create("plain", replicas=1)
            stage.wait("SpecValid", "True", name="plain")
            assert operator.failures() == []
