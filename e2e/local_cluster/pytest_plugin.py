"""Fixtures for tests that need a real API server.

`control_plane` is etcd and an API server, nothing else: pods are neither bound nor run, owners'
deletion deletes nothing. `running_control_plane` adds the controller manager, the scheduler and
KWOK. Both start when the first test asks, once per test process. `start_control_plane` makes a
private one, for a test that breaks it. `namespace` and `running_namespace` are new for each test.
`full_cluster` is the one with a kubelet; it is brought up when needed and left running.
"""

import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from local_cluster import cluster
from local_cluster.access import Access
from local_cluster.control_plane import ControlPlane, Options

StartControlPlane = Callable[[Options], ControlPlane]

TAKES_CLUSTER_DOWN = "takes_cluster_down"


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", f"{TAKES_CLUSTER_DOWN}: takes the full cluster down; runs first")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes the cluster down runs before anything has put something into it."""
    items.sort(key=lambda item: item.get_closest_marker(TAKES_CLUSTER_DOWN) is None)


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """An API server without controllers, shared by the tests of this process."""
    with ControlPlane(tmp_path_factory.mktemp("control-plane")) as plane:
        yield plane


@pytest.fixture(scope="session")
def running_control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """An API server with controller manager, scheduler and KWOK; the tests make the nodes."""
    options = Options(controller_manager=True, scheduler=True, kwok=True)
    with ControlPlane(tmp_path_factory.mktemp("running-control-plane"), options) as plane:
        yield plane


@pytest.fixture
def start_control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartControlPlane]:
    """Makes control planes that end with the test."""
    with ExitStack() as stack:

        def start(options: Options) -> ControlPlane:
            return stack.enter_context(ControlPlane(tmp_path_factory.mktemp("own-control-plane"), options))

        yield start


@pytest.fixture(scope="module")
def full_cluster() -> Access:
    """The machine's full cluster, brought up where it is not, and left running.

    Looked at anew for each module, because one that took it down would leave the next with the
    credentials of a cluster that is gone.
    """
    return Access(kubeconfig=cluster.up())


@pytest.fixture
def namespace(control_plane: ControlPlane) -> str:
    """A namespace of the test's own; it goes with the API server."""
    return create_namespace(control_plane)


@pytest.fixture
def running_namespace(running_control_plane: ControlPlane) -> Iterator[str]:
    """A namespace of the test's own in the control plane that has controllers; deleted afterwards."""
    name = create_namespace(running_control_plane)
    yield name
    running_control_plane.client.delete(f"/api/v1/namespaces/{name}")


def create_namespace(plane: ControlPlane) -> str:
    """Create a namespace with a random name."""
    name = f"test-{secrets.token_hex(4)}"
    plane.client.create(
        "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    )
    return name
