"""The revision in force for a set, and the reason."""

from dataclasses import replace
from typing import Any

import pytest

from flotilla_operator.autoscaling.from_zero import ZeroDecision, ZeroPolicy, ZeroReason
from flotilla_operator.replicas.intent import IntentReason, in_force
from tests.builders.model_replica_set import model_replica_set
from tests.controllers.model_replica_set.test_plan import seen_set

SCALED: dict[str, Any] = {"autoscaling": {"minReplicas": 0, "maxReplicas": 4}}
POLICY = ZeroPolicy(
    min_replicas=0, max_replicas=4, scale_to_zero_after_seconds=60, start_deadline_seconds=600
)
TWO = ZeroDecision(current=1, wanted=2, reason=ZeroReason.BUSY, signals=None, policy=POLICY)


@pytest.mark.parametrize(
    ("spec", "failed", "scaled", "replicas", "why"),
    [
        pytest.param({}, False, None, 3, IntentReason.AS_ASKED, id="the user's spec"),
        pytest.param(SCALED, False, TWO, 2, IntentReason.SCALED, id="what autoscaling decides"),
        pytest.param(SCALED, False, None, 1, IntentReason.SCALED, id="what autoscaling decided last"),
        pytest.param({}, True, None, 3, IntentReason.ROLLED_BACK, id="the last good revision"),
    ],
)
def test_what_is_in_force(
    spec: dict[str, Any], failed: bool, scaled: ZeroDecision | None, replicas: int, why: IntentReason
) -> None:
    status = {"desiredReplicas": 1, "rollout": {"goodRevision": "good", "failedRevision": "bad"}}
    facts = replace(seen_set(model_replica_set(replicas=3, status=status, **spec)), newest_failed=failed)
    found = in_force(facts, scaled)
    assert (found.replicas, found.intent.why) == (replicas, frozenset({why}))
    assert found.spec.replicas == 3, "the user's spec is not changed"
    assert found.revision == ("good" if failed else facts.newest.revision)
    assert found.newest_revision == ("bad" if failed else facts.newest.revision)


def test_a_failed_revision_stays_until_the_api_server_has_given_leave() -> None:
    rollout = {"goodRevision": "good", "failedRevision": "bad", "rollbackPending": True}
    facts = replace(seen_set(model_replica_set(status={"rollout": rollout})), newest_failed=True)
    assert in_force(facts).intent.why == frozenset({IntentReason.AS_ASKED})
    assert in_force(facts).revision == facts.newest.revision


def test_both_can_be_so_at_once() -> None:
    status = {"desiredReplicas": 1, "rollout": {"goodRevision": "good", "failedRevision": "bad"}}
    facts = replace(seen_set(model_replica_set(replicas=3, status=status, **SCALED)), newest_failed=True)
    assert in_force(facts).intent.why == frozenset({IntentReason.SCALED, IntentReason.ROLLED_BACK})


def test_a_failed_revision_without_a_way_back_stays_in_force() -> None:
    facts = replace(seen_set(model_replica_set(replicas=3)), newest_failed=True)
    assert in_force(facts).revision == facts.newest.revision
    assert in_force(facts).intent.why == frozenset({IntentReason.AS_ASKED})
