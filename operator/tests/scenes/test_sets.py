"""The life of a set, from its creation to what it leaves behind, and what it waits for."""

import pytest

from flotilla_operator.objects.resources import EVENTS, LEASES, NAMESPACES, NODES, SECRETS, SERVICES
from flotilla_runtime import contract
from leaks.planted import in_secret
from tests.scenes.scene import Scene
from tests.scenes.words import NAMESPACE

pytestmark = pytest.mark.scenes


async def test_a_set_appears_scales_and_leaves_nothing(scene: Scene) -> None:
    scene.node("a")
    scene.node("b")
    scene.create()
    await scene.until_ready()
    assert scene.nodes_of() == ["a", "a"], "one node is filled first"
    status = scene.status()
    assert (status["ready"], status["placement"]["score"]) == ("2/2", 1.0)
    assert status["url"] == f"http://llama-model.{NAMESPACE}.svc:8000/v1"
    ids = {pod["metadata"]["annotations"][contract.ANNOTATION_SERVER_ID] for pod in scene.pods()}
    assert ids == {"1", "2"}
    assert {"key", "madeAnew"} == set(scene.the(SECRETS, "llama-engine-key")["data"])

    scene.change(replicas=3)
    await scene.until(lambda: scene.is_ready() and sorted(map(str, scene.nodes_of())) == ["a", "a", "b"])
    scene.change(replicas=1)
    await scene.until(lambda: scene.is_ready() and len(scene.engines()) == 1)

    scene.delete(propagation="Foreground")
    stays = {NODES, NAMESPACES, EVENTS, LEASES}
    await scene.until(lambda: {resource for resource, _ in scene.api.everything()} <= stays)


@pytest.mark.holds(
    "argocd.md",
    "A set that is scaled up is not Ready until its new replicas are; one at zero because no "
    "requests come is",
)
async def test_a_set_that_is_scaled_up_is_not_ready_until_all_its_replicas_are(scene: Scene) -> None:
    scene.node("a", gpus=16)
    scene.create()
    await scene.until_ready()
    scene.change(replicas=4)
    await scene.until(lambda: scene.says("Ready", "False"))
    await scene.until_ready()
    assert scene.status()["ready"] == "4/4"


async def test_a_group_that_comes_and_goes_is_told(scene: Scene) -> None:
    scene.node("a")
    scene.create(replicas=1)
    await scene.until_ready()
    scene.change(replicas=0)
    await scene.until(lambda: not scene.engines())
    await scene.until_told("GroupRemoved")
    told = [reason for reason in scene.told() if reason.startswith("Group")]
    assert told == ["GroupPlaced", "GroupReady", "GroupDraining", "GroupRemoved"]


@pytest.mark.holds("decisions/0004-pinning-and-gates.md", "A group that does not fit has no pods")
async def test_a_group_that_does_not_fit_waits_and_starts_when_room_comes(scene: Scene) -> None:
    scene.node("other", product="A100")
    scene.node("small")
    scene.foreign_pod("training", "small", gpus=6)
    scene.create(replicas=1)
    message = await scene.until_says("Placed", "False", "InsufficientCapacity")
    assert "1 InsufficientGPUs" in message
    assert "1 ProductMismatch" in message
    (group,) = scene.status()["groups"]
    assert (scene.pods(), group["phase"]) == ([], "Waiting")
    assert scene.says("Reconciling", "True")

    scene.delete_pod("training")
    await scene.until_ready()
    (pod,) = scene.pods()
    assert pod["metadata"]["name"] == group["name"], "a group keeps its name while it waits"
    assert pod["spec"]["nodeName"] == "small"


async def test_a_set_no_node_can_hold_is_for_a_person(scene: Scene) -> None:
    scene.node("a")
    scene.create(parallelism={"tensor": 16})
    await scene.until_says("Placed", "False", "NoNodeCanFit")
    assert scene.says("Stalled", "True")
    scene.change(parallelism={"tensor": 4})
    await scene.until_ready()


async def test_three_sets_at_once_get_what_there_is_and_nothing_is_promised_twice(scene: Scene) -> None:
    scene.node("a")
    scene.node("b")
    names = ("one", "two", "three")

    def no_more_than_there_is() -> bool:
        """At most the four groups that fit have pods."""
        return sum(len(scene.pods(name)) for name in names) <= 4

    with scene.throughout(no_more_than_there_is):
        for name in names:
            scene.create(name)
        await scene.until(lambda: sum(scene.serving(name) for name in names) == 4)
        await scene.pass_time(120)
    waiting = [g for name in names for g in scene.status(name)["groups"] if g["phase"] == "Waiting"]
    assert len(waiting) == 2
    assert "GroupReleased" not in scene.told()


async def test_a_secret_that_is_missing_and_then_appears(scene: Scene) -> None:
    scene.node("a")
    model = {"name": "llama", "source": "hf://meta/llama", "tokenSecretRef": {"name": "hf"}}
    scene.create(replicas=1, model=model)
    assert "spec.model.tokenSecretRef" in await scene.until_says("SpecValid", "False", "SecretMissing")
    assert scene.pods() == []
    scene.api.put(
        SECRETS, {"metadata": {"name": "hf", "namespace": NAMESPACE}, "data": {"token": in_secret("token")}}
    )
    await scene.until_ready()


async def test_a_settled_set_is_not_written_any_more(scene: Scene) -> None:
    scene.node("a")
    scene.create()
    await scene.until_ready()
    await scene.pass_time(60)
    before = len(scene.api.writes())
    await scene.pass_time(900)
    assert scene.api.writes()[before:] == []


async def test_what_others_change_in_our_objects_is_corrected(scene: Scene) -> None:
    scene.node("a")
    scene.create(replicas=1)
    await scene.until_ready()
    labels = scene.the(SERVICES, "llama-model")["metadata"]["labels"]
    service = scene.the(SERVICES, "llama-model")
    scene.cluster.merge(SERVICES, service, {"metadata": {"labels": {contract.LABEL_OWNER_NAME: None}}})
    await scene.until(lambda: scene.the(SERVICES, "llama-model")["metadata"]["labels"] == labels)
