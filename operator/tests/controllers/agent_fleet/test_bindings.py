"""A fleet's ClusterRoleBinding, known by its name and labels; how they come and go is a scene."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flotilla_operator.controllers.agent_fleet.act import bindings_to_delete
from flotilla_operator.controllers.agent_fleet.observe import binding_of
from flotilla_operator.controllers.config import parse_config
from flotilla_operator.objects.owners import Owner
from flotilla_operator.objects.resources import Key
from flotilla_operator.workloads import agent_fleet as workloads
from tests.builders.agent_fleet import OWNER
from tests.builders.world import IMAGES, world

NAMES = st.from_regex(r"[a-z0-9]([-a-z0-9.]{0,20}[a-z0-9])?", fullmatch=True)
ROLE = "flotilla-gateway"


@given(NAMES, NAMES, NAMES)
def test_the_name_of_a_binding_tells_its_fleet(namespace: str, name: str, role: str) -> None:
    owner = Owner(kind="AgentFleet", namespace=namespace, name=name, uid="u")
    made = workloads.review_binding(owner, role, "uid")["metadata"]
    assert workloads.fleet_of_binding(made) == Key("AgentFleet", namespace, name)
    assert workloads.fleet_of_binding({"name": made["name"]}) is None


@pytest.mark.parametrize("name", ["system:node", "cluster-admin", "a:b:c:d", "system:controller:job"])
def test_a_name_of_another_form_tells_none(name: str) -> None:
    labels = workloads.binding_labels("b", "c")
    assert workloads.fleet_of_binding({"name": name, "labels": labels}) is None


@pytest.mark.holds(
    "decisions/0022-tokens-for-one-fleet.md",
    "Bindings of others, and of namespaces that are not watched, are left alone",
)
@pytest.mark.parametrize(
    ("watched", "found"),
    [
        pytest.param([], True, id="all namespaces are watched"),
        pytest.param(["default"], True, id="its namespace is watched"),
        pytest.param(["another"], False, id="its namespace is not watched"),
    ],
)
def test_a_binding_is_left_in_a_namespace_that_is_not_watched(watched: list[str], found: bool) -> None:
    config = parse_config({"images": IMAGES, "watchNamespaces": watched})
    seen = world(workloads.review_binding(OWNER, ROLE, "uid-of-default"), config=config)
    live = binding_of(OWNER.namespace, OWNER.name, seen)
    assert bool(bindings_to_delete(OWNER.namespace, OWNER.name, live)) == found
