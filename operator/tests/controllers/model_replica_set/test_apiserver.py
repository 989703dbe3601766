"""The set's whole life through the real loop: a real API server, scheduler, garbage collector, and KWOK's GPU
nodes. What it waits for until it can begin: test_waiting_apiserver.

The namespace enforces restricted pod security, so every pod of ours that appears has been accepted under it.
KWOK plays the kubelet: containers "run", so what engines and routers really do is shown elsewhere.
"""

import time
from typing import Any

import pytest

from flotilla_operator.objects import resources
from flotilla_runtime import contract
from tests.builders.model_configs import LLAMA_70B
from tests.controllers.model_replica_set.stage import GPU, PRODUCT, Stage
from tests.support.children import names
from tests.support.kinds import STATUS_INTERVAL_SECONDS
from tests.support.processes import OperatorProcess
from tests.support.site import reconciles
from tests.support.waiting import eventually

pytestmark = [pytest.mark.apiserver, pytest.mark.timeout(600)]

CHILDREN = (
    resources.PODS,
    resources.SERVICES,
    resources.CONFIG_MAPS,
    resources.SERVICE_ACCOUNTS,
    resources.DEPLOYMENTS,
    resources.ROLES,
    resources.ROLE_BINDINGS,
    resources.NETWORK_POLICIES,
    resources.POD_DISRUPTION_BUDGETS,
)


@pytest.mark.holds("architecture.md", "Each kind makes the objects that the page lists")
def test_a_set_appears_scales_and_leaves_nothing(stage: Stage) -> None:
    first, second = stage.node("a"), stage.node("b")
    stage.create()
    stage.wait("Ready", "True")
    assert {pod["spec"]["nodeName"] for pod in stage.pods()} == {first}, "one node is filled first"
    status = stage.get()["status"]
    assert status["ready"] == "2/2"
    assert status["placement"]["score"] == 1.0
    assert status["url"] == f"http://llama-model.{stage.namespace}.svc:8000/v1"
    ids = {pod["metadata"]["annotations"][contract.ANNOTATION_SERVER_ID] for pod in stage.pods()}
    assert ids == {"1", "2"}
    secrets = f"/api/v1/namespaces/{stage.namespace}/secrets"
    key = stage.client.get(f"{secrets}/llama-engine-key")
    assert {"key", "madeAnew"} == set(key["data"])
    assert [owner["name"] for owner in key["metadata"]["ownerReferences"]] == ["llama"]
    table = stage.plane.kubectl("get", "mrs", "-n", stage.namespace)
    assert "AllPlaced" in table
    assert "2/2" in table

    stage.plane.kubectl("scale", "mrs/llama", "--replicas=3", "-n", stage.namespace)
    eventually(lambda: len(stage.pods()) == 3)
    stage.wait("Ready", "True")
    assert {pod["spec"]["nodeName"] for pod in stage.pods()} == {first, second}
    stage.change(replicas=1)
    eventually(lambda: len(stage.pods()) == 1)
    stage.wait("Ready", "True")

    stage.plane.kubectl("delete", "mrs/llama", "-n", stage.namespace, "--cascade=foreground")
    eventually(lambda: not everything_of("llama", stage))


def test_a_set_made_again_under_its_name_starts_nothing_with_the_key_of_the_deleted_one(stage: Stage) -> None:
    """The garbage collector takes it a moment later, and what was started with it would be replaced."""
    stage.node("a")
    stage.create(replicas=1)
    stage.wait("Ready", "True")
    secret = f"/api/v1/namespaces/{stage.namespace}/secrets/llama-engine-key"
    stage.client.merge(secret, {"metadata": {"finalizers": ["example.com/the-collector-is-late"]}})
    stage.plane.kubectl("delete", "mrs/llama", "-n", stage.namespace)
    eventually(lambda: not everything_of("llama", stage))
    stage.create(replicas=1)
    stage.wait("Placed", "False", "BeingDeleted")
    assert stage.pods() == []
    assert not [name for name in everything_of("llama", stage) if name.startswith("deployments")]
    old = stage.client.get(secret)
    stage.client.merge(secret, {"metadata": {"finalizers": None}})
    stage.wait("Ready", "True")
    new = stage.client.get(secret)
    assert new["data"]["key"] != old["data"]["key"]
    assert new["metadata"]["ownerReferences"][0]["uid"] == stage.get()["metadata"]["uid"]
    assert "EngineKeyLost" not in stage.events()


