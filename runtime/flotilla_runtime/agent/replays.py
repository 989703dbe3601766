"""Selects the results that a replay keeps of an ended task's journal, and the effects that it repeats. Pure.

A replay is a new task that begins with results of another one. A result that it keeps costs nothing. An
approval holds for one call of one task, so one is kept only with the result of the call that it allowed;
what an agent has asked by itself needs somebody who may approve. A graph begins anew, without any result. A
call that is made again has another key than before, so each effect of it happens again, that of an Idempotent
tool too.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from flotilla_runtime.agent.journal import (
    APPROVALS,
    ENDING,
    OF_COMPENSATION,
    OF_GRAPH,
    CallKind,
    CallOutcome,
    Done,
    Entry,
    Intended,
    Other,
    TaskStatus,
)
from flotilla_runtime.contract import Effect
from flotilla_runtime.contract.approvals import approved_call

CHANGES: Final = frozenset({Effect.IDEMPOTENT, Effect.UNSAFE})
GRAPHS: Final = (f"{OF_GRAPH}/", f"approve/{OF_GRAPH}/")
NOTHING_HAPPENED: Final = frozenset(
    {CallOutcome.INVALID, CallOutcome.LIMIT_REACHED, CallOutcome.REFUSED, CallOutcome.NOT_HAPPENED}
)


class UnknownCallError(Exception):
    """The journal has no call of this id."""


class NewerJournalError(Exception):
    """The journal has entries that this version does not know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A call as a journal tells it. `begun` and `ended` are the places of its first intent and its result."""

    intent: Intended
    begun: int
    done: Done | None = None
    ended: int | None = None

    @property
    def has_succeeded(self) -> bool:
        """Whether it gave what the agent wanted; a spawned task that failed did not."""
        if self.done is None or self.done.outcome is not CallOutcome.SUCCEEDED:
            return False
        return self.intent.kind is not CallKind.SPAWN or self.done.value["status"] == TaskStatus.SUCCEEDED

    @property
    def has_effect(self) -> bool:
        """Whether it has changed something outside, or may have."""
        return self.intent.effect in CHANGES and not (self.done and self.done.outcome in NOTHING_HAPPENED)

    @property
    def allows(self) -> str | None:
        """The call that it allowed, if it was the approval of a tool's call."""
        has_allowed = self.intent.kind in APPROVALS and self.has_succeeded
        return approved_call(self.intent.call) if has_allowed else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """The entries that a new task begins with.

    `effects` are calls whose effect would happen again, `spawned` calls whose tasks would be done again, and
    `approvals` what was approved for the other task and would hold for this one.
    """

    kept: tuple[Entry, ...]
    effects: tuple[Intended, ...]
    spawned: tuple[Intended, ...]
    approvals: tuple[str, ...]


def replay_of(entries: Sequence[Entry], start: str | None = None) -> Replay:
    """The replay that makes this call anew, and those that began after it.

    Without a call: those that have no result, and those that failed at the end, so that the task did. Then
    the results of `spawns` must say how their tasks ended, also if they are kept apart.
    """
    calls = told(entries)
    if start is not None and start not in calls:
        raise UnknownCallError(start)
    kept = _finished(calls) if start is None else _before(calls, calls[start].begun)
    undone_from = _undone_from(entries, calls)
    kept = {name: call for name, call in kept.items() if undone_from is None or call.begun < undone_from}
    kept = {name: call for name, call in kept.items() if _stays(call, kept)}
    again = [call for name, call in calls.items() if name not in kept]
    return Replay(
        kept=tuple(entry for call in kept.values() for entry in _copied(call)),
        effects=tuple(call.intent for call in again if call.has_effect),
        spawned=tuple(call.intent for call in again if call.intent.kind is CallKind.SPAWN),
        approvals=tuple(name for name, call in kept.items() if call.allows == name),
    )


def spawns(entries: Iterable[Entry]) -> frozenset[str]:
    """The calls that spawned tasks. How a task ended is in the value of the call's result alone."""
    return frozenset(
        entry.call for entry in entries if isinstance(entry, Intended) and entry.kind is CallKind.SPAWN
    )


def effects_of(entries: Sequence[Entry]) -> Replay:
    """The same for a task that is done again from its beginning."""
    calls = told(entries).values()
    return Replay(
        kept=(),
        effects=tuple(call.intent for call in calls if call.has_effect),
        spawned=tuple(call.intent for call in calls if call.intent.kind is CallKind.SPAWN),
        approvals=(),
    )


def told(entries: Iterable[Entry]) -> dict[str, Told]:
    """The calls of a journal, in the order in which they began."""
    calls: dict[str, Told] = {}
    for place, entry in enumerate(entries):
        match entry:
            case Intended() if _is_of_the_end(entry.call):
                pass
            case Intended():
                before = calls.get(entry.call)
                calls[entry.call] = Told(intent=entry, begun=before.begun if before else place)
            case Done() if (call := calls.get(entry.call)) is not None and call.done is None:
                calls[entry.call] = replace(call, done=entry, ended=place)
            case Other():
                raise NewerJournalError
    return calls


def _is_of_the_end(call: str) -> bool:
    """Whether a call was made after the agent had come to nothing: a replay begins before that."""
    return call == ENDING or OF_COMPENSATION in call


def _undone_from(entries: Iterable[Entry], calls: Mapping[str, Told]) -> int | None:
    """The place from which effects were undone by compensations: that of the first one registered."""
    if not any(isinstance(entry, Intended) and entry.call == ENDING for entry in entries):
        return None
    return min(
        (call.begun for call in calls.values() if call.intent.kind is CallKind.COMPENSATE), default=None
    )


def _before(calls: Mapping[str, Told], place: int) -> dict[str, Told]:
    return {name: call for name, call in calls.items() if call.begun < place and _has_result(call)}


def _finished(calls: Mapping[str, Told]) -> dict[str, Told]:
    last = max((call.begun for call in calls.values()), default=0)
    return {
        name: call
        for name, call in calls.items()
        if _has_result(call) and (call.has_succeeded or (call.ended or 0) < last)
    }


def _has_result(call: Told) -> bool:
    return call.done is not None and call.done.outcome is not CallOutcome.NOT_HAPPENED


def _stays(call: Told, kept: Mapping[str, Told]) -> bool:
    """Whether a result may be kept: an approval of a tool's call only with the result of that call.

    The calls of a graph have other ids in each task, so none of its results would be found again.
    """
    if call.intent.call.startswith(GRAPHS):
        return False
    return call.allows is None or call.allows in kept


def _copied(call: Told) -> tuple[Intended, Done]:
    """A call and its result for another task, in which they cost nothing."""
    assert call.done is not None
    intent = replace(call.intent, at=0, step=0, reserved_steps=0, reserved_tokens=0, reserved_nano_usd=0)
    done = replace(
        call.done,
        at=0,
        took_ms=0,
        input_tokens=0,
        cached_input_tokens=0,
        output_tokens=0,
        nano_usd=None,
        signal=None,
    )
    return intent, done
