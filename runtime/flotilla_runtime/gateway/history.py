"""The callers' view of a task's journal: its events, its usage, and where its time went; pure.

A journal entry is one event or none. Events are a public view: they have what a call was asked and what it
answered, for who may read the task. The messages that models are sent never are in them, because they hold
the fleet's prompts; neither is an entry that this version does not know. The history is told entry by entry,
so a long journal need not be in memory.

`text` and `textWithdrawn` tell what a model writes while it writes it. They are in no journal (`texts`).
"""

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from heapq import nlargest
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from flotilla_runtime.agent.budgets import NANO_PER_UNIT
from flotilla_runtime.agent.critical_path import CriticalPath, StretchKind
from flotilla_runtime.agent.journal import (
    APPROVALS,
    CallKind,
    Claimed,
    Done,
    Ended,
    Entry,
    HandedOver,
    Intended,
    Resolved,
    Resumed,
    Submitted,
    Suspended,
    TaskStatus,
    WaitKind,
)

LONGEST_PATH: Final = 1000  # steps of a critical path
ASKED_IN_PUBLIC: Final = frozenset(
    {
        CallKind.RETRIEVE,
        CallKind.TOOL,
        CallKind.SPAWN,
        CallKind.TELL,
        *APPROVALS,
        CallKind.STATE,
        CallKind.COMPENSATE,
    }
)


class EventKind(StrEnum):
    """The kind of an event of a task."""

    SUBMITTED = "submitted"
    STARTED = "started"
    CALL_STARTED = "callStarted"
    CALL_ENDED = "callEnded"
    TEXT = "text"
    TEXT_WITHDRAWN = "textWithdrawn"
    SUSPENDED = "suspended"
    RESUMED = "resumed"
    RESOLVED = "resolved"
    ENDED = "ended"


class _View(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True, frozen=True)


class Wait(_View):
    """The wait of a suspended task; `untilTime` is when it goes on, or ends, in any case."""

    kind: WaitKind
    call: str
    until_time: datetime | None = None


class Event(_View):
    """One event of a task; a field that does not belong to its kind is null.

    `seconds` is how long a call took, `tokens` what it used, `costUSD` what that costs, null where a price is
    unknown. `outcome` is that of a call, or the status of the task at its end. `waitedSeconds` is the part of
    `seconds` in which a call waited for its turn at `rateLimit`. `answeredBy` is the model that answered in
    the place of the target, `cached` whether the cache answered, where it may.
    """

    at: datetime
    event: EventKind
    attempt: int | None = None
    worker: str | None = None
    call: str | None = None
    kind: CallKind | None = None
    target: str | None = None
    outcome: str | None = None
    reason: str | None = None
    seconds: float | None = None
    tries: int | None = None
    tokens: int | None = None
    cost_usd: float | None = Field(default=None, alias="costUSD")
    problem: str | None = None
    waits_for: Wait | None = None
    by: str | None = None
    answers: bool | None = None
    cached: bool | None = None
    answered_by: str | None = None
    rate_limit: str | None = None
    waited_seconds: float | None = None
    offset: int | None = None
    text: str | None = None
    arguments: Any = None
    result: Any = None

    def brief(self) -> "Event":
        """The event without what the call was asked and answered."""
        return self.model_copy(update={"arguments": None, "result": None})


class ApprovalView(_View):
    """A call that somebody may decide on, until `untilTime`: of a tool, with its arguments, or what an agent
    asks by itself.

    `destination` says where the call of a tool would go: its method and URL, or its function. It is null
    where the agent asks by itself, and in tasks of older workers.
    """

    call: str
    target: str
    destination: str | None
    arguments: Any
    until_time: datetime | None


class TimeView(_View):
    """Where a task's seconds went: waiting for a worker, in calls of models, in calls of indexes and tools,
    and the rest. Where calls run at the same time, a second counts once, for the model.
    """

    queue: float
    model: float
    tool: float
    other: float


class PathStep(_View):
    """A call on a task's critical path, or a wait for a worker (kind `Queue`): when it began, and how long it
    took. `task` is the one that the call spawned; it has a path of its own.
    """

    call: str | None
    kind: StretchKind
    target: str | None
    at: datetime
    seconds: float
    task: str | None


