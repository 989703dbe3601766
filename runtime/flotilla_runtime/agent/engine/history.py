"""A journal, indexed once: what each call came to before this run. Pure, and linear in entries.

A call that was made again, or went on after its tries had spent what it reserved, has several intents. What a
lost worker's call reserved counts as used, because the other side may have used it; the newest intent is the
one that may still be open.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from flotilla_runtime.agent.budgets import NOTHING, Amount
from flotilla_runtime.agent.journal import (
    APPROVALS,
    BY_WORKER,
    CallKind,
    CallOutcome,
    Claimed,
    Done,
    Entry,
    Intended,
    Resolved,
)
from flotilla_runtime.contract.approvals import approved_call

PARTS: Mapping[CallKind, str] = {
    CallKind.MODEL: "Model",
    CallKind.RETRIEVE: "Index",
    CallKind.TOOL: "Tool",
}
# The calls that may take a while. Until it is written that one is given up, it may have a result in a replay.
MAY_BE_GIVEN_UP: Final = frozenset({*PARTS, *APPROVALS, CallKind.SPAWN, CallKind.SIGNAL, CallKind.SLEEP})


@dataclass(frozen=True, slots=True, kw_only=True)
class PastCall:
    """A call that the journal knows. `resolved` is what was said of its newest intent.

    `began_at` is when the call was made for the first time. `times_begun` is how often it may have reached
    the other side. With `follows_approval`, somebody had said yes to the agent itself before it was made.
    """

    intent: Intended
    began_at: int = 0
    times_begun: int = 1
    follows_approval: bool = False
    done: Done | None = None
    resolved: Resolved | None = None

    @property
    def result(self) -> Done | None:
        """The result that counts; None while the call is open, or may be made again."""
        return None if self.done is None or self.done.outcome is CallOutcome.NOT_HAPPENED else self.done


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The state of a task as its journal tells it to a run."""

    length: int = 0
    attempts: int = 0
    steps: int = 0
    used: Amount = NOTHING
    open_reserve: Amount = NOTHING
    calls: Mapping[str, PastCall] = field(default_factory=dict)

    def began_at(self) -> dict[str, int]:
        """When the first call within each scope was made; a scope's path ends in a slash."""
        began: dict[str, int] = {}
        for name, call in self.calls.items():
            for path in scopes_of(name):
                began[path] = min(call.began_at, began.get(path, call.began_at))
        return began


def scopes_of(call_id: str) -> list[str]:
    """The paths of the scopes that a call is in."""
    return [call_id[: place + 1] for place, letter in enumerate(call_id) if letter == "/"]


def reserve_of(intent: Intended) -> Amount:
    """The amount that an intent reserves."""
    return Amount(
        steps=intent.reserved_steps, tokens=intent.reserved_tokens, nano_usd=intent.reserved_nano_usd
    )


def spent_of(intent: Intended, again: Intended) -> Amount:
    """The usage of a call until it was intended again, without its step: the result counts that."""
    if again.spent_tokens is None:
        return Amount(tokens=intent.reserved_tokens, nano_usd=intent.reserved_nano_usd)
    nano_usd = again.spent_nano_usd
    return Amount(
        tokens=again.spent_tokens, nano_usd=intent.reserved_nano_usd if nano_usd is None else nano_usd
    )


def use_of(intent: Intended, done: Done) -> Amount:
    """The amount that a finished call used."""
    return Amount(
        steps=intent.reserved_steps,
        tokens=done.input_tokens + done.output_tokens,
        nano_usd=intent.reserved_nano_usd if done.nano_usd is None else done.nano_usd,
    )


def read(entries: Iterable[Entry]) -> History:
    """The history that a journal tells."""
    length = attempts = steps = 0
    is_approved = False
    used = Amount()
    calls: dict[str, PastCall] = {}
    for entry in entries:
        length += 1
        match entry:
            case Claimed():
                attempts = entry.attempt
            case Intended():
                steps = max(steps, entry.step)
                past = calls.get(entry.call)
                if past is not None and past.done is None:
                    used += spent_of(past.intent, entry)
                calls[entry.call] = _begun_again(past, entry, is_approved=is_approved)
            case Done():
                past = calls.get(entry.call)
                if past is not None and past.done is None:
                    used += use_of(past.intent, entry)
                    calls[entry.call] = replace(past, done=entry)
                    is_approved = is_approved or _is_a_yes_to_the_agent(past.intent, entry)
            case Resolved():
                past = calls.get(entry.call)
                if past is not None and past.done is None:
                    begun = past.times_begun - (entry.by == BY_WORKER)
                    calls[entry.call] = replace(past, resolved=entry, times_begun=begun)
    return History(
        length=length,
        attempts=attempts,
        steps=steps,
        used=used,
        open_reserve=_open_reserve(calls.values()),
        calls=calls,
    )


def _begun_again(past: PastCall | None, intent: Intended, *, is_approved: bool) -> PastCall:
    if past is None:
        return PastCall(intent=intent, began_at=intent.at, follows_approval=is_approved)
    return replace(past, intent=intent, done=None, resolved=None, times_begun=past.times_begun + 1)


def _is_a_yes_to_the_agent(intent: Intended, done: Done) -> bool:
    """Whether somebody said yes to what the agent has asked by itself, and to no call of a tool."""
    is_own = intent.kind is CallKind.APPROVE and approved_call(intent.call) == intent.call
    return is_own and done.outcome is CallOutcome.SUCCEEDED


def _open_reserve(calls: Iterable[PastCall]) -> Amount:
    reserve = Amount()
    for call in calls:
        if call.done is None:
            reserve += reserve_of(call.intent)
    return reserve
