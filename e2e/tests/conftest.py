"""The demo as fixtures: brought up once, by the functions that `make demo` calls.

`installed` is the cluster with the chart, the demo's claims, and its three kinds applied; `demo` waits until
they are ready. What needs only a kubelet and the operator asks for `installed`, and runs while
the real engines start.
Several test processes share one cluster: the first brings it up while the others wait.

Each step has a deadline of its own, so the tests' time limits are for the tests alone: on a machine without
caches the first test would else pay for the images.
"""

import os
from collections.abc import Iterator
from dataclasses import replace

import pytest

import streams.site
from demo import claims, environment
from demo.environment import CLAIM_SIZES, MODEL_FOLDERS, Environment, model_folders
from demo.kubectl import Kubectl
from engine.models import GENERATOR
from local_cluster.binaries import locked
from local_cluster.control_plane import ControlPlane, Options
from local_cluster.processes import start_ticks
from local_cluster.pytest_plugin import BROUGHT_UP
from tests.support import node_models
from tests.support.applied import Site
from tests.support.pages import some_pages
from tests.support.stand_ins import stand_ins_image


@pytest.fixture(scope="module")
def chart_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane for releases of the chart: without our kinds, which helm takes over from nobody.

    All of its five processes run until the end, and none of them after it.
    """
    options = Options(controller_manager=True, scheduler=True, kwok=True)
    with ControlPlane(tmp_path_factory.mktemp("chart-plane"), options) as plane:
        yield plane
        pids = [daemon.pid for daemon in (plane.etcd, plane.api_server, *plane.others)]
    assert [start_ticks(pid) for pid in pids if pid is not None] == [None] * 5


@pytest.fixture(scope="session")
def streams_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[streams.site.Site]:
    """The site of `make bench-streams`: real programs, doubles for engines."""
    folder = tmp_path_factory.mktemp("site")  # a socket's path must be short
    with streams.site.site(folder, loop={"statusIntervalSeconds": 1}) as made:
        yield made


@pytest.fixture
def place(streams_site: streams.site.Site) -> Iterator[streams.site.Site]:
    """That site without a set; the one that a test creates goes with the test."""
    yield streams_site
    streams_site.remove()


@pytest.fixture(scope="session")
def installed(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The cluster, the chart, and the three kinds of examples/agentfleet.yaml on their way to ready."""
    pytestconfig.stash[BROUGHT_UP] = True
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    with locked(shared / "installed.lock"):
        state = shared / "installed"
        if not state.exists():
            state.write_text("failed")
            install()
            state.write_text("installed")
    assert state.read_text() == "installed", "another test process could not install the demo; see its error"
    return environment.existing()


def install() -> None:
    """Bring the cluster up and apply the demo to it."""
    ready = environment.up()
    references = ready.build_images()
    ready.install_chart(references, node_models.CHART_VALUE)
    ready.fill_claims(some_pages(), references["runtime"])
    ready.apply(environment.EXAMPLE)
    stand_ins_image(ready)
    beside = replace(ready, kubectl=beside_the_demo(ready))
    beside.make_namespace()
    with model_folders({GENERATOR.name: MODEL_FOLDERS[GENERATOR.name]}) as models:
        claims.fill(beside.kubectl, references["runtime"], {"models": models}, CLAIM_SIZES)


def beside_the_demo(demo: Environment) -> Kubectl:
    """kubectl in the namespace where tests make their own objects; it has a claim with the demo's model."""
    return replace(demo.kubectl, namespace="flotilla-beside")


@pytest.fixture(scope="session")
def demo(installed: Environment) -> Environment:
    """The three kinds of examples/agentfleet.yaml, ready."""
    installed.wait_until_ready()
    return installed


@pytest.fixture(scope="session")
def everywhere(installed: Environment) -> Kubectl:
    """kubectl without a namespace of its own."""
    return replace(installed.kubectl, namespace=None)


@pytest.fixture(scope="session")
def double(installed: Environment) -> str:
    """The engine double's image."""
    return stand_ins_image(installed)


@pytest.fixture
def site(installed: Environment) -> Iterator[Site]:
    """A namespace beside the demo's; what a test makes in it goes with the test."""
    made_here = Site(beside_the_demo(installed))
    yield made_here
    made_here.remove_all()