@dataclass(slots=True, kw_only=True)
class History:
    """The sums over the entries so far. `told` gives each entry, in order, and returns its event."""

    steps: int = 0
    tokens: int = 0
    nano_usd: int = 0
    unpriced: bool = False
    priced: bool = False
    _open: dict[str, Intended] = field(default_factory=dict)
    _asking: dict[str, Intended] = field(default_factory=dict)
    _step: set[int] = field(default_factory=set)
    _waiting: bool = True
    _suspended: bool = False
    _ended: bool = False
    _at: int | None = None
    _path: CriticalPath = field(default_factory=CriticalPath)
    _ms: dict[str, int] = field(default_factory=lambda: dict.fromkeys(TimeView.model_fields, 0))

    @property
    def cost_usd(self) -> float | None:
        """The cost of the calls so far; None where a price is unknown, or nothing has a price."""
        return None if self.unpriced or not self.priced else self.nano_usd / NANO_PER_UNIT

    def told(self, entry: Entry) -> Event | None:
        """Count an entry; its event, if callers see one."""
        self._pass_time(entry.at)
        self._path.told(entry)
        event = self._event(entry)
        self._remember(entry)
        return event

    def is_open(self, call: str) -> bool:
        """Whether a call is known to be under way."""
        return call in self._open

    def recall(self, start: Intended) -> None:
        """Know of a call that began before the first entry that was told."""
        self._open[start.call] = start

    def asking(self) -> tuple[Intended, ...]:
        """The calls that wait for approval; large arguments are kept apart from them."""
        return tuple(self._asking.values())

    def keep_asking(self, calls: Collection[str]) -> None:
        """Know that of the calls which wait for approval, these alone are not decided, and not too late."""
        self._asking = {call: intent for call, intent in self._asking.items() if call in calls}

    def ask(self, intent: Intended) -> None:
        """Know of a call that waits for approval with its arguments."""
        self._asking[intent.call] = intent

    def approvals(self) -> tuple[ApprovalView, ...]:
        """The calls that wait for approval, as far as the entries tell."""
        return tuple(
            ApprovalView(
                call=intent.call,
                target=intent.target,
                destination=intent.destination,
                arguments=intent.arguments,
                until_time=moment_or_none(intent.until),
            )
            for intent in self._asking.values()
        )

    def time(self, now_ms: int) -> TimeView | None:
        """Where the time went until now, or until the task ended; None where the journal is gone."""
        if self._at is None:
            return None
        spent = dict(self._ms)
        if not self._ended:
            spent[self._part()] += max(0, now_ms - self._at)
        return TimeView(**{part: milliseconds / 1000 for part, milliseconds in spent.items()})

    def critical_path(self, now_ms: int) -> tuple[PathStep, ...]:
        """The critical path until now, or until the task ended; of a long one, the longest steps."""
        steps = self._path.path(None if self._ended else now_ms)
        if len(steps) > LONGEST_PATH:
            shown = set(nlargest(LONGEST_PATH, steps, key=lambda step: step.took_ms))
            steps = tuple(step for step in steps if step in shown)
        return tuple(
            PathStep(
                call=step.call or None,
                kind=step.kind,
                target=step.target or None,
                at=moment(step.began_at),
                seconds=step.took_ms / 1000,
                task=step.child,
            )
            for step in steps
        )

    def _pass_time(self, at: int) -> None:
        """Entries are written by several clocks, so one can seem to be before the one that it follows."""
        if self._at is not None and at > self._at:
            self._ms[self._part()] += at - self._at
        self._at = max(at, self._at or 0)

    def _part(self) -> str:
        if self._suspended:
            return "other"
        if self._waiting:
            return "queue"
        kinds = {intent.kind for intent in self._open.values()}
        if CallKind.MODEL in kinds:
            return "model"
        return "tool" if kinds & {CallKind.RETRIEVE, CallKind.TOOL} else "other"

    def _remember(self, entry: Entry) -> None:
        match entry:
            case Claimed():
                self._waiting = self._suspended = False
                self._open.clear()  # calls of a lost worker; a call that is made again has a new intent
            case HandedOver():
                self._waiting = True
            case Suspended():
                self._suspended = True
            case Resumed():
                self._suspended, self._waiting = False, True
            case Intended():
                self._begin(entry)
            case Done():
                self._settle(entry)
            case Ended():
                self._ended = True

    def _begin(self, intent: Intended) -> None:
        if intent.spent_tokens is not None:
            self._go_on(intent, intent.spent_tokens)
            return
        self._open[intent.call] = intent
        if intent.kind in APPROVALS:
            self._asking[intent.call] = intent
        self.steps += intent.reserved_steps
        if not intent.reserved_steps and intent.step and intent.step not in self._step:
            self._step.add(intent.step)
            self.steps += 1

    def _go_on(self, intent: Intended, spent_tokens: int) -> None:
        """Count what the tries of a call have used that goes on; its result has the rest."""
        self._count(intent, spent_tokens, intent.spent_nano_usd)
        before = self._open.get(intent.call)
        if before is not None:
            intent = replace(
                intent,
                spent_tokens=spent_tokens + (before.spent_tokens or 0),
                spent_nano_usd=(intent.spent_nano_usd or 0) + (before.spent_nano_usd or 0),
            )
        self._open[intent.call] = intent

    def _settle(self, done: Done) -> None:
        intent = self._open.pop(done.call, None)
        self._asking.pop(done.call, None)
        self._count(intent, done.input_tokens + done.output_tokens, done.nano_usd)

    def _count(self, intent: Intended | None, tokens: int, nano_usd: int | None) -> None:
        self.tokens += tokens
        if nano_usd is not None:
            self.nano_usd += nano_usd
            self.priced = True
        elif intent is not None and intent.kind is CallKind.MODEL and tokens:
            self.unpriced = True

    def _event(self, entry: Entry) -> Event | None:
        at = moment(entry.at)
        match entry:
            case Submitted():
                return Event(at=at, event=EventKind.SUBMITTED)
            case Claimed():
                return Event(at=at, event=EventKind.STARTED, attempt=entry.attempt, worker=entry.worker)
            case Intended():
                return _call_started(entry) if entry.spent_tokens is None else None
            case Done():
                asked = self._open.get(entry.call) or self._asking.get(entry.call)
                return _call_ended(entry, asked)
            case Suspended():
                wait = Wait(kind=entry.waits_for, call=entry.call, until_time=moment_or_none(entry.until))
                return Event(at=at, event=EventKind.SUSPENDED, waits_for=wait)
            case Resumed():
                return Event(at=at, event=EventKind.RESUMED)
            case Resolved():
                outcome = "Happened" if entry.happened else "NotHappened"
                return Event(
                    at=at,
                    event=EventKind.RESOLVED,
                    call=entry.call,
                    outcome=outcome,
                    by=entry.by,
                    result=entry.result,
                )
            case Ended():
                return Event(
                    at=at,
                    event=EventKind.ENDED,
                    outcome=entry.status,
                    reason=entry.reason,
                    problem=None if entry.status is TaskStatus.SUCCEEDED else entry.message or None,
                )
        return None


