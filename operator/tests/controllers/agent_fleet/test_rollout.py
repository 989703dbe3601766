"""Fate of older revisions: a row for each reason, and what the revision in force adopts."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flotilla_operator.controllers.agent_fleet.rollout import (
    OlderReason,
    RevisionWorkers,
    Rollout,
    RolloutFacts,
    rollout_of,
    tasks_left,
)
from flotilla_operator.controllers.live_objects import live_object
from flotilla_operator.objects.resources import PODS
from flotilla_operator.workloads.agent_fleet.worker_pods import WorkerPod
from flotilla_runtime import contract
from tests.controllers.agent_fleet.test_plan import NOW

HOUR = 3600.0


def workers(revision: str, ready: int = 1, *pods: WorkerPod) -> RevisionWorkers:
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": f"w-{revision}",
            "namespace": "default",
            "uid": revision,
        },
        "spec": {"replicas": 1},
        "status": {"readyReplicas": ready},
    }
    return RevisionWorkers(revision=revision, deployment=live_object(deployment), pods=pods)


def pod(*, unready: float | None = None, hopeless: bool = False) -> WorkerPod:
    return WorkerPod(
        ref=PODS.ref("default", "w-1"),
        uid="uid",
        revision="old",
        unready_since=None if unready is None else NOW - timedelta(seconds=unready),
        trouble="w-1: container worker: back-off" if hopeless else "",
        hopeless=hopeless,
    )


def figures(**revisions: int) -> contract.FleetStatus:
    """So many tasks run of each revision."""
    return contract.FleetStatus(
        fleet="f",
        waiting=0,
        in_flight=sum(revisions.values()),
        revisions={name: contract.RevisionTasks(running=count) for name, count in revisions.items()},
    )


def facts(*others: RevisionWorkers, age: float = 60, **changes: Any) -> RolloutFacts:
    of_all = {one.revision: one for one in (workers("new"), *others)}
    since = {one.revision: NOW - timedelta(seconds=age) for one in others}
    given: dict[str, Any] = {
        "revision": "new",
        "workers": of_all,
        "since": since,
        "figures": figures(old=2),
        "deadline_seconds": HOUR,
        "gateways_are_new": True,
    }
    return RolloutFacts(**{**given, **changes})


def unready(*others: RevisionWorkers) -> dict[str, RevisionWorkers]:
    return {one.revision: one for one in (workers("new", 0), *others)}


OLD = workers("old")
FAILING = workers("old", 0, pod(unready=20, hopeless=True))
NONE = figures(new=1)
FIVE = tuple(workers(f"r{letter}") for letter in "abcde")
NEWER = {"old": NOW - timedelta(seconds=60), **{one.revision: NOW for one in FIVE}}


@pytest.mark.parametrize(
    ("seen", "reason", "goes", "adopted"),
    [
        pytest.param(facts(OLD), OlderReason.TASKS_LEFT, False, ("",), id="its tasks run on"),
        pytest.param(facts(OLD, figures=None), OlderReason.TASKS_LEFT, False, ("",), id="nobody says"),
        pytest.param(facts(OLD, figures=NONE), OlderReason.NONE_LEFT, True, ("", "old"), id="all have ended"),
        pytest.param(
            facts(OLD, figures=figures(new=1), gateways_are_new=False),
            OlderReason.TASKS_LEFT,
            False,
            ("",),
            id="a gateway may still give it",
        ),
        pytest.param(
            facts(OLD, age=HOUR), OlderReason.DEADLINE_PASSED, True, ("", "old"), id="the deadline has passed"
        ),
        pytest.param(
            facts(OLD, age=HOUR, workers=unready(OLD)),
            OlderReason.DEADLINE_PASSED,
            False,
            ("", "old"),
            id="it has, and nobody else is ready",
        ),
        pytest.param(
            facts(OLD, deadline_seconds=0), OlderReason.DEADLINE_PASSED, True, ("", "old"), id="no time"
        ),
        pytest.param(
            facts(FAILING),
            OlderReason.NEVER_READY,
            True,
            ("", "old"),
            id="a pod that cannot start",
        ),
        pytest.param(
            facts(FAILING, workers=unready(FAILING)),
            OlderReason.NEVER_READY,
            True,
            ("", "old"),
            id="it cannot, and nobody else is ready",
        ),
        pytest.param(
            facts(workers("old", 0, pod(unready=601))), OlderReason.NEVER_READY, True, ("", "old"), id="slow"
        ),
        pytest.param(
            facts(workers("old", 0, pod(unready=599))), OlderReason.TASKS_LEFT, False, ("",), id="not yet"
        ),
        pytest.param(
            facts(workers("old", 1, pod(unready=20, hopeless=True), pod())),
            OlderReason.TASKS_LEFT,
            False,
            ("",),
            id="another one of it runs",
        ),
        pytest.param(
            facts(OLD, *FIVE, since=NEWER, figures=figures(**dict.fromkeys(NEWER, 1))),
            OlderReason.TOO_MANY,
            True,
            ("", "old"),
            id="others are newer",
        ),
        pytest.param(
            facts(workers("")), OlderReason.BEFORE_REVISIONS, True, ("", "old"), id="of before revisions"
        ),
        pytest.param(
            facts(workers(""), workers=unready(workers(""))),
            OlderReason.BEFORE_REVISIONS,
            False,
            ("", "old"),
            id="of before, until somebody is ready",
        ),
    ],
)
def test_an_older_revision(
    seen: RolloutFacts, reason: OlderReason, goes: bool, adopted: tuple[str, ...]
) -> None:
    rollout = rollout_of(seen, NOW)
    one = rollout.older[-1]
    assert (one.reason, one.goes) == (reason, goes)
    assert rollout.adopted == adopted


@pytest.mark.holds(
    "tasks.md",
    "At most five older revisions have workers of their own, and each task has somebody who takes it",
)
def test_at_most_five_have_workers_of_their_own_the_newest_ones() -> None:
    names = [f"r{number}" for number in range(7)]
    seen = facts(*map(workers, names), figures=figures(**dict.fromkeys(names, 1)))
    since = {name: NOW - timedelta(seconds=60 * position) for position, name in enumerate(names)}
    rollout = rollout_of(
        RolloutFacts(**{**{name: getattr(seen, name) for name in seen.__slots__}, "since": since}), NOW
    )
    assert [one.revision for one in rollout.kept] == names[:5]
    assert [one.reason for one in rollout.older[5:]] == [OlderReason.TOO_MANY] * 2
    assert set(rollout.adopted) == {"", "r5", "r6"}


def test_tasks_of_a_revision_without_workers_are_adopted_and_stay_so_while_nobody_reports() -> None:
    seen = facts(OLD, figures=figures(old=1, gone=3))
    assert rollout_of(seen, NOW).adopted == ("", "gone")
    silent = facts(OLD, figures=None, adopted=("", "gone", "new"))
    assert rollout_of(silent, NOW).adopted == ("", "gone")


def test_what_a_gateway_says_is_believed_only_so_far() -> None:
    names = {f"r{chr(97 + number % 26)}{chr(97 + number // 26)}": 1 for number in range(400)}
    assert len(rollout_of(facts(figures=figures(**names)), NOW).adopted) == 201
    hostile = figures(**{"../../etc": 1, "a" * 17: 1, "A": 1})
    assert rollout_of(facts(figures=hostile), NOW).adopted == ("",)


def test_a_gateway_that_knows_no_revisions_says_nothing_of_them() -> None:
    before = contract.FleetStatus(fleet="f", waiting=1, in_flight=1)
    (one,) = rollout_of(facts(OLD, figures=before), NOW).older
    assert (one.reason, one.tasks) == (OlderReason.TASKS_LEFT, None)


def test_what_changes_the_rollout_is_what_is_left() -> None:
    rollout = Rollout(revision="new", older=rollout_of(facts(OLD), NOW).older)
    assert tasks_left(figures(old=2, new=7), rollout) == {"old": 2}


@pytest.mark.holds(
    "tasks.md",
    "At most five older revisions have workers of their own, and each task has somebody who takes it",
)
@given(
    st.dictionaries(st.sampled_from(["a", "b", "c", "new"]), st.integers(0, 3)),
    st.sets(st.sampled_from("abc")),
)
def test_every_task_has_somebody_who_takes_it(counts: dict[str, int], running: set[str]) -> None:
    rollout = rollout_of(facts(*map(workers, sorted(running)), figures=figures(**counts)), NOW)
    taken = {"new", *rollout.adopted, *(one.revision for one in rollout.kept)}
    assert {revision for revision, count in counts.items() if count} <= taken
    assert not set(rollout.adopted) & {"new", *(one.revision for one in rollout.kept)}
