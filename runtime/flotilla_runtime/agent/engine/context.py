"""The interface that an agent is written against: `async def agent(ctx, task)`.

Every awaitable of `ctx` is a call in the task's journal. After a crash the agent runs again from its
beginning, and each call that has a result gives it at once. So the code between calls must do the same each
time: time and chance come from `ctx.now()` and `ctx.random()`, and what changes something outside is a tool.
"""

import random
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

from flotilla_runtime.agent.actors import Address, Policy, address_of, reference_of
from flotilla_runtime.agent.answers import Answer, Found
from flotilla_runtime.agent.engine.branches import Branches
from flotilla_runtime.agent.engine.checkpoints import Checkpoints
from flotilla_runtime.agent.engine.compensations import MOST_ARGUMENTS_BYTES as MOST_COMPENSATION_BYTES
from flotilla_runtime.agent.engine.compensations import MOST_REGISTERED
from flotilla_runtime.agent.engine.engine import Engine
from flotilla_runtime.agent.engine.entries import Wanted
from flotilla_runtime.agent.engine.mail import ActorRef, Mail
from flotilla_runtime.agent.engine.scopes import Scopes
from flotilla_runtime.agent.engine.state import State
from flotilla_runtime.agent.engine.using import MOST_ARGUMENTS_BYTES, Using, failed_call
from flotilla_runtime.agent.engine.validating import Refusals, Validating, judging
from flotilla_runtime.agent.failures import (
    ChildFailedError,
    ModelFailedError,
    NoSignalError,
    PromptTooLongError,
    SearchFailedError,
    ToolFailedError,
)
from flotilla_runtime.agent.journal import CallKind, CallOutcome, TaskStatus
from flotilla_runtime.agent.models import ModelRequest, NamedTool, ToolChoice, ToolDeclaration
from flotilla_runtime.agent.models.journal_form import is_cut, schema_value_of, text_of, tool_calls_of
from flotilla_runtime.agent.models.values import OnEvent
from flotilla_runtime.agent.patterns.calls import Patterns
from flotilla_runtime.agent.patterns.runtime import Branching
from flotilla_runtime.agent.programs import Program
from flotilla_runtime.agent.protocols import ChildEnd, SearchRequest, Session
from flotilla_runtime.agent.tasks import Decision
from flotilla_runtime.agent.tools.results import document_of
from flotilla_runtime.contract import DEFAULT_ROLE, Effect, Passage, Priority, TaskLimits

MOST_INPUT_BYTES: Final = 1024 * 1024
A_DAY_SECONDS: Final = 86_400.0
MOST_FOUND_BYTES: Final = 64 * 1024  # about; an index's own limits decide
ALL_THAT_IS_LEFT: Final = 2**31  # tokens; context and budget cut it to what they leave


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """The task that an agent works on.

    `history` is what was said in its conversation before, oldest first, as messages of OpenAI's form.
    """

    id: str
    input: str
    tenant: str
    priority: Priority
    limits: TaskLimits
    metadata: Mapping[str, str] = field(default_factory=dict)
    history: Sequence[Mapping[str, str]] = ()