def everything_of(name: str, stage: Stage) -> list[str]:
    selector = f"flotilla.dev/owner={name},flotilla.dev/kind=ModelReplicaSet"
    return names(stage.client, stage.namespace, CHILDREN, selector)


def test_what_others_change_in_our_objects_is_corrected(stage: Stage) -> None:
    stage.node("a")
    stage.create(replicas=1)
    stage.wait("Ready", "True")
    router = f"/apis/apps/v1/namespaces/{stage.namespace}/deployments/llama-router"
    service = f"/api/v1/namespaces/{stage.namespace}/services/llama-model"
    stage.plane.kubectl("scale", "deployment/llama-router", "--replicas=4", "-n", stage.namespace)
    stage.client.merge(service, {"metadata": {"labels": {contract.LABEL_OWNER_NAME: None}}})

    def corrected() -> bool:
        labels = stage.client.get(service)["metadata"]["labels"]
        return stage.client.get(router)["spec"]["replicas"] == 1 and contract.LABEL_OWNER_NAME in labels

    eventually(corrected)


def test_a_settled_set_is_not_written_any_more(stage: Stage, operator: OperatorProcess) -> None:
    stage.node("a")
    stage.create()
    stage.wait("Ready", "True")

    def versions() -> dict[str, str]:
        found = [stage.get(), *stage.pods()]
        return {item["metadata"]["name"]: item["metadata"]["resourceVersion"] for item in found}

    def settled() -> bool:
        before = versions()
        time.sleep(3 * STATUS_INTERVAL_SECONDS)
        return versions() == before

    eventually(settled)
    before, done = versions(), reconciles(operator)
    looked = stage.look_again()
    eventually(lambda: reconciles(operator) > done)
    time.sleep(3 * STATUS_INTERVAL_SECONDS)
    assert versions() == {**before, "llama": looked["metadata"]["resourceVersion"]}
    managers = stage.get()["metadata"]["managedFields"]
    ours = [m for m in managers if m["manager"].startswith("flotilla")]
    assert {(m["manager"], m["operation"], m.get("subresource")) for m in ours} >= {
        ("flotilla-status", "Apply", "status")
    }


def report_facts(stage: Stage, pod: dict[str, Any], facts: contract.ModelFacts) -> None:
    """Report that the kubelet would give of a container that ended with these facts."""
    ended = {"exitCode": 0, "message": facts.model_dump_json(exclude_none=True)}
    status = {
        "name": contract.MODEL_FACTS_CONTAINER,
        "state": {"terminated": ended},
        "image": "none",
        "imageID": "none",
        "ready": True,
        "restartCount": 0,
    }
    path = f"/api/v1/namespaces/{stage.namespace}/pods/{pod['metadata']['name']}/status"
    stage.client.merge(path, {"status": {"initContainerStatuses": [status]}})


@pytest.mark.holds("capacity.md", "A change of `spec.traffic` rolls no replica")
def test_both_numbers_of_sequences_are_told_and_a_shared_prefix_rolls_nothing(stage: Stage) -> None:
    stage.node("a")
    gpu = {"resource": GPU, "products": [PRODUCT], "memoryGiB": 80}
    stage.create(replicas=1, accelerator=gpu, engine={"maxModelLen": 32768})
    stage.wait("Ready", "True")
    (pod,) = stage.pods()
    report_facts(stage, pod, contract.ModelFacts(config=LLAMA_70B, file_bytes=141_107_497_872))

    def sequences() -> tuple[float | None, float | None]:
        told = stage.get()["status"].get("capacity") or {}
        return told.get("sequencesPerReplica"), told.get("sequencesPerReplicaSharingPrefix")

    eventually(lambda: sequences() == (15.5, None))
    stage.change(traffic={"sharedPrefixTokens": 8192})
    eventually(lambda: sequences() == (15.5, 20.3))
    stage.change(traffic={"sharedPrefixTokens": None})
    eventually(lambda: sequences() == (15.5, None))
    assert [kept["metadata"]["uid"] for kept in stage.pods()] == [pod["metadata"]["uid"]]
    assert stage.get()["status"]["rollout"].get("outdatedReplicas", 0) == 0


