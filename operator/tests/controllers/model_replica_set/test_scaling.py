"""Facts of pods and routers on which the decision about zero rests."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from flotilla_operator.api.model_replica_set import ModelReplicaSet
from flotilla_operator.autoscaling.from_zero import ZeroReason, ZeroSignals
from flotilla_operator.replicas.facts import RouterLoad, SetFacts
from flotilla_operator.replicas.group import Phase, ReplicaGroup
from flotilla_operator.replicas.intent import IntentReason, in_force
from flotilla_operator.replicas.scale import all_ready_since, scale, zero_signals
from tests.builders.groups import member
from tests.builders.model_replica_set import model_replica_set
from tests.builders.pods import NOW
from tests.controllers.model_replica_set.test_plan import decided_on, seen_set

SLEEPER = {"minReplicas": 0, "maxReplicas": 1, "scaleToZeroAfterSeconds": 60}


def ready(seconds: float | None, *, deleting: bool = False) -> ReplicaGroup:
    """A group that has been ready for so long, or that loads."""
    since = None if seconds is None else NOW - timedelta(seconds=seconds)
    whole = member("llama-a", Phase.LOADING if since is None else Phase.READY)
    return replace(
        whole, members=tuple(replace(one, ready_since=since, leaves=deleting) for one in whole.members)
    )


def facts(manifest: dict[str, Any], *groups: ReplicaGroup) -> SetFacts:
    return replace(seen_set(manifest), groups=groups)


@pytest.mark.parametrize(
    ("groups", "seconds"),
    [
        pytest.param([], None, id="no replica"),
        pytest.param([ready(50), ready(20)], 20, id="the youngest counts"),
        pytest.param([ready(50), ready(None)], None, id="one that loads"),
        pytest.param([ready(50), ready(None, deleting=True)], 50, id="one that leaves does not count"),
    ],
)
def test_how_long_all_have_been_ready(groups: list[ReplicaGroup], seconds: float | None) -> None:
    since = None if seconds is None else NOW - timedelta(seconds=seconds)
    assert all_ready_since(groups) == since


def test_what_waits_and_what_runs_are_requests() -> None:
    ready_since = NOW - timedelta(seconds=7)
    found = zero_signals(RouterLoad(waiting=2, running=1, idle_seconds=0.5), ready_since, NOW)
    assert found == ZeroSignals(requests=3, idle_seconds=0.5, ready_seconds=7)
    assert zero_signals(RouterLoad(), None, NOW) is None


def test_a_set_without_autoscaling_keeps_its_own_number() -> None:
    mine = facts(model_replica_set(replicas=3))
    assert scale(mine, None) is None
    assert (in_force(mine).replicas, in_force(mine).intent.why) == (3, frozenset({IntentReason.AS_ASKED}))


@pytest.mark.holds("router.md", "One that is never ready goes after `progressDeadlineSeconds`")
def test_a_replica_that_never_becomes_ready_goes_at_the_deadline_of_an_update() -> None:
    spec: dict[str, Any] = {"autoscaling": SLEEPER, "update": {"progressDeadlineSeconds": 600}}
    mine = facts(model_replica_set(status={"desiredReplicas": 1}, **spec), ready(None))
    for idle, wanted in ((599.0, 1), (600.0, 0)):
        decision = scale(mine, decided_on(mine, RouterLoad(waiting=0, running=0, idle_seconds=idle)))
        assert decision is not None
        assert decision.wanted == wanted


@pytest.mark.holds("decisions/0015-steering-loop.md", "A restart of the loop scales nothing")
def test_what_was_decided_last_stays_until_something_else_is_decided() -> None:
    mine = facts(model_replica_set(replicas=3, autoscaling=SLEEPER, status={"desiredReplicas": 1}))
    decision = scale(mine, None)
    assert decision is not None
    assert (decision.current, decision.wanted, decision.reason) == (1, 1, ZeroReason.NO_FIGURES)
    assert (in_force(mine).replicas, in_force(mine).intent.why) == (1, frozenset({IntentReason.SCALED}))
    held = scale(mine, decided_on(mine, RouterLoad(waiting=1, running=0, idle_seconds=0.0)))
    assert in_force(mine, held).replicas == 1
    assert in_force(facts(model_replica_set(replicas=3, autoscaling=SLEEPER))).replicas == 0


def test_the_users_spec_is_not_changed() -> None:
    manifest = model_replica_set(replicas=3, autoscaling=SLEEPER, status={"desiredReplicas": 1})
    assert in_force(facts(manifest)).spec == ModelReplicaSet.model_validate(manifest).spec


@pytest.mark.holds(
    "decisions/0015-steering-loop.md",
    "A decision is made again when the spec or the number in force has changed",
)
def test_a_decision_is_made_again_when_the_spec_or_the_number_in_force_has_changed_since() -> None:
    """From the same signals: nothing that routers said is forgotten, and nothing is made up."""
    before = facts(model_replica_set(autoscaling=SLEEPER, status={"desiredReplicas": 0}))
    held = decided_on(before, RouterLoad(waiting=1, running=0, idle_seconds=0.0))
    assert held is not None
    assert scale(before, held) is held
    raised = facts(model_replica_set(autoscaling={**SLEEPER, "minReplicas": 1, "maxReplicas": 2}))
    again = scale(raised, decided_on(before, RouterLoad(waiting=0, running=0, idle_seconds=900.0)))
    assert again is not None
    assert (again.wanted, again.reason) == (1, ZeroReason.NO_REQUEST)
    in_force_now = facts(model_replica_set(autoscaling=SLEEPER, status={"desiredReplicas": 1}))
    taken = scale(in_force_now, held)
    assert taken is not None
    assert (taken.current, taken.wanted, taken.reason) == (1, 1, ZeroReason.BUSY)
