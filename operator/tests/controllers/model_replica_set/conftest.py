"""An operator for the tests of a module, and a scene for each test."""

from collections.abc import Iterator

import pytest

from local_cluster.control_plane import ControlPlane
from tests.controllers.model_replica_set.stage import Stage
from tests.support.kinds import enforce_restricted, kind_operator, no_failures
from tests.support.processes import OperatorProcess


@pytest.fixture(scope="module")
def operator(
    running_control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OperatorProcess]:
    folder = tmp_path_factory.mktemp("operator")
    with kind_operator(running_control_plane, folder, "ModelReplicaSet") as process:
        yield process


@pytest.fixture
def stage(
    running_control_plane: ControlPlane, running_namespace: str, operator: OperatorProcess
) -> Iterator[Stage]:
    enforce_restricted(running_control_plane, running_namespace)
    made = Stage(running_control_plane, running_namespace)
    try:
        with no_failures(operator):
            yield made
    finally:
        for item in running_control_plane.client.get(made.sets)["items"]:
            running_control_plane.client.delete(f"{made.sets}/{item['metadata']['name']}")
        for node in made.nodes:
            running_control_plane.client.delete(f"/api/v1/nodes/{node}")
        for volume in made.volumes:
            running_control_plane.client.delete(f"/api/v1/persistentvolumes/{volume}")
