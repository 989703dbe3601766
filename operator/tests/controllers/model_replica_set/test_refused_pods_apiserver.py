"""A set whose pods a real quota refuses, and one that could use the accelerators meanwhile."""

from collections.abc import Iterator

import pytest

from local_cluster.control_plane import ControlPlane
from local_cluster.pytest_plugin import create_namespace
from tests.controllers.model_replica_set.stage import Stage
from tests.support.kinds import enforce_restricted

pytestmark = [pytest.mark.apiserver, pytest.mark.timeout(600)]


@pytest.fixture
def elsewhere(running_control_plane: ControlPlane) -> Iterator[Stage]:
    """A second namespace."""
    name = create_namespace(running_control_plane)
    enforce_restricted(running_control_plane, name)
    yield Stage(running_control_plane, name)
    running_control_plane.client.delete(f"/api/v1/namespaces/{name}")


@pytest.mark.holds("placement.md", "A set whose pods are refused backs off, and others get its room")
def test_room_that_a_quota_keeps_one_set_from_goes_to_the_next(stage: Stage, elsewhere: Stage) -> None:
    stage.node("a", gpus=4)
    same_nodes = {"nodeSelector": {"stage": stage.namespace}}
    path = elsewhere.quota("none", gpus=0)
    elsewhere.create("older", replicas=1, placement=same_nodes)
    assert "exceeded quota" in elsewhere.wait("Placed", "False", "BackingOff", "older")
    stage.create("younger", replicas=1, placement=same_nodes)
    stage.wait("Ready", "True", name="younger")

    message = elsewhere.wait("Placed", "False", "InsufficientCapacity", "older")
    assert "1 InsufficientGPUs" in message, "once it tries again it waits like any other"
    elsewhere.client.delete(path)
    stage.change("younger", replicas=0)
    elsewhere.wait("Ready", "True", name="older")
