"""Fixtures for tests that need a real API server.

- `control_plane` is etcd and an API server alone: pods are neither bound nor run, and deleting an owner does
  not delete its dependents. A test may restart or stop its API server, if that is ready again at the test's
  end. `running_control_plane` adds the controller manager, the scheduler and KWOK. Both have our CRDs; they
  start at their first use and are shared by all tests of a process.
- `namespace` and `running_namespace` are new namespaces for each test.
- `full_cluster` is the cluster with a kubelet, which all test processes share. It is started at its first
  use, and taken down when the last test process has ended, unless FLOTILLA_KEEP_CLUSTER is set.
"""

import os
import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from local_cluster import cluster, definitions
from local_cluster.access import Access
from local_cluster.control_plane import ControlPlane, Options

KEEP_CLUSTER = "FLOTILLA_KEEP_CLUSTER"
BROUGHT_UP = pytest.StashKey[bool]()
WAITS_LONG = "waits_long"
ENDS_RELEASE = "ends_release"
TAKES_CLUSTER_DOWN = "takes_cluster_down"
TURNS = {WAITS_LONG: 0, ENDS_RELEASE: 2, TAKES_CLUSTER_DOWN: 3}
UNMARKED = 1
MARKERS = {
    WAITS_LONG: "waits for minutes and takes no processor; begins first, so that others run meanwhile",
    ENDS_RELEASE: "upgrades, deletes or uninstalls what other tests use; runs alone, after them",
    TAKES_CLUSTER_DOWN: "takes the full cluster down; runs alone and last",
}
# Without these the API server drops the partitions and the sharing that a ResourceSlice describes.
DEVICE_GATES = "DRAPartitionableDevices=true,DRAConsumableCapacity=true"


def pytest_configure(config: pytest.Config) -> None:
    """Make the markers known."""
    for name, description in MARKERS.items():
        config.addinivalue_line("markers", f"{name}: {description}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests into the order that their markers ask for."""

    def turn(item: pytest.Item) -> int:
        marks = [mark.name for mark in item.iter_markers() if mark.name in TURNS]
        return max((TURNS[name] for name in marks), default=UNMARKED)

    items.sort(key=turn)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Take down the cluster that the tests brought up, once no test process uses it."""
    config = session.config
    brought_up = config.stash.get(BROUGHT_UP, False)
    if hasattr(config, "workeroutput"):
        config.workeroutput["brought_up"] = brought_up
    elif brought_up and KEEP_CLUSTER not in os.environ:
        cluster.down()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Learn from a test process that has ended whether it brought the cluster up."""
    if getattr(node, "workeroutput", {}).get("brought_up"):
        node.config.stash[BROUGHT_UP] = True


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """An API server without controllers, shared by the tests of this process."""
    options = Options(definitions=definitions.OURS)
    with ControlPlane(tmp_path_factory.mktemp("control-plane"), options) as plane:
        yield plane


@pytest.fixture(scope="session")
def running_control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """An API server with controller manager, scheduler and KWOK; the tests make the nodes."""
    options = Options(
        controller_manager=True,
        scheduler=True,
        kwok=True,
        api_server_arguments=(f"--feature-gates={DEVICE_GATES}",),
        definitions=definitions.OURS,
    )
    with ControlPlane(tmp_path_factory.mktemp("running-control-plane"), options) as plane:
        yield plane


@pytest.fixture(scope="session")
def full_cluster(pytestconfig: pytest.Config) -> Access:
    """The machine's full cluster, started when it is not running."""
    pytestconfig.stash[BROUGHT_UP] = True
    return Access(kubeconfig=cluster.up())


@pytest.fixture
def namespace(control_plane: ControlPlane) -> str:
    """A namespace for one test; it is not deleted, because the API server does not outlive the tests."""
    return create_namespace(control_plane)


@pytest.fixture
def running_namespace(running_control_plane: ControlPlane) -> Iterator[str]:
    """A namespace for one test in the control plane with controllers.

    After the test its Flotilla objects are deleted; Kubernetes deletes what they own. The namespace stays:
    its deletion would cost the API server more than most tests do.
    """
    name = create_namespace(running_control_plane)
    yield name
    for path in definitions.paths_of_ours(name):
        running_control_plane.client.delete(path)


def create_namespace(plane: ControlPlane) -> str:
    """Create a namespace with a random name."""
    name = f"test-{secrets.token_hex(4)}"
    plane.client.create(
        "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    )
    return name
