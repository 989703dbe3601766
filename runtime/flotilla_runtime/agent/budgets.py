"""Reservations and usage of calls, within the limits of a task. Pure.

Money is counted in billionths of a dollar: an integer, so sums are exact, also in Redis' scripts, which count
exactly up to 2^53 (nine million dollars).
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

NANO_PER_UNIT: Final = 1_000_000_000


class LimitName(StrEnum):
    """A limit of a tree of tasks, as callers know it."""

    STEPS = "maxSteps"
    TOKENS = "maxTokens"
    COST = "maxCostUSD"
    WALL = "maxWallSeconds"
    DEPTH = "maxDepth"
    FAN_OUT = "maxFanOut"
    SHARE = "queuePercent"  # of bytes, of all tasks of the caller


class MessageRefusal(StrEnum):
    """Why an actor takes no message."""

    MAILBOX_FULL = "mailbox"
    ACTOR_ENDED = "actorEnded"
    ASKS_ITSELF = "asksItself"  # it waits for the one who asks, directly or through others


@dataclass(frozen=True, slots=True, kw_only=True)
class Amount:
    """The amount that a call reserves or has used. `nano_usd` is 0 where no price is known."""

    steps: int = 0
    tokens: int = 0
    nano_usd: int = 0

    def __add__(self, other: "Amount") -> "Amount":
        return Amount(
            steps=self.steps + other.steps,
            tokens=self.tokens + other.tokens,
            nano_usd=self.nano_usd + other.nano_usd,
        )

    def __sub__(self, other: "Amount") -> "Amount":
        return Amount(
            steps=self.steps - other.steps,
            tokens=self.tokens - other.tokens,
            nano_usd=self.nano_usd - other.nano_usd,
        )


NOTHING: Final = Amount()


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The state of a tree of tasks: its limits, and what is used and reserved.

    `most` has None where there is no limit.
    """

    used: Amount
    reserved: Amount
    most_steps: int
    most_tokens: int
    most_nano_usd: int | None

    @property
    def left_tokens(self) -> int:
        return max(0, self.most_tokens - self.used.tokens - self.reserved.tokens)

    def has_room(self, amount: Amount) -> bool:
        """Whether tokens and money last for this too."""
        held = self.used.nano_usd + self.reserved.nano_usd + amount.nano_usd
        has_money = self.most_nano_usd is None or held <= self.most_nano_usd
        return amount.tokens <= self.left_tokens and has_money

    def settled(self, held: Amount, used: Amount) -> "Budget":
        """The budget after a call that held so much has used so much of it."""
        return replace(self, used=self.used + used, reserved=self.reserved - held)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A call that a limit does not allow. While others hold reservations, it may be allowed later."""

    call: str
    limit: LimitName | MessageRefusal
    most: float
    committed: float
    wanted: float
    may_change: bool
