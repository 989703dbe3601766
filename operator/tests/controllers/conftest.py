"""Fixtures that the controllers' tests on a real API server share in a test process."""

from collections.abc import Iterator

import pytest

from local_cluster.control_plane import ControlPlane
from tests.support.kinds import Operators
from tests.support.processes import OperatorProcess


@pytest.fixture(scope="session")
def operators(
    running_control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Operators]:
    """The operator at work in the running control plane."""
    made = Operators(running_control_plane, tmp_path_factory.mktemp("operators"))
    yield made
    made.end()


@pytest.fixture
def operator_of_all(operators: Operators) -> OperatorProcess:
    """The operator of all three kinds, beside a node with eight GPUs."""
    return operators.of("ModelReplicaSet", "VectorIndex", "AgentFleet", node_gpus=8)
