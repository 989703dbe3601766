"""A set waits on a real API server: for room, a secret, a claim, a quota. Each is said in a
condition, and the set goes on when it is there.
"""

import pytest

from tests.controllers.model_replica_set.stage import Stage
from tests.support.waiting import eventually

pytestmark = [pytest.mark.apiserver, pytest.mark.timeout(600)]


@pytest.mark.holds("groups.md", "A pod that the API server refuses counts, with its words in `Placed`")
def test_a_quota_that_refuses_a_pod_is_said_and_survived(stage: Stage) -> None:
    stage.node("a")
    path = stage.quota("none", gpus=0)
    stage.create(replicas=1)
    message = stage.wait("Ready", "False", "BackingOff")
    assert "exceeded quota" in message
    stage.tells("QuotaExceeded")
    stage.client.delete(path)
    stage.wait("Ready", "True")


@pytest.mark.holds(
    "install.md",
    "Only `modelCache.mode: Node` needs a privileged namespace; root with the capability CHOWN "
    "alone makes the folder",
)
def test_a_node_cache_in_a_restricted_namespace_says_what_the_namespace_must_allow(stage: Stage) -> None:
    stage.node("a")
    stage.create(replicas=1, modelCache={"mode": "Node", "path": "/srv/models"})
    message = stage.wait("Ready", "False", "BackingOff")
    assert "hostPath" in message


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