def _call_started(intent: Intended) -> Event:
    return Event(
        at=moment(intent.at),
        event=EventKind.CALL_STARTED,
        call=intent.call,
        kind=_told(intent.kind),
        target=intent.target or None,
        answers=intent.answers,
        arguments=intent.arguments if intent.kind in ASKED_IN_PUBLIC else None,
    )


def _told(kind: CallKind) -> CallKind:
    """The kind as callers know it: an approval asked anew is an approval."""
    return CallKind.APPROVE if kind in APPROVALS else kind


def _call_ended(done: Done, intent: Intended | None) -> Event:
    """A result that was found by `reconcile` has no intent of this attempt."""
    spent_tokens = (intent.spent_tokens or 0) if intent else 0
    spent_nano_usd = (intent.spent_nano_usd or 0) if intent else 0
    used = spent_tokens + done.input_tokens + done.output_tokens
    is_decision = intent is not None and intent.kind in APPROVALS and isinstance(done.value, dict)
    decided_by = done.value.get("by") if is_decision else None
    return Event(
        at=moment(done.at),
        event=EventKind.CALL_ENDED,
        call=done.call,
        kind=_told(intent.kind) if intent else None,
        target=(intent.target or None) if intent else None,
        outcome=done.outcome,
        seconds=done.took_ms / 1000,
        tries=done.tries,
        tokens=used or None,
        cost_usd=None if done.nano_usd is None else (spent_nano_usd + done.nano_usd) / NANO_PER_UNIT,
        problem=done.problem,
        by=decided_by,
        cached=done.cached,
        answered_by=done.answered_by,
        rate_limit=done.rate_limit,
        waited_seconds=None if done.limited_ms is None else done.limited_ms / 1000,
        result=done.value,
    )


def moment(milliseconds: int) -> datetime:
    """The time of an entry."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def moment_or_none(milliseconds: int | None) -> datetime | None:
    """The same where there may be none."""
    return None if milliseconds is None else moment(milliseconds)
