"""How an actor handles a message, and what comes of one that it could not handle.

Its state is read before `receive` and written after it, by calls of the message's own task. The tasks of an
actor run one at a time, so nobody else writes in between. When a handler fails, the state stays what it was:
the actor restarts with the next message. If it has failed too often, it ends, and its parent is told.
"""

import asyncio
import inspect
import sys
from dataclasses import asdict, replace
from typing import Any, Final

from flotilla_runtime.agent.actors import (
    MOST_STATE_BYTES,
    NOT_ITS_FAULT,
    OF_ACTORS,
    ActorEnded,
    Delivery,
    Kept,
    Policy,
    Turn,
    ended_key,
    failures_within,
    kept_key,
    must_end,
)
from flotilla_runtime.agent.engine.endings import Ending
from flotilla_runtime.agent.engine.engine import Engine
from flotilla_runtime.agent.engine.mail import Mail
from flotilla_runtime.agent.engine.scopes import Scopes
from flotilla_runtime.agent.engine.state import State
from flotilla_runtime.agent.failures import TaskFailedError
from flotilla_runtime.agent.journal import EndReason
from flotilla_runtime.agent.protocols import Session
from flotilla_runtime.agent.tools.references import ProgramError, referred
from flotilla_runtime.agent.tools.results import document_of

BEFORE: Final = "mailbox"  # the scopes of our own calls
AFTER: Final = "supervision"


class Handling:
    """The handling of one message."""

    def __init__(self, engine: Engine, scopes: Scopes, session: Session, delivery: Delivery) -> None:
        self._engine = engine
        self._scopes = scopes
        self._delivery = delivery
        self._name = delivery.to.name
        self._state = State(engine, scopes, session.agent + OF_ACTORS)
        self._mail = Mail(engine, scopes, session)

    async def answer(self, ctx: Any, task_input: str) -> Any:
        """Let the handler receive the message, keep the new state, and return the answer."""
        _refuse(await self._ended(BEFORE))
        kept, before = await self._kept(BEFORE)
        handler = await self._handler()
        message = self._delivery.message_of(task_input)
        code: Any = handler() if inspect.isclass(handler) else None
        receive = handler if code is None else code.receive
        turn = await receive(ctx, kept.state, message)
        if not isinstance(turn, Turn):
            raise TypeError(
                f"receive returned {type(turn).__name__}; it must return a Turn(state=…, answer=…)"
            )
        document = document_of(turn.state, MOST_STATE_BYTES)
        if document.problem is not None:
            raise ValueError(f"the state of the actor {self._name} {document.problem}")
        parent = kept.parent or self._delivery.parent
        if turn.ends:
            await self._end(BEFORE, parent, EndReason.COMPLETED, "it ended by itself")
        else:
            _refuse(await self._keep(BEFORE, before, replace(kept, state=document.value, parent=parent)))
        return turn.answer

    async def failed(self, ending: Ending, at: int) -> None:
        """Count that a message could not be handled, at this time; end the actor if that is too often."""
        if ending.reason in NOT_ITS_FAULT:
            return
        kept, before = await self._kept(AFTER)
        policy = await self._policy()
        parent = kept.parent or self._delivery.parent
        failures = failures_within(kept.failures, at, policy)
        if not must_end(failures, policy):
            await self._keep(AFTER, before, replace(kept, parent=parent, failures=failures))
            return
        message = (
            f"it failed {len(failures)} times within {policy.restart_seconds:g} s, and may be restarted "
            f"{policy.restarts} times; at last {ending.message}"
        )
        await self._end(AFTER, parent, ending.reason, message)

    async def _ended(self, scope: str) -> str | None:
        """How the actor has ended, or one above it; None if none of them has."""
        for name in self._delivery.to.line:
            with self._scopes.aside(scope):
                ended = await self._state.get(ended_key(name))
            if ended is not None:
                return f"the actor {name} has ended as {ended['reason']}: {ended['message']}"
        return None

    async def _kept(self, scope: str) -> tuple[Kept, Any]:
        """Return the record of the actor, and the document that holds it."""
        with self._scopes.aside(scope):
            found = await self._state.get(kept_key(self._name))
        return Kept.of(found), found

    async def _keep(self, scope: str, before: Any, kept: Kept) -> str | None:
        """Keep the state, unless an actor above has ended meanwhile: then how."""
        with self._scopes.aside(scope):
            is_kept = await self._state.compare_and_swap(kept_key(self._name), before, kept.document)
        if is_kept:
            return None
        if (ended := await self._ended(scope)) is not None:
            return ended
        raise TaskFailedError(EndReason.INFRASTRUCTURE, f"somebody else wrote the state of {self._name}")

    async def _end(self, scope: str, parent: Any, reason: EndReason, message: str) -> None:
        """Take no further message, and tell the parent. What is kept of the actor, and below it, goes."""
        with self._scopes.aside(scope):
            told = {"reason": str(reason), "message": message}
            await self._state.put(ended_key(self._name), told)
            if parent is not None:
                notice = asdict(ActorEnded(address=self._name, reason=reason, message=message))
                await self._mail.notified(Delivery(to=parent, is_notice=True), notice)

    async def _handler(self) -> Any:
        """The code of the actor. A module that is not loaded yet is imported in a thread."""
        reference = self._delivery.to.handler
        try:
            if reference.partition(":")[0] in sys.modules:
                return referred("the actor's handler", reference)
            loading = asyncio.to_thread(referred, "the actor's handler", reference)
            return await self._engine.pace.guarded(loading)
        except ProgramError as problem:
            raise TaskFailedError(EndReason.INVALID, str(problem)) from problem

    async def _policy(self) -> Policy:
        try:
            return Policy.of(await self._handler())
        except (TaskFailedError, ValueError):
            return Policy()


def _refuse(ended: str | None) -> None:
    if ended is not None:
        raise TaskFailedError(EndReason.ACTOR_ENDED, ended)