@pytest.mark.holds("capacity.md", "What was read stays in the status when there is no replica")
def test_what_a_pod_says_of_its_model_is_kept_and_stops_an_update_that_cannot_fit(stage: Stage) -> None:
    stage.node("a")
    gpu = {"resource": GPU, "products": [PRODUCT], "memoryGiB": 80}
    stage.create(replicas=1, accelerator=gpu, engine={"maxModelLen": 32768})
    stage.wait("Ready", "True")
    (pod,) = stage.pods()
    report_facts(stage, pod, contract.ModelFacts(config=LLAMA_70B, file_bytes=141_107_497_872))

    def capacity() -> dict[str, Any]:
        found: dict[str, Any] = stage.get()["status"].get("capacity") or {}
        return found

    eventually(lambda: capacity().get("sequencesPerReplica"))
    assert capacity()["sequencesPerReplica"] == 15.5
    assert (capacity()["kvBytesPerToken"], capacity()["weightsGiB"]) == (327_680, 131.42)
    assert capacity()["startupSeconds"] == capacity()["startups"][0]["seconds"] >= 0

    stage.change(parallelism={"tensor": 1})
    message = stage.wait("SpecValid", "False", "ModelDoesNotFit")
    assert "69.8 GiB too little" in message
    assert message.endswith("it would fit with spec.parallelism.tensor 2")
    assert [kept["metadata"]["name"] for kept in stage.pods()] == [pod["metadata"]["name"]]
    assert stage.condition("Available")["status"] == "True"

    stage.change(parallelism={"tensor": 4})
    stage.wait("Ready", "True")


@pytest.mark.holds(
    "capacity.md",
    "Replicas that never served give their accelerators back, all but one, and keep their place in the queue",
)
def test_replicas_of_a_model_that_does_not_fit_give_what_they_hold_to_others_all_but_one(
    stage: Stage,
) -> None:
    """All of them got their pods, since nothing was known of the model, and none has served yet."""
    node = stage.mute_node("a", gpus=12, memory_gib=24)
    stage.create(replicas=3, engine={"maxModelLen": 8192})
    loading = eventually(lambda: pods if len(pods := bound(stage)) == 3 else None)
    stage.create("other", replicas=1, parallelism={"tensor": 8})
    stage.wait("Placed", "False", "InsufficientCapacity", "other")

    report_facts(stage, loading[1], contract.ModelFacts(config=LLAMA_70B, file_bytes=141_107_497_872))
    message = stage.wait("SpecValid", "False", "ModelDoesNotFit")
    assert message.endswith("it would fit with spec.parallelism.tensor 8")
    (left,) = eventually(lambda: pods if len(pods := stage.pods()) == 1 else None)
    for pod in loading:
        if pod["metadata"]["uid"] != left["metadata"]["uid"]:
            stage.end(pod)
    (taker,) = eventually(lambda: bound(stage, "other"))
    assert taker["spec"]["nodeName"] == node
    stage.wait("Placed", "False", "ModelDoesNotFit")
    assert [pod["metadata"]["uid"] for pod in stage.pods()] == [left["metadata"]["uid"]]
    stays = left["metadata"]["name"]
    words = f"ModelDoesNotFit: it releases its accelerators, and only {stays} still tries to start"
    given_up = {pod["metadata"]["name"] for pod in loading} - {left["metadata"]["name"]}
    (why,) = stage.told_because("GroupReleased")
    assert sorted(why.split("; ")) == sorted(f"{name}: {words}" for name in given_up)


def bound(stage: Stage, name: str = "llama") -> list[dict[str, Any]]:
    return [pod for pod in stage.pods(name) if pod["spec"].get("nodeName")]
