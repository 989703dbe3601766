"""Messages to actors: how they are sent, and how an answer is awaited.

The task of a message has an id that is made from its sender's and the call's, and is submitted in the write
that notes the call. So a message is sent once.
"""

import json
from collections.abc import Awaitable
from dataclasses import replace
from functools import partial
from typing import Any, Final

from flotilla_runtime.agent.actors import (
    MOST_MESSAGE_BYTES,
    Address,
    Delivery,
    Policy,
)
from flotilla_runtime.agent.budgets import MessageRefusal, Refusal
from flotilla_runtime.agent.engine.engine import Engine
from flotilla_runtime.agent.engine.entries import Wanted, done_of, intent_of
from flotilla_runtime.agent.engine.history import PastCall
from flotilla_runtime.agent.engine.scopes import Scopes
from flotilla_runtime.agent.failures import ChildFailedError, MessageRefusedError
from flotilla_runtime.agent.journal import CallKind, CallOutcome, Done, EndReason, Intended, TaskStatus
from flotilla_runtime.agent.protocols import ChildEnd, Post, Reply, Session
from flotilla_runtime.agent.tools.results import document_of
from flotilla_runtime.contract import Effect

NO_END: Final = 2**31  # of a mailbox: what a child's parent must hear is always taken
WORDS: Final = {
    MessageRefusal.ACTOR_ENDED: "the actor has ended, and takes no messages",
    MessageRefusal.ASKS_ITSELF: (
        "the actor waits for the one who asks, directly or through others, so each would wait for the other; "
        "use tell"
    ),
}


class Mail:
    """The messages that one run sends."""

    def __init__(self, engine: Engine, scopes: Scopes, session: Session) -> None:
        self._engine = engine
        self._scopes = scopes
        self._session = session

    def wanted(self, kind: CallKind, address: str, message: Any, name: str | None) -> Wanted:
        """The call that sends a message. Raises ValueError where it is none."""
        document = document_of(message, MOST_MESSAGE_BYTES)
        if document.problem is not None:
            raise ValueError(f"the message to the actor {address} {document.problem}")
        word = "tell" if kind is CallKind.TELL else "ask"
        return Wanted(
            id=self._scopes.call_id(name or f"{word}/{address.replace('/', '.')}"),
            kind=kind,
            target=address,
            hashed={"actor": address, "message": document.value},
            arguments=document.value,
            effect=Effect.IDEMPOTENT,
            steps=1,
        )

    async def told(self, wanted: Wanted, delivery: Delivery, policy: Policy) -> str:
        """Send a message, and return the id of its task. Raises MessageRefusedError."""
        done = await self._sent(wanted, self._post(wanted, delivery, policy, is_asked=False))
        return str(_taken(wanted, done).value["task"])

    async def asked(self, wanted: Wanted, delivery: Delivery, policy: Policy) -> Any:
        """Send a message, and return the answer. Raises MessageRefusedError and ChildFailedError."""
        done = await self._sent(wanted, self._post(wanted, delivery, policy, is_asked=True))
        end = ChildEnd(**{**_taken(wanted, done).value, "status": TaskStatus(done.value["status"])})
        if end.reason == EndReason.ACTOR_ENDED:
            raise MessageRefusedError(wanted.id, wanted.target, MessageRefusal.ACTOR_ENDED, end.message)
        if end.status is not TaskStatus.SUCCEEDED:
            raise ChildFailedError(wanted.id, wanted.target, end)
        return end.result

    async def notified(self, delivery: Delivery, notice: dict[str, str]) -> None:
        """Tell a parent of its child's end. That a parent has ended itself is no error."""
        wanted = replace(self.wanted(CallKind.TELL, delivery.to.name, notice, None), steps=0)
        post = replace(self._post(wanted, delivery, Policy(), is_asked=False), mailbox=NO_END)
        await self._sent(wanted, post)

    def _post(self, wanted: Wanted, delivery: Delivery, policy: Policy, *, is_asked: bool) -> Post:
        return Post(
            agent=self._session.agent,
            delivery=delivery,
            text=json.dumps(wanted.arguments, ensure_ascii=False),
            mailbox=policy.mailbox,
            is_asked=is_asked,
        )

    async def _sent(self, wanted: Wanted, post: Post) -> Done:
        past = self._engine.recall.known(wanted)
        if (known := await self._engine.recall.result(past)) is not None:
            return known
        return await self._engine.pace.guarded(self._new(wanted, past, post))

    async def _new(self, wanted: Wanted, past: PastCall | None, post: Post) -> Done:
        engine = self._engine
        await engine.pace.may_begin()
        intent = engine.children.intended(wanted, past, wanted.effect)
        if not post.is_asked:
            return await self._submitted(wanted, past, intent, post) or await self._left(wanted, intent)
        with engine.reserving.giving_up(wanted.id):
            refused = await self._submitted(wanted, past, intent, post)
            return refused or await engine.children.awaited(intent)

    async def _submitted(
        self, wanted: Wanted, past: PastCall | None, intent: Intended, post: Post
    ) -> Done | None:
        """Submit the message if no earlier run has; the result of the call where the actor takes none."""
        if past is not None:
            return None
        submit = partial(self._engine.recording.deliver, intent, post)
        refused = await self._engine.children.submitted(wanted, intent, submit)
        return None if refused is None else await self._refused(wanted, refused, intent.step)

    async def _left(self, wanted: Wanted, intent: Intended) -> Done:
        """Write that a message is sent whose answer nobody awaits."""
        self._engine.reserving.let_go(wanted.id)
        reply = Reply(outcome=CallOutcome.SUCCEEDED, value={"task": intent.child})
        done = done_of(wanted.id, self._engine.pace.now_ms(), reply)
        await self._engine.recording.write(done)
        return done

    async def _refused(self, wanted: Wanted, refusal: Refusal, step: int) -> Done:
        """Write that the actor took no message, so that every replay hears the same."""
        now = self._engine.pace.now_ms()
        reply = Reply(
            outcome=CallOutcome.REFUSED, value=str(refusal.limit), problem=_words(wanted.target, refusal)
        )
        done = done_of(wanted.id, now, reply)
        await self._engine.recording.write(intent_of(replace(wanted, steps=0), now, step), done)
        return done


