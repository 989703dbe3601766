"""A call of a function that an executor makes for a worker: what is asked, and what became of it. Pure.

A request is named by its call in the journal, so a call is one request, whichever worker asks. Its states:

Waiting   no executor has it. It may be taken back.
Running   an executor holds it by a lease and a token. Who has lost the lease can answer no more.
Answered  with a reply.
Lost      its executor was lost. A call of the effect Unsafe is then given to no other: it may have happened.
          One of another effect waits again, and is lost only when too many executors were lost with it.
TakenBack the worker that looks took it back: no executor had it, and none gets it any more.
Gone      there is none: it never came, was taken back before, or nobody has asked for it for a while.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final, Protocol

from flotilla_runtime.agent.journal import CallOutcome
from flotilla_runtime.agent.protocols import Call, Certainty, Reconciled, Reply
from flotilla_runtime.contract import Effect

MOST_REQUEST_BYTES: Final = 16 * 1024 * 1024


class FunctionKind(StrEnum):
    """The purpose of a function of the fleet's image."""

    TOOL = "Tool"
    RECONCILE = "Reconcile"


class RequestState(StrEnum):
    """The state of a request."""

    WAITING = "Waiting"
    RUNNING = "Running"
    ANSWERED = "Answered"
    LOST = "Lost"
    TAKEN_BACK = "TakenBack"
    GONE = "Gone"

    @property
    def is_final(self) -> bool:
        """Whether nothing further comes of it by itself."""
        return self not in (RequestState.WAITING, RequestState.RUNNING)


class WithdrawOutcome(StrEnum):
    """The outcome of the withdrawal of a request."""

    WITHDRAWN = "Withdrawn"  # no executor had begun it
    STOPPING = "Stopping"  # its executor is told
    IGNORED = "Ignored"  # it has ended, or another worker waits for it


class RequestTooLargeError(ValueError):
    """The arguments of a call take more bytes than a request may."""

    def __init__(self, size: int) -> None:
        super().__init__(f"the arguments have {size} bytes, and a tool executor takes {MOST_REQUEST_BYTES}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolRequest:
    """A call of the function of the tool `name`. `id` is the request's, `key` the call's.

    `most_lost` is how many executors may be lost with it.
    """

    id: str
    kind: FunctionKind = FunctionKind.TOOL
    name: str
    call: str
    key: str
    arguments: Mapping[str, Any]
    effect: Effect
    most_lost: int = 5

    def encoded(self) -> str:
        """Encode the request for an executor. Raises RequestTooLargeError."""
        told = {"kind": self.kind, "name": self.name, "call": self.call, "key": self.key}
        text = json.dumps({**told, "arguments": dict(self.arguments)}, ensure_ascii=False)
        if (size := len(text.encode())) > MOST_REQUEST_BYTES:
            raise RequestTooLargeError(size)
        return text


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """A request that an executor may carry out for as long as its token holds."""

    request: ToolRequest
    token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The state of a request for a worker; `executor` is the one that has, or had it."""

    state: RequestState
    reply: Reply | None = None
    executor: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldRequests:
    """The ids of those requests of an executor that it has lost, or that nobody waits for."""

    lost: frozenset[str] = frozenset()
    withdrawn: frozenset[str] = frozenset()


class AsksExecutors(Protocol):
    """The executors' queue, as a worker sees it. Each request raises StoreUnavailableError."""

    async def ask(self, request: ToolRequest, revision: str, waiter: str, asked: str) -> Seen:
        """Put a request, or join the one that is there; `asked` names this asking, also when sent again."""

    async def look(self, waiter: str, revision: str | None, ids: list[str]) -> Mapping[str, Seen]:
        """Return the state of these. A request at which nobody looks for a minute is given up.

        Those that wait go to the executors of this revision; without one they are taken back.
        """

    async def withdraw(self, request_id: str, waiter: str) -> WithdrawOutcome:
        """Take a request back, unless another worker waits for it."""

    async def news(self, process: str, seconds: float) -> list[str]:
        """The ids of which this process has something to hear; waits for one for this long."""


class ServesWorkers(Protocol):
    """The executors' queue, as an executor sees it. Each request raises StoreUnavailableError."""

    async def claim(self, executor: str, revision: str, wanted: int, token: str) -> list[Granted]:
        """Claim the oldest requests; sent again under the same token it grants the same."""

    async def renew(self, executor: str, held: Mapping[str, str]) -> HeldRequests:
        """Renew the leases of these requests, which are given with their tokens."""

    async def answer(self, request_id: str, token: str, reply: Reply) -> bool:
        """Write the reply, once; False if the lease was lost."""

    async def give_back(self, request_id: str, token: str) -> bool:
        """Hand a request over to another executor."""

    async def wait_for_work(self, revision: str, seconds: float) -> None:
        """Return when a request came, or after this time."""

    async def news(self, process: str, seconds: float) -> list[str]:
        """The ids of which this process has something to hear; waits for one for this long."""


class RunsElsewhere(Protocol):
    """Has functions of the fleet's image called by executors."""

    async def make(
        self, call: Call, name: str, kind: FunctionKind = FunctionKind.TOOL, *, most_kib: int
    ) -> Reply:
        """Run the function of the tool `name`, and return its reply; failures are replies."""

    async def kept(self, call: Call, *, most_kib: int) -> Reconciled | None:
        """Find out whether a call happened that an earlier run has asked for; None if nobody knows.

        One that an executor runs is waited for. A worker whose fleet has no executors takes back what waits,
        so that no executor begins it beside the worker.
        """


def read_request(request_id: str, effect: str, text: str) -> ToolRequest:
    """The request that a worker put."""
    told = json.loads(text)
    return ToolRequest(
        id=request_id,
        kind=FunctionKind(told["kind"]),
        name=told["name"],
        call=told["call"],
        key=told["key"],
        arguments=told["arguments"],
        effect=Effect(effect),
    )


def encoded_reply(reply: Reply) -> str:
    """A reply as it is kept for the worker."""
    told = {name: value for name, value in asdict(reply).items() if value is not None}
    return json.dumps(told, ensure_ascii=False)


def read_reply(text: str) -> Reply:
    """The reply that an executor wrote. What is none is a failure of which nothing else is known.

    An executor runs the fleet's own code, so nothing that it writes is believed beyond its form.
    """
    try:
        told = json.loads(text)
        return Reply(
            outcome=CallOutcome(told["outcome"]),
            value=told.get("value"),
            problem=None if told.get("problem") is None else str(told["problem"]),
            certainty=Certainty(told.get("certainty", Certainty.KNOWN)),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        problem = "the executor's answer cannot be read"
        return Reply(outcome=CallOutcome.FAILED, problem=problem, certainty=Certainty.UNKNOWN)
