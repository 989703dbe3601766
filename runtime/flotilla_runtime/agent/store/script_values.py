"""The names of the scripts, their arguments and the reading of their answers."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from typing import Any, Final

from flotilla_runtime.agent.budgets import NANO_PER_UNIT, LimitName, MessageRefusal, Refusal
from flotilla_runtime.agent.errors import LeaseLostError
from flotilla_runtime.agent.journal import (
    APPROVALS,
    ENDING,
    OF_COMPENSATION,
    WAIT_OUTSIDE,
    CallKind,
    CallOutcome,
    Done,
    Entry,
    Intended,
    decode,
)
from flotilla_runtime.agent.protocols import Came, Written
from flotilla_runtime.agent.tasks import ApproveOutcome, Claim, Decision, Verdict, child_id, read_budget

UNKNOWN: Final = -1  # a cost
UNREVISED: Final = ""  # tasks of workers that knew no revisions
PARTS: Final = (
    "prelude",
    "figures",
    "payloads",
    "room",
    "checkpoints",
    "queue",
    "admission",
    "conversations",
    "budgets",
    "states",
    "outside",
    "losses",
)
MORE_PARTS: Final = {
    "spawn": ("below",),
    "deliver": ("below",),
    "claim": ("request", "adoption", "sweep", "grants", "share", "suspects", "streams"),
}
# Redis makes the functions of a script anew in each run: with all parts, `rate` took twice as long.
NEED_PRELUDE_ALONE: Final = ("rate", "text", "limit", "cache_put")
SCRIPTS: Final = (
    "submit",
    "claim",
    "leave",
    "append",
    "spawn",
    "deliver",
    "suspend",
    "renew",
    "finish",
    "release",
    "crash",
    "resolve",
    "came",
    "approve",
    "signal",
    "state",
    "checkpoint",
    "cancel",
    "forget",
    "dropped",
    "forget_conversations",
    "status",
)


def script_source(name: str) -> str:
    """A script, with its parts in front."""
    folder = files("flotilla_runtime.agent.store") / "scripts"
    shared = PARTS[:1] if name in NEED_PRELUDE_ALONE else PARTS
    parts = (*shared, *MORE_PARTS.get(name, ()), name)
    return "\n".join((folder / f"{part}.lua").read_text(encoding="utf-8") for part in parts)


def script_text(argument: Any) -> str:
    """An argument of a script."""
    return json.dumps(argument) if isinstance(argument, bool) else str(argument)


def all_revisions(revisions: Sequence[str]) -> list[str]:
    """These, each once, and always that of tasks that have none."""
    return list(dict.fromkeys((*revisions, UNREVISED)))


def about(task_id: str, entry: Entry) -> dict[str, Any]:
    """The facts of an entry of this task for the script, so that it need not read the entry."""
    match entry:
        case Intended():
            told: dict[str, Any] = {
                "intends": entry.call,
                "kind": entry.kind,
                "target": entry.asks or entry.target,
                "steps": entry.reserved_steps,
                "tokens": entry.reserved_tokens,
                "nano": entry.reserved_nano_usd,
                "room": entry.reserved_bytes,
            }
            if entry.kind in WAIT_OUTSIDE:
                # Gateways of before know one word for all approvals.
                waits = CallKind.APPROVE if entry.kind in APPROVALS else entry.kind
                told["waits"] = {"kind": waits, "until": entry.until, "name": entry.target}
            told |= _of_compensations(entry)
            if entry.spent_tokens is not None:
                told["spent"] = _use(entry.spent_tokens, entry.spent_nano_usd)
            return told
        case Done():
            result: dict[str, Any] = {
                "does": entry.call,
                **_use(entry.input_tokens + entry.output_tokens, entry.nano_usd),
            }
            if entry.signal is not None:
                result["signal"] = entry.signal
            if entry.outcome is CallOutcome.CANCELLED:
                result["child"] = child_id(task_id, entry.call)
            return result
    return {}


def _of_compensations(entry: Intended) -> dict[str, bool]:
    """Whether a task has something to make when it comes to nothing, or has come to it.

    What it makes then is written also where the caller's share of the bytes has no room.
    """
    if entry.call == ENDING:
        return {"unwinds": True, "beyond": True}
    if OF_COMPENSATION in entry.call:
        return {"beyond": True}
    return {"compensates": True} if entry.kind is CallKind.COMPENSATE else {}


def fields_of_replay(source: str, begun: Iterable[Entry]) -> dict[str, str]:
    """The fields of a task that replays `source` and begins with these entries."""
    compensates = any("compensates" in about(source, entry) for entry in begun)
    return {"replayOf": source, **({"compensates": "1"} if compensates else {})}


def _use(tokens: int, nano_usd: int | None) -> dict[str, int]:
    return {"tokens": tokens, "nano": UNKNOWN if nano_usd is None else nano_usd}


def read_written(claim: Claim, answer: Sequence[Any]) -> Written:
    """The answer to a write to the journal; raises LeaseLostError where it was not written."""
    if answer[0] != "Written":
        raise LeaseLostError(claim.id)
    _, length, cancel_requested, refused, budget = answer
    return Written(
        length=length,
        cancel_requested=bool(cancel_requested),
        refused=tuple(map(_refusal, json.loads(refused or "[]"))),
        budget=read_budget(budget),
    )


def read_stated(claim: Claim, answer: Sequence[Any]) -> Written:
    """The answer to an access to the state, with its result unless it was refused."""
    written = read_written(claim, answer[:5])
    if written.refused:
        return written
    done = decode(answer[5])
    return replace(written, done=done if isinstance(done, Done) else None)


def read_approval(answer: Sequence[str]) -> Verdict:
    """Read the outcome of a decision."""
    outcome = ApproveOutcome(answer[0])
    if outcome is not ApproveOutcome.DECIDED:
        return Verdict(outcome=outcome)
    decided = json.loads(answer[1])
    if decided.get("late"):
        return Verdict(outcome=ApproveOutcome.LATE)
    return Verdict(outcome=outcome, decision=Decision(**decided))


def to_decide(waits: Mapping[str, str], decided: Collection[str], now_ms: int) -> frozenset[str]:
    """Those of the calls which wait for somebody outside that wait for a decision."""
    undecided = {call: json.loads(text) for call, text in waits.items() if call not in decided}
    return frozenset(
        call
        for call, each in undecided.items()
        if each["kind"] == CallKind.APPROVE and now_ms < each["until"]
    )


def read_came(claim: Claim, answer: Sequence[str]) -> Came | None:
    """Read the answer for a call that waits; raises LeaseLostError where another worker holds the task."""
    match answer:
        case ["Decided", decision]:
            decided = json.loads(decision)
            return Came(is_late=True) if decided.get("late") else Came(value=decided)
        case ["Signalled", signal, value]:
            return Came(value=json.loads(value), signal=signal)
        case ["Late"]:
            return Came(is_late=True)
        case ["Nothing"]:
            return None
    raise LeaseLostError(claim.id)


def _refusal(told: Mapping[str, Any]) -> Refusal:
    return Refusal(
        call=told["call"],
        limit=_limit(told["limit"]),
        most=_figure(told, "most"),
        committed=_figure(told, "committed"),
        wanted=_figure(told, "wanted"),
        may_change=told["may_change"],
    )


def _limit(name: str) -> LimitName | MessageRefusal:
    return MessageRefusal(name) if name in set(MessageRefusal) else LimitName(name)


def _figure(told: Mapping[str, Any], name: str) -> float:
    """A figure of a refusal in the unit of its limit: money is counted in billionths of a dollar."""
    value = float(told[name])
    return value / NANO_PER_UNIT if told["limit"] == LimitName.COST else value
