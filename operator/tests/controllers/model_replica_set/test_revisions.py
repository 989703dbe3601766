"""What keeps an update's clock from running; the judgement itself: test_rollout."""

from typing import Any

import pytest

from flotilla_operator.controllers.model_replica_set.plan import plan
from tests.builders.model_replica_set import gpu_set, said
from tests.builders.pods import NOW, time_text
from tests.controllers.model_replica_set.test_plan import member, observed, revision_of_set

DEADLINE_SECONDS = 1800


def updating(placed: str, failed: str | None) -> dict[str, Any]:
    """A set whose update has not got on for its deadline, with what its last plan said of room."""
    manifest = gpu_set(replicas=1)
    before = {
        "revision": revision_of_set(manifest),
        "goodRevision": "old",
        "outdatedReplicas": 1,
        "progressTime": time_text(DEADLINE_SECONDS),
    }
    held = {"failures": 4, "failedTime": time_text(10), "untilTime": time_text(-30), "reason": failed}
    status = {
        "observedGeneration": 1,
        "rollout": before,
        "conditions": [said("Placed", placed)],
        "backoff": held if failed else None,
    }
    return {**manifest, "status": status}


@pytest.mark.parametrize(
    ("placed", "failed", "fails"),
    [
        pytest.param("InsufficientCapacity", None, False, id="no node has room"),
        pytest.param("NodesRequested", None, False, id="nodes are on their way"),
        pytest.param("NodeProvisioningTimedOut", None, False, id="the node pool is at its limit"),
        pytest.param("Unschedulable", None, False, id="the scheduler finds none"),
        pytest.param("QuotaExceeded", None, False, id="a quota has just refused its pods"),
        pytest.param("BackingOff", "QuotaExceeded", False, id="it backs off since a quota refused them"),
        pytest.param("BackingOff", "Forbidden", True, id="pod security refuses them"),
        pytest.param("BackingOff", "GroupFailed", True, id="its replicas crash"),
        pytest.param("NoNodeCanFit", None, True, id="no node will ever hold it"),
        pytest.param("AllPlaced", None, True, id="it has room and does not get ready"),
    ],
)
def test_time_in_which_an_update_waits_for_room_does_not_count(
    placed: str, failed: str | None, fails: bool
) -> None:
    manifest = updating(placed, failed)
    pods = [member(manifest, "llama-old", node="a", ready=True, revision="old")]
    done = plan(observed(manifest, pods), NOW)
    assert done.status is not None
    assert bool(done.status["rollout"]["failedRevision"]) == fails
