"""Decide about the workers of older revisions. Pure.

Tasks keep the revision of their submission. Those of an older one keep workers of their own until none is
left, or the deadline has passed. Then the workers of the revision in force take them over (they adopt the
revision), and the older workers go once one of these is ready. Where no worker of the older revision becomes
ready, they take over at once.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from flotilla_operator.api.fleet_status import OLDER_REVISIONS_SHOWN
from flotilla_operator.controllers.live_objects import LiveObject
from flotilla_operator.workloads.agent_fleet.worker_pods import WorkerPod, never_ready
from flotilla_runtime import contract

OLDER_REVISIONS_KEPT: Final = OLDER_REVISIONS_SHOWN  # with workers of their own
BEFORE_REVISIONS: Final = ""
REVISION: Final = re.compile(r"[a-z2-7]{1,16}")
REVISIONS_KNOWN: Final = 200  # of those that a gateway may name


class OlderReason(StrEnum):
    """Why an older revision has workers of its own, or has them no more."""

    TASKS_LEFT = "TasksLeft"
    NONE_LEFT = "NoneLeft"
    DEADLINE_PASSED = "DeadlinePassed"
    NEVER_READY = "NeverReady"
    TOO_MANY = "TooMany"
    BEFORE_REVISIONS = "BeforeRevisions"  # workers of a release that knew none: they take any task


@dataclass(frozen=True, slots=True, kw_only=True)
class RevisionWorkers:
    """The workers of one revision: their Deployment, its configuration if that is there, and its pods."""

    revision: str
    deployment: LiveObject
    config_map: LiveObject | None = None
    pods: tuple[WorkerPod, ...] = ()

    @property
    def has_ready(self) -> bool:
        return self.deployment.ready_replicas > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class OlderRevision:
    """Decision about one older revision.

    `tasks` are those that are left, None while nobody says. With `goes` its workers are deleted.
    """

    workers: RevisionWorkers
    reason: OlderReason
    since: datetime
    until: datetime
    tasks: int | None
    goes: bool
    message: str = ""

    @property
    def revision(self) -> str:
        return self.workers.revision

    @property
    def is_kept(self) -> bool:
        """Whether its tasks have workers of their own."""
        return self.reason is OlderReason.TASKS_LEFT

    @property
    def shown_as(self) -> str:
        """Its name in the status, where a name cannot be empty."""
        return shown(self.revision)


def shown(revision: str) -> str:
    """A revision's name in the status."""
    return revision or OlderReason.BEFORE_REVISIONS


def named(shown_as: str) -> str:
    """The revision that the status shows by this name."""
    return BEFORE_REVISIONS if shown_as == OlderReason.BEFORE_REVISIONS else shown_as


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """The revision in force, the older ones, the newest first, and those whose tasks it has adopted."""

    revision: str
    older: tuple[OlderRevision, ...] = ()
    adopted: tuple[str, ...] = (BEFORE_REVISIONS,)

    @property
    def kept(self) -> tuple[OlderRevision, ...]:
        return tuple(one for one in self.older if one.is_kept)


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutFacts:
    """Input of the rollout's decision.

    `workers` are those of all revisions, `since` says when each older one became that (absent: now).
    `gateways_are_new` says that no gateway gives a task an older revision any more. `adopted` is what the
    workers were last told to adopt.
    """

    revision: str
    workers: Mapping[str, RevisionWorkers]
    since: Mapping[str, datetime]
    figures: contract.FleetStatus | None
    deadline_seconds: float
    gateways_are_new: bool
    adopted: Sequence[str] = ()


def rollout_of(facts: RolloutFacts, now: datetime) -> Rollout:
    """Decide about the older revisions, and which of them the revision in force adopts."""
    others = [one for revision, one in facts.workers.items() if revision != facts.revision]
    newest_first = sorted(
        others, key=lambda one: (facts.since.get(one.revision, now), one.revision), reverse=True
    )
    older = tuple(_older(one, position, facts, now) for position, one in enumerate(newest_first))
    own = {facts.revision, *(one.revision for one in older if one.is_kept)}
    given_up = {one.revision for one in older if not one.is_kept}
    known = facts.adopted if facts.figures is None else _with_tasks(facts.figures)
    adopted = ({BEFORE_REVISIONS} | given_up | set(known)) - own
    return Rollout(revision=facts.revision, older=older, adopted=tuple(sorted(adopted)))


def tasks_of(figures: contract.FleetStatus | None, revision: str) -> contract.RevisionTasks | None:
    """The tasks of a revision; None while no gateway reports them, or only one that knows no revisions."""
    if figures is None or (
        not figures.revisions and figures.waiting + figures.in_flight + figures.suspended > 0
    ):
        return None
    return figures.revisions.get(revision, contract.RevisionTasks())


def tasks_left(figures: contract.FleetStatus, rollout: Rollout) -> dict[str, int]:
    """How many tasks other revisions than the one in force have; what changes it changes the rollout."""
    named = {*_with_tasks(figures), *(one.revision for one in rollout.older)} - {rollout.revision}
    found = {revision: tasks_of(figures, revision) for revision in sorted(named)}
    return {revision: all_of(tasks) for revision, tasks in found.items() if tasks is not None}


def all_of(tasks: contract.RevisionTasks) -> int:
    """The tasks that have not ended."""
    return tasks.waiting + tasks.running + tasks.suspended


def _older(one: RevisionWorkers, position: int, facts: RolloutFacts, now: datetime) -> OlderRevision:
    since = facts.since.get(one.revision, now)
    until = since + timedelta(seconds=facts.deadline_seconds)
    found = tasks_of(facts.figures, one.revision)
    left = None if found is None else all_of(found)
    reason, message = _reason(one, position, left, until, facts, now)
    newest = facts.workers.get(facts.revision)
    match reason:
        case OlderReason.TASKS_LEFT:
            goes = False
        case OlderReason.NONE_LEFT:
            goes = True
        case _:
            goes = not one.has_ready or (newest is not None and newest.has_ready)
    return OlderRevision(
        workers=one, reason=reason, since=since, until=until, tasks=left, goes=goes, message=message
    )


def _reason(
    one: RevisionWorkers, position: int, left: int | None, until: datetime, facts: RolloutFacts, now: datetime
) -> tuple[OlderReason, str]:
    if one.revision == BEFORE_REVISIONS:
        return OlderReason.BEFORE_REVISIONS, ""
    if left == 0 and facts.gateways_are_new:
        return OlderReason.NONE_LEFT, ""
    if now >= until:
        return OlderReason.DEADLINE_PASSED, ""
    if position >= OLDER_REVISIONS_KEPT:
        return OlderReason.TOO_MANY, ""
    if (why := never_ready(one.pods, now)) is not None:
        return OlderReason.NEVER_READY, why
    return OlderReason.TASKS_LEFT, ""


def _with_tasks(figures: contract.FleetStatus) -> list[str]:
    """The revisions that a gateway names; what it says is not believed beyond their form and number."""
    revisions: Mapping[str, contract.RevisionTasks] = figures.revisions
    return [
        revision
        for revision, tasks in sorted(revisions.items())
        if all_of(tasks) > 0 and REVISION.fullmatch(revision)
    ][:REVISIONS_KNOWN]
