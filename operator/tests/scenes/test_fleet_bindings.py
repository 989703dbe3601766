"""The ClusterRoleBindings of gateways, which no fleet can own: made with it, and gone with it."""

from typing import Any

import pytest

from flotilla_operator.objects.resources import AGENT_FLEETS, CLUSTER_ROLE_BINDINGS, NAMESPACES, Manifest
from tests.builders.api_objects import changed, smallest
from tests.scenes.scene import Scene
from tests.scenes.words import NAMESPACE

pytestmark = pytest.mark.scenes

ROLE = "flotilla-gateway"
FLEET = smallest("AgentFleet", name="support")
BINDING = f"{ROLE}:{NAMESPACE}:support"


def binding_of(scene: Scene, name: str = BINDING) -> Manifest | None:
    return scene.api.get(CLUSTER_ROLE_BINDINGS, "", name)


def fleet_of(scene: Scene) -> Manifest:
    return scene.the(AGENT_FLEETS, "support")


def asks_for(scene: Scene, mode: str) -> None:
    patch = {"spec": {"gateway": {"auth": {"mode": mode}}}}
    assert scene.hands.merge(AGENT_FLEETS, fleet_of(scene), patch).status == 200


@pytest.mark.holds(
    "decisions/0022-tokens-for-one-fleet.md",
    "A binding goes with its fleet, also one that went while no operator ran, and with its "
    "namespace without an operator",
)
async def test_a_binding_goes_with_its_fleet_and_comes_back_while_there_is_one(scene: Scene) -> None:
    scene.cluster.create(AGENT_FLEETS, FLEET)
    made = await scene.until(lambda: binding_of(scene))
    assert made["roleRef"]["name"] == ROLE
    assert made["subjects"] == [{"kind": "ServiceAccount", "name": "support-gateway", "namespace": NAMESPACE}]
    scene.cluster.delete(CLUSTER_ROLE_BINDINGS, made)
    await scene.until(lambda: binding_of(scene))
    scene.cluster.delete(AGENT_FLEETS, fleet_of(scene))
    await scene.until(lambda: binding_of(scene) is None, within_seconds=10)


@pytest.mark.holds(
    "decisions/0022-tokens-for-one-fleet.md",
    "A binding whose subject was changed, or that is of a namespace of before, is made anew",
)
@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"subjects": [{"kind": "User", "name": "eve"}]}, id="another subject"),
        pytest.param({"subjects": []}, id="no subject"),
        pytest.param(
            {
                "metadata": {
                    "ownerReferences": [
                        {"apiVersion": "v1", "kind": "Namespace", "name": NAMESPACE, "uid": "of before"}
                    ]
                }
            },
            id="a namespace of before",
        ),
    ],
)
async def test_a_binding_that_somebody_changed_is_made_anew(scene: Scene, change: dict[str, Any]) -> None:
    scene.cluster.create(AGENT_FLEETS, FLEET)
    made = await scene.until(lambda: binding_of(scene))
    assert scene.hands.merge(CLUSTER_ROLE_BINDINGS, made, change).status == 200

    def anew() -> Manifest | None:
        found = binding_of(scene)
        return found if found and found["metadata"]["uid"] != made["metadata"]["uid"] else None

    mended = await scene.until(anew)
    assert mended["subjects"] == made["subjects"]
    assert mended["metadata"]["ownerReferences"] == made["metadata"]["ownerReferences"]
    await scene.pass_time(3600)
    assert anew() == mended, "it is then left alone"


async def test_a_fleet_that_checks_no_tokens_has_no_binding(scene: Scene) -> None:
    scene.cluster.create(AGENT_FLEETS, FLEET)
    await scene.until(lambda: binding_of(scene))
    asks_for(scene, "None")
    await scene.until(lambda: binding_of(scene) is None)
    asks_for(scene, "Kubernetes")
    await scene.until(lambda: binding_of(scene))


@pytest.mark.holds(
    "decisions/0022-tokens-for-one-fleet.md",
    "A binding goes with its fleet, also one that went while no operator ran, and with its "
    "namespace without an operator",
)
async def test_a_binding_of_a_fleet_that_went_while_no_operator_ran_goes_with_the_next(scene: Scene) -> None:
    scene.cluster.create(AGENT_FLEETS, FLEET)
    await scene.until(lambda: binding_of(scene))
    await scene.operator.kill()
    scene.cluster.delete(AGENT_FLEETS, fleet_of(scene))
    await scene.pass_time(600)
    assert binding_of(scene) is not None
    await scene.start_operator()
    await scene.until(lambda: binding_of(scene) is None)


@pytest.mark.holds(
    "decisions/0022-tokens-for-one-fleet.md",
    "A binding goes with its fleet, also one that went while no operator ran, and with its "
    "namespace without an operator",
)
async def test_a_binding_goes_with_its_namespace_without_an_operator(scene: Scene) -> None:
    scene.cluster.create(AGENT_FLEETS, FLEET)
    await scene.until(lambda: binding_of(scene))
    await scene.operator.kill()
    scene.api.remove(NAMESPACES, "", NAMESPACE)
    await scene.until(lambda: binding_of(scene) is None)
    scene.api.put(NAMESPACES, {"metadata": {"name": NAMESPACE}, "status": {"phase": "Active"}})
    await scene.start_operator()


@pytest.mark.holds(
    "decisions/0022-tokens-for-one-fleet.md",
    "Bindings of others, and of namespaces that are not watched, are left alone",
)
@pytest.mark.parametrize(
    ("name", "labels"),
    [
        pytest.param(f"{ROLE}:{NAMESPACE}:support", {}, id="one that an administrator has made"),
        pytest.param(f"another-role:{NAMESPACE}:support", None, id="one of another release"),
    ],
)
async def test_bindings_of_others_stay(scene: Scene, name: str, labels: dict[str, str] | None) -> None:
    scene.cluster.create(AGENT_FLEETS, FLEET)
    made = await scene.until(lambda: binding_of(scene))
    scene.cluster.delete(AGENT_FLEETS, fleet_of(scene))
    await scene.until(lambda: binding_of(scene) is None)
    kept = changed(made, metadata__name=name)
    kept["metadata"] = {"name": name, "labels": made["metadata"]["labels"] if labels is None else labels}
    scene.cluster.create(CLUSTER_ROLE_BINDINGS, kept)
    await scene.pass_time(3600)
    assert binding_of(scene, name) is not None