def _words(address: str, refusal: Refusal) -> str:
    if refusal.limit is MessageRefusal.MAILBOX_FULL:
        return (
            f"the mailbox of the actor {address} has {refusal.committed:g} messages, and may have "
            f"{refusal.most:g} (mailbox); send again later"
        )
    return WORDS[MessageRefusal(refusal.limit)]


def _taken(wanted: Wanted, done: Done) -> Done:
    if done.outcome is CallOutcome.REFUSED:
        problem = done.problem or str(done.outcome)
        raise MessageRefusedError(wanted.id, wanted.target, MessageRefusal(done.value), problem)
    return done


class ActorRef:
    """An actor, as who sends to it sees it. It exists once it has got a message."""

    def __init__(self, mail: Mail, to: Address, policy: Policy, parent: Address | None) -> None:
        self.address: Final = to.name
        self._mail = mail
        self._delivery = Delivery(to=to, parent=parent)
        self._policy = policy

    def tell(self, message: Any = None, *, name: str | None = None) -> Awaitable[str]:
        """Send a message, and return the id of its task without an answer. Raises MessageRefusedError."""
        wanted = self._mail.wanted(CallKind.TELL, self.address, message, name)
        return self._mail.told(wanted, self._delivery, self._policy)

    def ask(self, message: Any = None, *, name: str | None = None) -> Awaitable[Any]:
        """Send a message, and wait for the answer. Raises MessageRefusedError and ChildFailedError."""
        wanted = self._mail.wanted(CallKind.SPAWN, self.address, message, name)
        return self._mail.asked(wanted, self._delivery, self._policy)
