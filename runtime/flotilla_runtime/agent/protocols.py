"""The interfaces that a run of a task needs: a journal to write to, and somebody who makes its calls.

The store implements `TaskJournal` with one script for each write; tests stop it before and after every write.
The engine implements neither: it replays an agent, asks for calls, and writes what came of them.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol, TypeVar

from flotilla_runtime.agent.actors import Delivery
from flotilla_runtime.agent.budgets import Amount, Budget, Refusal
from flotilla_runtime.agent.conversations import Message
from flotilla_runtime.agent.journal import (
    CallKind,
    CallOutcome,
    Done,
    EndReason,
    Entry,
    Intended,
    TaskStatus,
    WaitKind,
)
from flotilla_runtime.agent.models.values import OnEvent
from flotilla_runtime.agent.tasks import Claim
from flotilla_runtime.contract import Effect, Priority

OneEntry = TypeVar("OneEntry", bound=Entry)


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """The answer to a write: whether the task is to be cancelled, and the intents that a limit refused.

    A refused intent is not in the journal; the other entries are. `length` is the journal's new length, and
    `done` the result of an access to the state.
    """

    length: int
    cancel_requested: bool = False
    refused: tuple[Refusal, ...] = ()
    budget: Budget | None = None
    done: Done | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """The cause and the latest end of a task's suspension (milliseconds since the epoch).

    `children` are the spawned tasks that it waits for too; any one that ends resumes it.
    """

    kind: WaitKind
    call: str
    until: int | None = None
    children: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildEnd:
    """How a spawned task ended."""

    status: TaskStatus
    reason: str
    message: str
    result: Any
    partial: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Came:
    """An answer from outside for a call that waits: a decision, or a signal, whose name is `signal`.

    `is_late`: nothing came in time, and nothing that comes now counts.
    """

    value: Any = None
    signal: str | None = None
    is_late: bool = False


class StateOperation(StrEnum):
    """An access to a value of an agent's state."""

    GET = "Get"
    PUT = "Put"
    COMPARE_AND_SWAP = "CompareAndSwap"


@dataclass(frozen=True, slots=True, kw_only=True)
class StateRequest:
    """An access to the state of the task's tenant and this agent. Values are JSON texts, empty for none."""

    agent: str
    operation: StateOperation
    key: str
    expected: str = ""
    value: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """A message to an actor of the task's tenant and this agent. With `is_asked`, its answer is awaited.

    `mailbox` is how many messages may be there at most.
    """

    agent: str
    delivery: Delivery
    text: str
    mailbox: int
    is_asked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointChange:
    """A change of a graph's checkpoints, all or nothing: texts by the names of their fields.

    What is put takes the place of what is there. What is added does not.
    """

    put: Mapping[str, str] = field(default_factory=dict)
    add: Mapping[str, str] = field(default_factory=dict)
    drop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpointed:
    """The result of a change: the bytes of all checkpoints of the task, or why nothing was written."""

    bytes: int = 0
    problem: str | None = None
    is_too_large: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """How a task ends. `busy_ms` is the time of its calls by part, such as `Model/qwen`; for the figures.

    `waited_ms` is how much of it they waited longer for a model's first token than the quickest of them did.

    `said` are the messages that later tasks of its conversation are told. A task that `unwinds` has
    compensations to make if it cannot end so.
    """

    status: TaskStatus
    reason: EndReason
    message: str = ""
    result: Any = None
    partial: Any = None
    busy_ms: Mapping[str, int]
    waited_ms: Mapping[str, int] = field(default_factory=dict)
    calls: Mapping[str, int]
    said: tuple[Message, ...] = ()
    unwinds: bool = False


