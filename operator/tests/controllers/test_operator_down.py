"""An object that is deleted while no operator is at work, with garbage collection.

Deletions that an operator sees, and whole namespaces: test_all_kinds_deletion.py.
"""

from pathlib import Path

import pytest

from local_cluster.control_plane import ControlPlane
from tests.support.kinds import Operators
from tests.support.site import Site
from tests.support.waiting import eventually

pytestmark = [pytest.mark.apiserver, pytest.mark.timeout(600)]

CASCADES = {"m": "Foreground", "n": "Background"}


@pytest.fixture
def site(
    running_control_plane: ControlPlane, running_namespace: str, operators: Operators, tmp_path: Path
) -> Site:
    """A namespace with its service account; no other operator is at work."""
    operators.end()
    made = Site(running_control_plane, running_namespace, tmp_path)
    eventually(lambda: made.plane.client.exists(made.path("serviceaccounts", "default")))
    return made


def is_gone(site: Site, name: str) -> bool:
    return not site.plane.client.exists(site.path("modelreplicasets", name))


def test_a_deletion_asked_for_while_the_operator_is_down_is_finished_when_it_is_back(site: Site) -> None:
    with site.operator():
        for name in CASCADES:
            site.create(name, replicas=2, data={"a": "1"})
        eventually(lambda: all(site.settled(name, 2, a="1") for name in CASCADES))
    site.forget_leader()
    for name, policy in CASCADES.items():
        path = f"{site.path('modelreplicasets', name)}?propagationPolicy={policy}"
        site.plane.client.delete(path)
    eventually(lambda: all(is_marked(site, name) for name in CASCADES))
    with site.operator():
        eventually(lambda: all(is_gone(site, name) for name in CASCADES) and not site.pods())
        configs = [site.path("configmaps", f"{name}-config") for name in CASCADES]
        eventually(lambda: not any(map(site.plane.client.exists, configs)))


def is_marked(site: Site, name: str) -> bool:
    return "deletionTimestamp" in site.get("modelreplicasets", name)["metadata"]
