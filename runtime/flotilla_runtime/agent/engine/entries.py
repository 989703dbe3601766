"""The journal's entries before and after a call. Pure."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from flotilla_runtime.agent.budgets import NOTHING, Amount, LimitName, Refusal
from flotilla_runtime.agent.engine.history import PastCall
from flotilla_runtime.agent.failures import LimitReachedError
from flotilla_runtime.agent.journal import CallKind, CallOutcome, Done, Intended
from flotilla_runtime.agent.models import ModelRequest
from flotilla_runtime.agent.models.values import OnEvent
from flotilla_runtime.agent.protocols import Call, ChildEnd, Reply, Spent
from flotilla_runtime.contract import Effect

HASH_LETTERS: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A call as the agent asks for it. `arguments` go into the journal; `hashed` must stay the same.

    `most_bytes` is what its result may take there, about. Calls with one `key` share an idempotency key; it
    is the id if there is none. Before an Unsafe call is made again, `asked_anew` is told of it, and of who
    says that it did not happen; it gives the approval for which somebody is to be asked. `destination` says
    of an approval where the call would go.
    """

    id: str
    kind: CallKind
    target: str
    hashed: Any
    request: Any = None
    arguments: Any = None
    effect: Effect = Effect.PURE
    steps: int = 0
    most_bytes: int = 0
    on_event: OnEvent | None = None
    key: str | None = None
    destination: str | None = None
    asked_anew: "Callable[[PastCall, str | None], Wanted | None] | None" = None


def hash_of(value: Any) -> str:
    """A hash of a JSON value, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:HASH_LETTERS]


def call_of(wanted: Wanted, task_id: str, effect: Effect) -> Call:
    """The call to be made. Its key is the same for every try, and that of no other call."""
    return Call(
        id=wanted.id,
        kind=wanted.kind,
        target=wanted.target,
        request=wanted.request,
        key=hash_of([task_id, wanted.key or wanted.id]),
        effect=effect,
        most_bytes=wanted.most_bytes,
        on_event=wanted.on_event,
    )


def intent_of(
    wanted: Wanted,
    at: int,
    step: int,
    amount: Amount = NOTHING,
    *,
    effect: Effect | None = None,
    most_bytes: int = 0,
    until: int | None = None,
    child: str | None = None,
    spent: Spent | None = None,
    asks: str | None = None,
) -> Intended:
    """The intent of a call, with what it reserves. It may ask another model than was wanted."""
    return Intended(
        at=at,
        call=wanted.id,
        kind=wanted.kind,
        target=wanted.target,
        step=step,
        reserved_steps=wanted.steps,
        reserved_tokens=amount.tokens,
        reserved_nano_usd=amount.nano_usd,
        reserved_bytes=most_bytes,
        effect=effect,
        arguments_hash=hash_of(wanted.hashed),
        arguments=wanted.arguments,
        until=until,
        child=child,
        spent_tokens=spent.tokens if spent else None,
        spent_nano_usd=spent.nano_usd if spent else None,
        answers=(isinstance(wanted.request, ModelRequest) and wanted.request.answers) or None,
        asks=None if asks == wanted.target else asks,
        destination=wanted.destination,
    )


def done_of(call: str, at: int, reply: Reply, took_ms: int = 0, signal: str | None = None) -> Done:
    """The result of a call, and the signal that it took."""
    return Done(
        at=at,
        call=call,
        outcome=reply.outcome,
        first_token_ms=reply.first_token_ms,
        took_ms=max(0, took_ms),
        value=reply.value,
        generation=reply.generation,
        input_tokens=reply.input_tokens,
        cached_input_tokens=reply.cached_input_tokens,
        output_tokens=reply.output_tokens,
        nano_usd=reply.nano_usd,
        tries=reply.tries,
        problem=reply.problem,
        signal=signal,
        replica=reply.replica,
        cached=reply.cached,
        answered_by=reply.answered_by,
        rate_limit=reply.rate_limit,
        limited_ms=reply.limited_ms,
        retry_after_ms=reply.retry_after_ms,
    )


def refused_entries(wanted: Wanted, at: int, step: int, refusal: Refusal) -> tuple[Intended, Done]:
    """A call that a limit refused for good: it reserves nothing, and every replay is refused it again."""
    intent = intent_of(replace(wanted, steps=0), at, step)
    value = {**asdict(refusal), "limit": str(refusal.limit)}
    problem = str(LimitReachedError(refusal))
    return intent, done_of(
        wanted.id, at, Reply(outcome=CallOutcome.LIMIT_REACHED, value=value, problem=problem)
    )


def refusal_of(done: Done) -> Refusal:
    """The refusal that a result tells of."""
    return Refusal(**{**done.value, "limit": LimitName(done.value["limit"])})


def given_up(intent: Intended, at: int) -> Done:
    """The result of a call that the agent itself cancelled. Nobody knows what it used: all it reserved."""
    return Done(
        at=at,
        call=intent.call,
        outcome=CallOutcome.CANCELLED,
        took_ms=max(0, at - intent.at),
        output_tokens=intent.reserved_tokens,
        nano_usd=intent.reserved_nano_usd,
        problem="the agent no longer waited for it",
    )


def reply_of(end: ChildEnd) -> Reply:
    """The end of a spawned task as the result of the call that spawned it."""
    value = {
        "status": str(end.status),
        "reason": end.reason,
        "message": end.message,
        "result": end.result,
        "partial": end.partial,
    }
    return Reply(outcome=CallOutcome.SUCCEEDED, value=value)
