"""Deleting, with garbage collection and the namespace controller at work."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from local_cluster.control_plane import ControlPlane, Options
from local_cluster.pytest_plugin import create_namespace
from tests.support.site import Site, install_tiny_kind
from tests.support.waiting import eventually

pytestmark = [pytest.mark.apiserver, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane of this module's own, with the controllers that delete."""
    options = Options(controller_manager=True)
    with ControlPlane(tmp_path_factory.mktemp("deleting-plane"), options) as started:
        install_tiny_kind(started)
        yield started


@pytest.fixture
def site(plane: ControlPlane, tmp_path: Path) -> Site:
    made = Site(plane, create_namespace(plane), tmp_path)
    eventually(lambda: plane.client.exists(made.path("serviceaccounts", "default")))
    return made


def delete(site: Site, *arguments: str) -> None:
    site.plane.kubectl(f"-n={site.namespace}", "delete", "modelreplicaset", "m", *arguments)


def is_gone(site: Site) -> bool:
    return not site.plane.client.exists(site.path("modelreplicasets", "m"))


@pytest.mark.parametrize("cascade", ["foreground", "background"])
def test_a_deletion_takes_everything_along(site: Site, cascade: str) -> None:
    with site.operator():
        site.create("m", replicas=2, data={"a": "1"})
        eventually(lambda: site.settled("m", 2, a="1"))
        delete(site, f"--cascade={cascade}", "--timeout=180s")
        eventually(lambda: is_gone(site) and not site.pods())
        eventually(lambda: not site.plane.client.exists(site.path("configmaps", "m-config")))


@pytest.mark.parametrize("cascade", ["foreground", "background"])
def test_a_deletion_asked_for_while_the_operator_is_down_is_finished_when_it_is_back(
    site: Site, cascade: str
) -> None:
    with site.operator():
        site.create("m", replicas=2)
        eventually(lambda: site.settled("m", 2))
    site.forget_leader()
    delete(site, f"--cascade={cascade}", "--wait=false")
    time.sleep(1)
    assert not is_gone(site)
    with site.operator():
        eventually(lambda: is_gone(site) and not site.pods())


def test_a_namespace_is_deleted_within_a_minute(site: Site) -> None:
    elsewhere = {"POD_NAMESPACE": "default"}
    with site.operator(environment=elsewhere) as operator:
        site.create("m", replicas=2)
        eventually(lambda: site.settled("m", 2))
        site.plane.kubectl("delete", "namespace", site.namespace, "--timeout=60s")
        assert operator.running
