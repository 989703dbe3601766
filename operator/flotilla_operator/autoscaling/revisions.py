"""Decides how many workers each revision of a fleet has. Pure.

Tasks of an older revision run on workers of their own until none is left. They get as many as they keep busy,
the oldest first, at most `maxReplicas` in sum. The current revision gets what remains. Each revision that has
a task keeps one worker even where that is one more than allowed: otherwise its tasks would wait until the
others have ended. Without figures nothing changes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from flotilla_operator.autoscaling.workers import (
    WorkerMemory,
    WorkerPolicy,
    WorkersDecision,
    WorkerSignals,
    WorkersReason,
    decide,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Older:
    """An older revision whose tasks have workers of their own; `tasks` is None while nobody reports."""

    revision: str
    current: int
    tasks: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RevisionsDecision:
    """How many workers the current revision has, why, and how many each older one.

    `executors` is the same of the pods that run their tools, where there are any.
    """

    revision: str
    policy: WorkerPolicy
    newest: WorkersDecision
    older: Mapping[str, int] = field(default_factory=dict)
    executors: "RevisionsDecision | None" = None

    @property
    def wanted(self) -> int:
        return self.newest.wanted + sum(self.older.values())

    @property
    def reason(self) -> WorkersReason:
        return self.newest.reason

    @property
    def by_revision(self) -> tuple[tuple[str, int], ...]:
        return ((self.revision, self.newest.wanted), *sorted(self.older.items()))

    @property
    def shares(self) -> tuple[tuple[tuple[str, int], ...], ...]:
        return (self.by_revision, () if self.executors is None else self.executors.by_revision)

    @property
    def message(self) -> str:
        return self.newest.message


def decide_revisions(
    signals: WorkerSignals | None,
    policy: WorkerPolicy,
    memory: WorkerMemory,
    *,
    revision: str,
    current: int,
    older: Sequence[Older] = (),
    now: datetime,
) -> tuple[RevisionsDecision, WorkerMemory]:
    """The numbers, and what to remember.

    `signals` are of the current revision and what it has adopted; `older` begins with the oldest.
    """
    has_tasks = signals is not None and signals.waiting + signals.in_flight > 0
    left = policy.max_replicas - sum(map(_first, older)) - has_tasks
    shares: dict[str, int] = {}
    for one in older:
        shares[one.revision] = _share(one, policy, left)
        left -= shares[one.revision] - _first(one)
    most = max(0, left) + has_tasks
    if signals is None:
        most = max(most, min(current, policy.max_replicas))
    bounds = replace(policy, min_replicas=min(policy.min_replicas, most), max_replicas=most)
    newest, kept = decide(signals, bounds, memory, current=current, now=now)
    return RevisionsDecision(revision=revision, policy=policy, newest=newest, older=shares), kept


def _first(one: Older) -> int:
    """Return 1 while the revision has tasks, so that one worker stays for them, and else 0."""
    return 1 if one.tasks else 0


def _share(one: Older, policy: WorkerPolicy, left: int) -> int:
    """Return an older revision's workers, with `left` remaining beside the first worker of each."""
    if one.tasks is None:
        return one.current
    busy = -(-one.tasks // policy.concurrency)
    return min(busy, _first(one) + max(0, left))
