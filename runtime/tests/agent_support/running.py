"""Runs agents against a store in memory, with calls that answer from a script."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from agent_support.memory import CrashPoints, MemoryStore
from flotilla_runtime.agent.budgets import Amount, Budget
from flotilla_runtime.agent.engine.run import Clock, Means, RunOutcome, TaskRun
from flotilla_runtime.agent.journal import CallKind, CallOutcome
from flotilla_runtime.agent.models import ModelRequest, ToolDeclaration, prompt_bound
from flotilla_runtime.agent.patterns.values import OnPattern, unheard
from flotilla_runtime.agent.programs import Program
from flotilla_runtime.agent.protocols import Call, Reconciled, Reply, Session
from flotilla_runtime.agent.tools.values import Tool, schema_check
from flotilla_runtime.contract import (
    Effect,
    IndexConnection,
    ModelConnection,
    QueueConfig,
    ToolConfig,
    WorkerConfig,
)

PASSAGE = {"id": "p1", "document": "a.html", "title": "A", "heading": "", "text": "So it is.", "score": 1.0}
OPEN_SCHEMA = {"type": "object"}


def found(*passages: Mapping[str, Any], generation: str = "g-1") -> Reply:
    return Reply(outcome=CallOutcome.SUCCEEDED, value=list(passages), generation=generation)


def said(value: Any, *, input_tokens: int = 40, output_tokens: int = 4, **fields: Any) -> Reply:
    return Reply(
        outcome=CallOutcome.SUCCEEDED,
        value=value,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        **fields,
    )


def failed(problem: str, outcome: CallOutcome = CallOutcome.FAILED) -> Reply:
    return Reply(outcome=outcome, problem=problem)


def usual(call: Call) -> Reply:
    """One passage for each search, an answer, and for a tool its own arguments."""
    match call.kind:
        case CallKind.RETRIEVE:
            return found(PASSAGE)
        case CallKind.MODEL:
            return said("So it is.")
        case _:
            return Reply(outcome=CallOutcome.SUCCEEDED, value=call.request)


@dataclass(slots=True)
class ScriptedCalls:
    """Answers calls by a function; `hold` keeps them from ending. `effects` counts what tools did, by key."""

    script: Callable[[Call], Reply | Awaitable[Reply]] = usual
    points: CrashPoints = field(default_factory=CrashPoints)
    hold: asyncio.Event | None = None
    known: Reconciled | None = None
    made: list[str] = field(default_factory=list)
    asked: list[Call] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    effects: dict[str, int] = field(default_factory=dict)
    reserved_tokens: int | None = None

    async def reservation(self, call: Call, session: Session, budget: Budget) -> tuple[Call, Amount]:
        if not isinstance(call.request, ModelRequest):
            return call, Amount()
        if self.reserved_tokens is not None:
            return call, Amount(steps=1, tokens=self.reserved_tokens)
        return call, Amount(steps=1, tokens=prompt_bound(call.request.messages) + 100)

    async def make(self, call: Call, session: Session) -> Reply:
        await asyncio.sleep(0)
        self.points.reach(f"before call {call.id}")
        self.made.append(call.id)
        self.asked.append(call)
        if call.kind is CallKind.TOOL:
            self.effects[call.key] = self.effects.get(call.key, 0) + 1
        try:
            if self.hold is not None:
                await self.hold.wait()
            reply = self.script(call)
            reply = reply if isinstance(reply, Reply) else await reply
        except asyncio.CancelledError:
            self.stopped.append(call.id)
            raise
        self.points.reach(f"after call {call.id}")
        return reply

    async def reconcile(self, call: Call, session: Session) -> Reconciled | None:
        return self.known


def config_of(*, indexes: tuple[str, ...] = (), **fields: Any) -> WorkerConfig:
    defaults: dict[str, Any] = {
        "queue": QueueConfig(fleet="default/support"),
        "prompt": "You answer questions about PostgreSQL.",
        "models": (ModelConnection(role="Default", name="smollm2", url="http://m/v1", model="smollm2"),),
        "indexes": tuple(IndexConnection(name=index, url=f"http://{index}/v1/retrieve") for index in indexes),
    }
    return WorkerConfig(**{**defaults, **fields})


def tool_of(
    name: str, effect: Effect = Effect.UNSAFE, schema: Mapping[str, Any] = OPEN_SCHEMA, **fields: Any
) -> Tool:
    return Tool(
        config=ToolConfig(name=name, effect=effect, python="m:f", **fields),
        declaration=ToolDeclaration(name=name, parameters=schema),
        problem_of=schema_check(schema),
    )


def program_of(main: Any, *tools: Tool, config: WorkerConfig | None = None) -> Program:
    return Program(main=main, config=config or config_of(), tools={tool.config.name: tool for tool in tools})


def begin(
    store: MemoryStore,
    program: Program,
    calls: Any,
    task_id: str = "t1",
    worker: str = "w",
    on_pattern: OnPattern = unheard,
) -> TaskRun:
    """Take the task over by a new worker; its clock is the store's."""
    claim, task = store.claim(task_id, worker)
    clock = Clock(monotonic_seconds=lambda: store.now_ms / 1000)
    means = Means(worker=worker, journal=store, calls=calls, clock=clock, on_pattern=on_pattern)
    return TaskRun(claim, task, program, means)


async def run(
    store: MemoryStore,
    program: Program,
    calls: Any,
    task_id: str = "t1",
    on_pattern: OnPattern = unheard,
) -> RunOutcome:
    return await begin(store, program, calls, task_id, on_pattern=on_pattern).run()
