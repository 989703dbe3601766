"""Actors as values: addresses, messages, what is kept of an actor, and when it ends. Pure.

An actor lives in the store alone. Each message is a task, and the tasks of one actor run in order, one at a
time, like those of a conversation. So an actor without messages costs no worker, and has one writer.
"""

import inspect
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from flotilla_runtime.agent.journal import EndReason

MOST_MESSAGE_BYTES: Final = 48 * 1024
MOST_STATE_BYTES: Final = 48 * 1024
LONGEST_ADDRESS: Final = 140  # with what stands before it, a key of the state has 150 characters at most
MAILBOX: Final = 100  # messages, the one under way included
MOST_MAILBOX: Final = 1000
RESTARTS: Final = 3
RESTART_SECONDS: Final = 60.0
MOST_RESTARTS: Final = 100
OF_ACTORS: Final = "#actors"  # ends the name of the state in which actors are kept; no agent's name has a #
PART: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,62}")
NOT_ITS_FAULT: Final = frozenset({EndReason.CANCELLED, EndReason.ACTOR_ENDED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """The result of `receive`: the new state, and the answer to the sender. With `ends`, the actor ends."""

    state: Any = None
    answer: Any = None
    ends: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorEnded:
    """The message that an actor gets when a child of it has ended."""

    address: str
    reason: EndReason
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where an actor is found, and the code that handles its messages, as `module:name`."""

    name: str
    handler: str

    @property
    def line(self) -> tuple[str, ...]:
        """The names of the actors above it, and its own: it ends with any of them."""
        return line_of(self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A message on its way. `parent` is the sender, if the actor is its child.

    The message of a child that has ended is a `notice`.
    """

    to: Address
    parent: Address | None = None
    is_notice: bool = False

    @property
    def text(self) -> str:
        """The text for Redis."""
        return json.dumps(asdict(self))

    @classmethod
    def of(cls, text: str) -> "Delivery":
        """Read a text from Redis."""
        told = json.loads(text)
        parent = told["parent"]
        return cls(
            to=Address(**told["to"]),
            parent=Address(**parent) if parent else None,
            is_notice=told["is_notice"],
        )

    def message_of(self, text: str) -> Any:
        """The message, from the input of its task."""
        told = json.loads(text)
        if not self.is_notice:
            return told
        return ActorEnded(address=told["address"], reason=EndReason(told["reason"]), message=told["message"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How many messages wait at most, and how often an actor may fail within how many seconds."""

    mailbox: int = MAILBOX
    restarts: int = RESTARTS
    restart_seconds: float = RESTART_SECONDS

    @classmethod
    def of(cls, handler: Any) -> "Policy":
        """Read the policy from the attributes of a handler. Raises ValueError for a bad one."""
        told = {name: getattr(handler, name) for name in cls.__slots__ if hasattr(handler, name)}
        policy = cls(**told)
        for name, least, most in (("mailbox", 1, MOST_MAILBOX), ("restarts", 0, MOST_RESTARTS)):
            value = getattr(policy, name)
            if not isinstance(value, int) or not least <= value <= most:
                raise ValueError(f"{name} of the actor is {value!r}; it is a number from {least} to {most}")
        if not isinstance(policy.restart_seconds, int | float) or policy.restart_seconds <= 0:
            raise ValueError(
                f"restart_seconds of the actor is {policy.restart_seconds!r}; it is a number over 0"
            )
        return policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """The stored record of an actor: its state, its parent and the times of its latest failures."""

    state: Any = None
    parent: Address | None = None
    failures: Sequence[int] = field(default_factory=tuple)

    @property
    def document(self) -> dict[str, Any]:
        """The record as JSON."""
        return {
            "state": self.state,
            "parent": asdict(self.parent) if self.parent else None,
            "failures": list(self.failures),
        }

    @classmethod
    def of(cls, told: Mapping[str, Any] | None) -> "Kept":
        """Read what is kept; a new actor has nothing."""
        if told is None:
            return cls()
        parent = told["parent"]
        return cls(
            state=told["state"],
            parent=Address(**parent) if parent else None,
            failures=tuple(told["failures"]),
        )


def address_of(name: str, above: str | None = None) -> str:
    """The address of an actor, below that of its parent. Raises ValueError."""
    address = name if above is None else f"{above}/{name}"
    if len(address) > LONGEST_ADDRESS or not all(PART.fullmatch(part) for part in address.split("/")):
        raise ValueError(
            f"{address[:LONGEST_ADDRESS]!r} is no address of an actor: it has 1 to {LONGEST_ADDRESS} "
            "characters, in parts of letters, digits and . _ : @ - with a / between them"
        )
    return address


def line_of(name: str) -> tuple[str, ...]:
    """The names of the actors above this one, and its own."""
    parts = name.split("/")
    return tuple("/".join(parts[: place + 1]) for place in range(len(parts)))


def kept_key(name: str) -> str:
    """The key under which an actor is kept."""
    return f"actor/{name}"


def ended_key(name: str) -> str:
    """The key that says how an actor has ended."""
    return f"ended/{name}"


def unless_kept(key: str) -> tuple[str, ...]:
    """The keys with any of which nothing is written under this one: the actor has ended, or one above it."""
    return tuple(map(ended_key, line_of(key.partition("/")[2])))


def gone_with(key: str) -> tuple[str, ...]:
    """The keys that go, with all below them, when this one is written: an end answers for all below it."""
    name = key.partition("/")[2]
    return (kept_key(name), ended_key(name)) if key == ended_key(name) else ()


def reference_of(handler: Any) -> str:
    """The code of a handler as `module:name`. Raises ValueError if a worker could not find it again."""
    receive = handler.receive if inspect.isclass(handler) and hasattr(handler, "receive") else handler
    if not inspect.iscoroutinefunction(receive):
        raise ValueError(
            f"{handler!r} handles no messages: write `async def receive(ctx, state, message)`, as a function "
            "or as the method of a class"
        )
    name = str(handler.__qualname__)
    if "<" in name:
        raise ValueError(f"the handler {name} must stand at the top of a module, where each worker finds it")
    return f"{handler.__module__}:{name}"


def failures_within(failures: Sequence[int], at: int, policy: Policy) -> tuple[int, ...]:
    """The failures that count at this time, of which one is now."""
    since = at - policy.restart_seconds * 1000
    return (*(one for one in failures if one > since), at)


def must_end(failures: Sequence[int], policy: Policy) -> bool:
    """Whether an actor has failed more often than it may be restarted."""
    return len(failures) > policy.restarts