class Context(Patterns):
    """The runtime, as an agent sees it."""

    def __init__(
        self,
        engine: Engine,
        program: Program,
        session: Session,
        scopes: Scopes,
        task_input: str = "",
        address: Address | None = None,
    ) -> None:
        self.partial: Any = None
        self._engine: Final = engine
        self.program: Program = program
        self._session: Final = session
        self._scopes: Final = scopes
        self.branches: Branching = Branches(engine, scopes)
        self._using: Final = Using(engine, program)
        self._registered = 0
        self._address: Final = address
        self._mail: Final = Mail(engine, scopes, session)
        self.validating: Final = Validating(
            program.config.validators, task_input, engine, scopes, judging(self)
        )

    @property
    def state(self) -> State:
        """Values that are kept between tasks, for this task's tenant and agent."""
        return State(self._engine, self._scopes, self._session.agent)

    @property
    def checkpoints(self) -> Checkpoints:
        """The checkpoints of a graph between its steps; for the code that runs graphs."""
        return self._engine.checkpoints

    @property
    def scopes(self) -> Scopes:
        """The scopes of the run; for the code that runs graphs."""
        return self._scopes

    def scope(self, name: str) -> AbstractContextManager[None]:
        """A scope for the calls made in it: `with ctx.scope("lisbon"): …`. Each parallel branch needs one."""
        return self._scopes.scope(name)

    def llm(
        self,
        messages: str | Sequence[Mapping[str, Any]],
        *,
        role: str = DEFAULT_ROLE,
        tools: Sequence[ToolDeclaration] = (),
        tool_choice: ToolChoice | NamedTool | None = None,
        schema: Mapping[str, Any] | None = None,
        max_tokens: int | None = None,
        temperature: float = 0,
        name: str | None = None,
        continues: bool = False,
        answers: bool = False,
        hashed: Any = None,
        on_event: OnEvent | None = None,
    ) -> Awaitable[Answer]:
        """Ask the model with this role; one that the fleet lacks stands for Default.

        Messages are those of OpenAI's chat completions; a text is one message of the user. Without
        `max_tokens` an answer may take what the context and the task's budget leave. The model's bound holds
        always.

        With `answers` the text is the task's answer, or a part of it: front ends stream it to their clients,
        unless validators must accept it first.

        Raises ModelFailedError. `hashed` replaces what must stay the same when the task is resumed.
        `on_event` is told what the model writes, as long as it writes: no answer from the journal has events.
        """
        said = [{"role": "user", "content": messages}] if isinstance(messages, str) else list(messages)
        model = self.program.model(role)
        request = ModelRequest(
            session_id=self._session.task_id,
            priority=self._session.priority,
            messages=tuple(said),
            max_tokens=max_tokens or ALL_THAT_IS_LEFT,
            tools=tuple(tools),
            tool_choice=tool_choice,
            response_schema=schema,
            temperature=temperature,
            continues=continues,
            answers=answers and not self.validating.is_needed,
        )
        asked = {"role": role, "messages": said, "tools": [tool.name for tool in tools], "schema": schema}
        wanted = Wanted(
            id=self._scopes.call_id(name or f"llm/{role}"),
            kind=CallKind.MODEL,
            target=model.name,
            hashed=asked if hashed is None else hashed,
            request=request,
            steps=1,
            on_event=on_event,
        )
        return self._answered(wanted)

    def retrieve(
        self, index: str, query: str, *, top_k: int | None = None, name: str | None = None, steps: int = 0
    ) -> Awaitable[Found]:
        """Search an index of the fleet. Raises SearchFailedError."""
        asked = {"index": index, "query": query, "topK": top_k}
        wanted = Wanted(
            id=self._scopes.call_id(name or f"retrieve/{index}"),
            kind=CallKind.RETRIEVE,
            target=index,
            hashed=asked,
            request=SearchRequest(query=query, top_k=top_k),
            arguments={"query": query} if top_k is None else {"query": query, "topK": top_k},
            steps=steps,
            most_bytes=MOST_FOUND_BYTES,
        )
        return self._found(wanted)

    def tool(
        self, tool: str, arguments: Mapping[str, Any] | None = None, *, name: str | None = None
    ) -> Awaitable[Any]:
        """Call a tool of the fleet with these arguments, JSON or pydantic models. Raises ToolFailedError."""
        call = self._scopes.call_id(name or f"tool/{tool}")
        return self._using.used(*self._using.wanted(call, tool, arguments))

    def compensate(
        self, tool: str, arguments: Mapping[str, Any] | None = None, *, name: str | None = None
    ) -> Awaitable[None]:
        """Have a tool called if the task ends without a result. Await this before the effect that it undoes.

        Compensations are called in reverse order, after the agent has ended. Raises ToolFailedError where the
        tool cannot be called so.
        """
        self._registered += 1
        if self._registered > MOST_REGISTERED:
            raise ValueError(f"a task may register {MOST_REGISTERED} compensations at most")
        call = self._scopes.call_id(name or f"compensate/{tool}")
        wanted, problem = self._using.wanted(call, tool, arguments, MOST_COMPENSATION_BYTES)
        return self._noted(replace(wanted, kind=CallKind.COMPENSATE, effect=Effect.PURE), problem)

    def spawn(self, task_input: str, *, agent: str | None = None, name: str | None = None) -> Awaitable[Any]:
        """Have a task of its own done by the same agent, or by another one of the fleet; return its result.

        Raises ChildFailedError.
        """
        if len(task_input.encode()) > MOST_INPUT_BYTES:
            raise ValueError(f"the input of a spawned task may have {MOST_INPUT_BYTES} bytes at most")
        if agent is not None and agent not in self.program.agents:
            raise ValueError(
                f"there is no agent {agent}; there are: {', '.join(self.program.agents) or 'none'}"
            )
        wanted = Wanted(
            id=self._scopes.call_id(name or ("spawn" if agent is None else f"agent/{agent}")),
            kind=CallKind.SPAWN,
            target=agent or "",
            hashed=task_input if agent is None else {"agent": agent, "input": task_input},
        )
        return self._spawned(wanted, task_input)

    @property
    def address(self) -> str | None:
        """The address of the actor that handles a message; None in a task of its own."""
        return self._address.name if self._address else None

    def actor(self, name: str, handler: Any, *, child: bool = False) -> ActorRef:
        """An actor of this task's tenant, to which one sends with `tell` and `ask`.

        `handler` is the class or function of the image whose `receive(ctx, state, message)` handles its
        messages. With `child`, the actor that handles a message is its parent, and its address begins with
        the parent's. Raises ValueError.
        """
        if child and self._address is None:
            raise ValueError(f"the actor {name} can be a child only of an actor that handles a message")
        parent = self._address if child else None
        address = address_of(name, parent.name if parent else None)
        to = Address(name=address, handler=reference_of(handler))
        return ActorRef(self._mail, to, Policy.of(handler), parent)

    def validate(self, result: Any) -> Awaitable[Refusals]:
        """Ask the fleet's validators about a result; who refuses it. The agent may then return a better one.

        Raises RejectedError where a validator gave no verdict, and NotCheckedError where one takes no calls.
        What the agent returns is checked in any case; of a task, two results are checked at most.
        """
        return self.validating.refusals(result)

    def approve(
        self, name: str, about: Any = None, *, deadline_seconds: float = A_DAY_SECONDS
    ) -> Awaitable[Decision]:
        """Ask somebody who may approve, and show them `about`: JSON or pydantic models.

        The task gives its place up until somebody has decided. Who refuses, or lets the deadline pass, is no
        error: `approved` is then False.
        """
        document = document_of(about, MOST_ARGUMENTS_BYTES)
        if document.problem is not None:
            raise ValueError(f"what is shown for the approval {name} {document.problem}")
        wanted = Wanted(
            id=self._scopes.call_id(f"approve/{name}"),
            kind=CallKind.APPROVE,
            target=name,
            hashed=document.value,
            arguments=document.value,
        )
        return self._decided(wanted, deadline_seconds)

    def signal(self, name: str, timeout_seconds: float = A_DAY_SECONDS) -> Awaitable[Any]:
        """Wait for a signal of this name, and return its value. Raises NoSignalError after the time."""
        call = self._scopes.call_id(f"signal/{name}")
        wanted = Wanted(id=call, kind=CallKind.SIGNAL, target=name, hashed=name)
        return self._signalled(wanted, timeout_seconds)

    def sleep(self, seconds: float, *, name: str | None = None) -> Awaitable[None]:
        """Wait. A task that only waits holds no place in a worker, and its time does not count."""
        call = self._scopes.call_id(name or "sleep")
        wanted = Wanted(id=call, kind=CallKind.SLEEP, target="", hashed=seconds)
        return self._engine.sleep(wanted, max(0.0, seconds))

    def now(self, *, name: str | None = None) -> Awaitable[datetime]:
        """The time, in UTC: the same in every replay."""
        call = self._scopes.call_id(name or "now")
        return self._moment(Wanted(id=call, kind=CallKind.NOW, target="", hashed=None))

    def random(self, *, name: str | None = None) -> Awaitable[float]:
        """A number from 0 up to 1, drawn once: the same in every replay."""
        call = self._scopes.call_id(name or "random")
        return self._drawn(Wanted(id=call, kind=CallKind.RANDOM, target="", hashed=None))

    async def _answered(self, wanted: Wanted) -> Answer:
        done = await self._engine.call(wanted)
        if done.outcome is not CallOutcome.SUCCEEDED:
            too_long = done.outcome is CallOutcome.PROMPT_TOO_LONG
            error = PromptTooLongError if too_long else ModelFailedError
            raise error(*failed_call(wanted, done))
        return Answer(
            text=text_of(done.value),
            tool_calls=tool_calls_of(done.value),
            is_cut=is_cut(done.value),
            value=schema_value_of(done.value),
            input_tokens=done.input_tokens,
            output_tokens=done.output_tokens,
        )

    async def _found(self, wanted: Wanted) -> Found:
        done = await self._engine.call(wanted)
        if done.outcome is not CallOutcome.SUCCEEDED:
            raise SearchFailedError(*failed_call(wanted, done))
        passages = tuple(Passage.model_validate(passage) for passage in done.value or ())
        return Found(passages=passages, generation=done.generation or "")

    async def _noted(self, wanted: Wanted, problem: str | None) -> None:
        outcome = CallOutcome.SUCCEEDED if problem is None else CallOutcome.INVALID
        done = await self._engine.note(wanted, None, outcome, problem)
        if done.outcome is not CallOutcome.SUCCEEDED:
            raise ToolFailedError(*failed_call(wanted, done))

    async def _decided(self, wanted: Wanted, seconds: float) -> Decision:
        done = await self._engine.outside(wanted, seconds)
        if done.outcome is CallOutcome.TIMED_OUT:
            return Decision(approved=False)
        return Decision(**done.value)

    async def _signalled(self, wanted: Wanted, seconds: float) -> Any:
        done = await self._engine.outside(wanted, seconds)
        if done.outcome is not CallOutcome.SUCCEEDED:
            raise NoSignalError(wanted.id, wanted.target, done.outcome, done.problem or str(done.outcome))
        return done.value

    async def _spawned(self, wanted: Wanted, task_input: str) -> Any:
        done = await self._engine.spawn(wanted, task_input)
        end = ChildEnd(
            status=TaskStatus(done.value["status"]),
            reason=done.value["reason"],
            message=done.value["message"],
            result=done.value["result"],
            partial=done.value["partial"],
        )
        if end.status is not TaskStatus.SUCCEEDED:
            raise ChildFailedError(wanted.id, wanted.target or wanted.id, end)
        return end.result

    async def _moment(self, wanted: Wanted) -> datetime:
        done = await self._engine.note(wanted, self._engine.pace.now_ms)
        return datetime.fromtimestamp(done.value / 1000, UTC)

    async def _drawn(self, wanted: Wanted) -> float:
        return float((await self._engine.note(wanted, random.random)).value)