class TaskJournal(Protocol):
    """The writes of a run. Each raises LeaseLostError when another worker holds the task."""

    async def append(self, claim: Claim, expected: int, entries: Sequence[Entry]) -> Written:
        """Append entries at this position; reserve for intents, settle for results, on the tree's root."""

    async def spawn(self, claim: Claim, expected: int, intent: Intended, child_input: str) -> Written:
        """Write the intent of a spawned task and submit that task, both or neither.

        The intent's target is the agent that does it; without one it is that of this task.
        """

    async def deliver(self, claim: Claim, expected: int, intent: Intended, post: Post) -> Written:
        """Write the intent of a message and submit the task that handles it, both or neither."""

    async def state(self, claim: Claim, expected: int, intent: Intended, request: StateRequest) -> Written:
        """Read or write a value of the state, and write the call with its result, both or neither."""

    async def checkpoint(self, claim: Claim, change: CheckpointChange) -> Checkpointed:
        """Change the checkpoints of the task's graph, or of its conversation's."""

    async def checkpoint_fields(self, space: str) -> Sequence[str]:
        """The names of what a graph has kept in this space: see `checkpoint_space`."""

    async def checkpoint_texts(self, space: str, fields: Sequence[str]) -> Sequence[str | None]:
        """The texts of these fields; None for one that is not there."""

    async def whole(self, task_id: str, entry: OneEntry) -> OneEntry:
        """An entry with its value, also if that is kept apart. Raises BrokenEntryError where it is gone."""

    async def children(self, ids: Sequence[str]) -> Mapping[str, ChildEnd]:
        """Those of these tasks that have ended."""

    async def came(self, claim: Claim, call: str, taken: Collection[str]) -> Came | None:
        """Return the answer for a call that waits for approval or a signal; none of the `taken` signals."""

    async def suspend(self, claim: Claim, expected: int, waits: Waits) -> bool:
        """Give the place up; False if what it waits for has come already."""

    async def finish(self, claim: Claim, finish: Finish) -> None:
        """End the task. Reservations of calls without a result count as used. Raises NoRoomError."""

    async def release(self, claim: Claim, worker: str) -> None:
        """Hand the task over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchRequest:
    """A query for an index. Without `top_k` the index decides how many passages it gives.

    With `compares` the call has reserved what it takes to compare the query with those of other searches.
    """

    query: str
    top_k: int | None = None
    compares: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """The usage of a call's tries, out of its reservation; `nano_usd` is None where a price is unknown.

    `waits_until` is how long it can wait for more, by the event loop's clock.
    """

    tokens: int
    nano_usd: int | None
    waits_until: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call to be made.

    `request` is what the kind needs: a `ModelRequest`, a `SearchRequest`, the arguments of a tool. `key`
    is the idempotency key: the same for every try of this call, and of no other. `on_event` is told what a
    model writes meanwhile. `goes_on` says of a call that is cancelled whether another run goes on with it.
    `more` reserves anew for a call whose tries have spent what it reserved: it gives the call, cut to what is
    left, or None if the limits leave no room. What was spent is then settled, and is no part of the reply.
    `most_bytes` is what its result may take in the journal, about. A call that has had its turn at a rate
    limit before its intent was written has `waited_ms`. One that `was_begun` has an intent of an earlier run,
    which may have asked somebody to make it. `traceparent` is sent along, so that the other side's
    spans belong to the task's trace.
    """

    id: str
    kind: CallKind
    target: str
    request: Any
    key: str
    effect: Effect = Effect.PURE
    most_bytes: int = 0
    waited_ms: int | None = None
    was_begun: bool = False
    on_event: OnEvent | None = field(default=None, compare=False)
    more: "Callable[[Call, Spent], Awaitable[Call | None]] | None" = field(default=None, compare=False)
    goes_on: Callable[[], bool] | None = field(default=None, compare=False)
    traceparent: str | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """The task's values that all its calls send along; `token` is the claim's.

    `agent` is empty for the fleet's own.
    """

    task_id: str
    tenant: str
    priority: Priority
    agent: str = ""
    token: int = 0


class Certainty(StrEnum):
    """Whether a reply says what became of a call: it does, the call may have happened, or was not begun."""

    KNOWN = "Known"
    UNKNOWN = "Unknown"
    NOT_BEGUN = "NotBegun"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """How a call ended, what it gave, and what it used, failed tries included that are not settled yet.

    `replica` is that of the model which answered. With the certainty Unknown, an Unsafe call has no result
    yet. One that was not begun is made by another worker. `is_refused` if even the last try was turned away
    by a model or tool that takes no calls at the moment. `cached`, `answered_by`, `rate_limit`, `limited_ms`
    and `retry_after_ms` are those of the result in the journal.
    """

    outcome: CallOutcome
    first_token_ms: int | None = None
    value: Any = None
    generation: str | None = None
    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    nano_usd: int | None = None
    tries: int = 1
    problem: str | None = None
    is_refused: bool = False
    certainty: Certainty = Certainty.KNOWN
    replica: str | None = None
    cached: bool | None = None
    answered_by: str | None = None
    rate_limit: str | None = None
    limited_ms: int | None = None
    retry_after_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciled:
    """The finding about an Unsafe call: whether it happened, and perhaps its result.

    `reply` is that of the call itself, where an executor has kept it. A call that no executor has begun was
    not begun at all.
    """

    happened: bool
    result: Any = None
    reply: Reply | None = None
    was_begun: bool = True


class Calls(Protocol):
    """Makes the calls of models, indexes and tools."""

    async def reservation(self, call: Call, session: Session, budget: Budget) -> tuple[Call, Amount]:
        """Return the call cut to what context and budget leave, and the most that it can use."""

    async def make(self, call: Call, session: Session) -> Reply:
        """Make one call; failures are replies. Cancelling it closes its connection."""

    async def reconcile(self, call: Call, session: Session) -> Reconciled | None:
        """Ask the tool's `reconcile` whether an Unsafe call happened; None if nobody knows."""


class Threads(Protocol):
    """The threads in which plain functions of tools run. `left_behind` ones run what nobody waits for."""

    left_behind: int

    @property
    def is_stuck(self) -> bool:
        """Whether every thread was left behind, so no function can be called."""
