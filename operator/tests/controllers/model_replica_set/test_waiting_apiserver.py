"""What a set waits for on a real API server: room, a secret, a claim, a quota. Each is said in a
condition, and the set goes on when it is there.
"""

import time

import pytest

from tests.controllers.model_replica_set.stage import Stage
from tests.support.waiting import eventually

pytestmark = [pytest.mark.apiserver, pytest.mark.timeout(600)]

STILL_SO_SECONDS = 1.0  # the operator looks again and again meanwhile, and must change nothing


def test_what_does_not_fit_says_so_and_is_placed_when_room_appears(stage: Stage) -> None:
    other, small = stage.node("other", product="A100"), stage.node("small")
    stage.foreign_pod("training", small, gpus=6)
    stage.create(replicas=1, placement={})
    message = stage.wait("Placed", "False", "InsufficientCapacity")
    assert "1 InsufficientGPUs" in message
    assert "1 ProductMismatch" in message
    assert stage.pods() == []
    (group,) = stage.get()["status"]["groups"]
    assert group["phase"] == "Waiting"
    assert stage.condition("Reconciling")["status"] == "True"

    stage.client.delete(f"/api/v1/namespaces/{stage.namespace}/pods/training")
    stage.wait("Ready", "True")
    (pod,) = stage.pods()
    assert pod["metadata"]["name"] == group["name"], "a group keeps its name while it waits"
    assert pod["spec"]["nodeName"] == small != other


def test_a_set_no_node_can_hold_is_for_a_person(stage: Stage) -> None:
    stage.node("a")
    stage.create(parallelism={"tensor": 16})
    stage.wait("Placed", "False", "NoNodeCanFit")
    assert stage.condition("Stalled")["status"] == "True"
    stage.change(parallelism={"tensor": 4})
    stage.wait("Ready", "True")


def test_two_sets_at_once_get_what_there_is_and_nothing_is_promised_twice(stage: Stage) -> None:
    stage.node("a")
    stage.node("b")
    for name in ("one", "two", "three"):
        stage.create(name)
    names = ("one", "two", "three")

    def bound() -> bool:
        pods = [pod for name in names for pod in stage.pods(name)]
        return len(pods) == 4 and all(pod["spec"].get("nodeName") for pod in pods)

    def two_wait() -> bool:
        statuses = [stage.get(name).get("status") or {} for name in names]
        phases = [group["phase"] for status in statuses for group in status.get("groups", [])]
        return len(phases) == 6 and phases.count("Waiting") == 2

    eventually(bound)
    eventually(two_wait)
    time.sleep(STILL_SO_SECONDS)
    assert bound()
    assert two_wait()
    assert "GroupReleased" not in stage.events()


def test_a_quota_that_refuses_a_pod_is_said_and_survived(stage: Stage) -> None:
    stage.node("a")
    path = stage.quota("none", gpus=0)
    stage.create(replicas=1)
    message = stage.wait("Ready", "False", "BackingOff")
    assert "exceeded quota" in message
    stage.tells("QuotaExceeded")
    stage.client.delete(path)
    stage.wait("Ready", "True")


def test_a_node_cache_in_a_restricted_namespace_says_what_the_namespace_must_allow(stage: Stage) -> None:
    stage.node("a")
    stage.create(replicas=1, modelCache={"mode": "Node"})
    message = stage.wait("Ready", "False", "BackingOff")
    assert "hostPath" in message


def test_a_secret_that_is_missing_and_then_appears(stage: Stage) -> None:
    stage.node("a")
    model = {"name": "llama", "source": "hf://meta/llama", "tokenSecretRef": {"name": "hf"}}
    stage.create(replicas=1, model=model)
    message = stage.wait("SpecValid", "False", "SecretMissing")
    assert "spec.model.tokenSecretRef" in message
    assert stage.pods() == []
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hf"}, "stringData": {"token": "x"}}
    stage.client.create(f"/api/v1/namespaces/{stage.namespace}/secrets", secret)
    stage.wait("Ready", "True")


def test_a_claim_that_is_missing_and_then_appears(stage: Stage) -> None:
    stage.node("a")
    stage.create(replicas=1, model={"name": "llama", "source": "pvc://models/llama"})
    stage.wait("SpecValid", "False", "ClaimMissing")
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "models"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    stage.client.create(f"/api/v1/namespaces/{stage.namespace}/persistentvolumeclaims", claim)
    stage.wait("SpecValid", "True")
    eventually(lambda: stage.pods())
