"""The operator of the sets, and a scene for each test."""

from collections.abc import Iterator

import pytest

from local_cluster.control_plane import ControlPlane
from tests.controllers.model_replica_set.stage import Stage
from tests.support.kinds import Operators, enforce_restricted, no_failures
from tests.support.processes import OperatorProcess


@pytest.fixture
def operator(operators: Operators) -> OperatorProcess:
    return operators.of("ModelReplicaSet")


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
        for path in made.of_the_cluster:
            running_control_plane.client.delete(path)
