"""A set's memory survives being written and read, and a part that is not valid is forgotten alone."""

from datetime import timedelta
from typing import Any

import pytest

from flotilla_operator.api.parts import MESSAGE_LIMIT
from flotilla_operator.controllers.model_replica_set.observe.parsed_sets import parsed
from flotilla_operator.controllers.model_replica_set.remembered.failures import backoff_status
from flotilla_operator.controllers.model_replica_set.remembered.moves import attempts_status, rebalance_status
from flotilla_operator.controllers.model_replica_set.remembered.remembered import remembered, startups_status
from flotilla_operator.objects.refused_writes import WriteReason
from flotilla_operator.replicas.backoff import Backoff
from flotilla_operator.replicas.group import Phase
from flotilla_operator.replicas.memory import Remembered, Startup
from flotilla_operator.replicas.moves import Move, MovePhase, Rebalance, RebalancePhase
from flotilla_operator.replicas.provisioning import Attempts
from tests.builders.model_replica_set import gpu_set
from tests.builders.pods import NOW

# As a release before this codec wrote it.
OF_BEFORE = {
    "observedGeneration": 1,
    "desiredReplicas": 3,
    "groups": [
        {"name": "llama-a", "phase": "Ready", "nodes": ["a"], "sinceTime": "2026-05-01T11:00:00Z"},
        {"name": "llama-b", "phase": "Waiting", "nodes": [], "sinceTime": "2026-05-01T11:30:00Z"},
    ],
    "moreWaiting": [{"sinceTime": "2026-05-01T11:31:00Z", "replicas": 2}],
    "backoff": {
        "failures": 2,
        "failedTime": "2026-05-01T11:59:00Z",
        "untilTime": "2026-05-01T11:59:10Z",
        "reason": "GroupFailed",
        "message": "llama-x: pod llama-x: container engine ended with code 1: NCCL error",
    },
    "capacity": {"startupSeconds": 61.5, "startups": []},
    "conditions": [
        {"type": "Placed", "status": "False", "reason": "QuotaExceeded", "message": "pods: used up"}
    ],
}


def of_status(status: dict[str, Any], **metadata: Any) -> Remembered:
    manifest = gpu_set()
    return remembered({**manifest, "metadata": {**manifest["metadata"], **metadata}, "status": status})


def test_what_a_release_before_wrote_is_understood() -> None:
    held = of_status(OF_BEFORE)
    assert (held.wanted, held.startup_seconds) == (3, 61.5)
    assert {name: listed.phase for name, listed in held.listed.items()} == {
        "llama-a": Phase.READY,
        "llama-b": Phase.WAITING,
    }
    assert len(held.more_waiting) == 2
    assert held.backoff is not None
    assert (held.backoff.group, held.backoff.failures) == ("llama-x", 2)
    assert held.backoff.why == "pod llama-x: container engine ended with code 1: NCCL error"
    assert held.refusal is not None
    assert (held.refusal.reason, held.refused) == (WriteReason.QUOTA_EXCEEDED, True)


def test_a_refusal_is_forgotten_once_the_spec_has_changed() -> None:
    held = of_status(OF_BEFORE, generation=2)
    assert (held.refusal, held.of_this_spec) == (None, False)
    assert held.backoff is not None, "a group of the older spec has failed all the same"


@pytest.mark.parametrize("part", ["groups", "backoff", "rollout", "capacity", "moreWaiting"])
def test_a_part_that_is_not_valid_is_forgotten_alone(part: str) -> None:
    broken = (
        [{"what": 1}]
        if part in ("groups", "moreWaiting")
        else {"failures": "many", "startups": 1, "answers": 1}
    )
    held, whole = of_status({**OF_BEFORE, part: broken}), of_status(OF_BEFORE)
    fields = {
        "groups": "listed",
        "backoff": "backoff",
        "rollout": "rollout",
        "capacity": "startup_seconds",
        "moreWaiting": "more_waiting",
    }
    for name, field in fields.items():
        wanted = getattr(Remembered(), field) if name == part else getattr(whole, field)
        assert getattr(held, field) == wanted


def test_what_is_written_is_read_again() -> None:
    backoff = Backoff(failures=3, failed_at=NOW, group="llama-x", why="gone: for good", reason="GroupFailed")
    move = Move(group="llama-a", from_nodes=("a",), to_nodes=("b",), gain=0.25, phase=MovePhase.MOVING)
    rebalance = Rebalance(
        asked="apply", phase=RebalancePhase.MOVING, message="m", planned_at=NOW, moves=(move,)
    )
    attempts = Attempts(timeouts=2, last_timeout="no node", retry_at=NOW + timedelta(hours=1))
    startup = Startup(group="llama-a", revision="r", ready_at=NOW, seconds=12.5)
    placement = {
        **rebalance_status(rebalance),
        "nodeProvisioning": attempts_status(attempts, placeholders=0, bound=0),
    }
    status = {
        "observedGeneration": 1,
        "backoff": backoff_status(backoff),
        "placement": placement,
        "capacity": {"startups": startups_status([startup])},
    }
    held = of_status(status, annotations={"flotilla.dev/rebalance": "apply"})
    assert (held.backoff, held.rebalance, held.attempts) == (backoff, rebalance, attempts)
    assert held.startups == (startup,)


def test_a_long_reason_keeps_the_name_of_its_group() -> None:
    backoff = Backoff(failures=1, failed_at=NOW, group="llama-x", why="x" * 4096)
    held = of_status({"observedGeneration": 1, "backoff": backoff_status(backoff)}).backoff
    assert held is not None
    assert (held.group, len(held.message)) == ("llama-x", MESSAGE_LIMIT)


def test_a_refusal_in_the_backoff_names_no_group() -> None:
    refused = Backoff(failures=1, failed_at=NOW, why="pods/llama-x: quota", reason="QuotaExceeded")
    held = of_status({"observedGeneration": 1, "backoff": backoff_status(refused)}).backoff
    assert held == refused


def test_a_move_in_a_phase_of_another_release_is_forgotten() -> None:
    placement = {
        "rebalance": {"asked": "apply", "phase": "Moving"},
        "moves": [{"group": "a", "phase": "Dreaming"}, {"group": "b", "phase": "Moving"}],
    }
    held = of_status({"placement": placement}, annotations={"flotilla.dev/rebalance": "apply"})
    assert [move.group for move in held.rebalance.moves] == ["b"]


def test_a_status_that_is_not_valid_is_no_error_of_the_spec() -> None:
    manifest = {**gpu_set(), "status": {**OF_BEFORE, "capacity": {"startups": 1}}}
    found = parsed(manifest)
    assert found.memory.startup_seconds is None
    assert found.memory.wanted == 3
