"""Follows what pods report between the reconciles: one loop for the objects of all kinds.

A reconcile hands over a `Steering`: a value that knows the object's pods, its policy and the shown figures.
After each answer of a pod the loop makes one pure call, (answers, policy, memory, now) → (decision, memory).
It wakes the object when the decision's number or reason changes, and when the status would show other
figures; those wake it once per interval at most, but at once when they become known or unknown. The next
reconcile reads the last decision as a fact.

What is remembered here is lost in a restart; the first answers after it decide anew.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from pydantic import BaseModel

from flotilla_operator.cluster.queue import KeyedQueue
from flotilla_operator.objects.resources import Key
from flotilla_operator.telemetry.measurements import Answered, Measurements, Target


class ScaleDecision(Protocol):
    """A decision on how many there are to be."""

    @property
    def wanted(self) -> int:
        """How many."""

    @property
    def reason(self) -> str:
        """Return the reason for the decision."""

    @property
    def shares(self) -> Hashable:
        """How the number is divided; what changes it wakes the object like another number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Steered:
    """Result of the latest answers.

    `decision` is None where nothing is scaled. `memory` is given to the next call. `figures` are those that
    the status would show; they are only compared.
    """

    decision: ScaleDecision | None = None
    memory: Any = None
    figures: Any = None

    @property
    def number_and_reason(self) -> tuple[Hashable, ...] | None:
        return number_and_reason(self.decision)


class Steering(Protocol):
    """How one object follows its pods until its next reconcile. A value, with one pure call."""

    @property
    def uid(self) -> str:
        """The object's UID: an object of the same name that is made anew inherits nothing."""

    @property
    def targets(self) -> Sequence[Target]:
        """The pods to ask."""

    @property
    def report(self) -> type[BaseModel]:
        """Return the model of the pods' answers."""

    @property
    def taken(self) -> ScaleDecision | None:
        """The decision that the reconcile went by."""

    def step(self, answers: Sequence[Answered[Any] | None], memory: Any, now: datetime) -> Steered:
        """Return the result of these answers, one for each target; None stands for an unknown one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FiguresOnly:
    """Scales nothing; the status shows what one pod reports. `told` picks it from the answers."""

    uid: str
    targets: Sequence[Target]
    report: type[BaseModel]
    told: Callable[[Sequence[Answered[Any] | None]], Any] = field(default=lambda _answers: None)

    @property
    def taken(self) -> None:
        return None

    def step(self, answers: Sequence[Answered[Any] | None], memory: Any, now: datetime) -> Steered:
        """The figures."""
        return Steered(figures=self.told(answers))


class Decisions(Protocol):
    """The decisions that reconciles read as facts."""

    def last(self, uid: str) -> Any | None:
        """The last decision for the object with this UID; None before the first."""


@dataclass(slots=True)
class Followed:
    """One object: what it is steered by, what came of it, and when its figures were told last."""

    steering: Steering
    steered: Steered
    figures_told_at: float
    figures_are_due: bool = False


class SteeringLoop:
    """Holds what each object is steered by."""

    def __init__(
        self,
        measurements: Measurements,
        queue: KeyedQueue,
        *,
        figures_interval_seconds: float,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
    ) -> None:
        self._measurements = measurements
        self._queue = queue
        self._figures_interval_seconds = figures_interval_seconds
        self._now = now
        self._monotonic = monotonic
        self._followed: dict[Key, Followed] = {}
        self._last: dict[str, ScaleDecision] = {}

    def last(self, uid: str) -> ScaleDecision | None:
        """The last decision for this object."""
        return self._last.get(uid)

    def follow(self, key: Key, steering: Steering) -> None:
        """Steer by this from now on. If it decides otherwise than the reconcile did, the key is woken."""
        held = self._followed.get(key)
        if held is not None and held.steering.uid != steering.uid:
            self.forget(key)
            held = None
        steered = self._step(steering, held.steered.memory if held is not None else None)
        self._followed[key] = Followed(steering, steered, figures_told_at=self._monotonic())
        if steered.number_and_reason != number_and_reason(steering.taken):
            self._queue.add(key)

    def answered(self, key: Key) -> None:
        """A pod of this object has answered, or is no longer known."""
        held = self._followed.get(key)
        if held is None:
            return
        before, held.steered = held.steered, self._step(held.steering, held.steered.memory)
        became_known = (before.figures is None) != (held.steered.figures is None)
        if became_known or held.steered.number_and_reason != before.number_and_reason:
            self._queue.add(key)
        elif held.steered.figures != before.figures:
            self._tell_figures(key, held)

    def forget(self, key: Key) -> None:
        """Drop what is known of an object that is gone."""
        held = self._followed.pop(key, None)
        if held is not None:
            self._last.pop(held.steering.uid, None)

    def _step(self, steering: Steering, memory: Any) -> Steered:
        answers = self._measurements.answers(steering.targets, steering.report)
        steered = steering.step(answers, memory, self._now())
        if steered.decision is None:
            self._last.pop(steering.uid, None)
        else:
            self._last[steering.uid] = steered.decision
        return steered

    def _tell_figures(self, key: Key, held: Followed) -> None:
        if held.figures_are_due:
            return
        held.figures_are_due = True
        due = held.figures_told_at + self._figures_interval_seconds
        self._queue.add_after(key, max(0.0, due - self._monotonic()))


def number_and_reason(decision: ScaleDecision | None) -> tuple[Hashable, ...] | None:
    """Return the part of a decision whose change wakes the object."""
    return None if decision is None else (decision.wanted, decision.reason, decision.shares)
