"""Sums of the finished calls of a task, by part of the fleet."""

from collections.abc import Iterable
from typing import Final

from flotilla_runtime.agent.engine.history import PARTS, PastCall
from flotilla_runtime.agent.journal import CallOutcome, Done, Intended
from flotilla_runtime.contract import CACHE_HIT, CACHE_MISS

RATE_LIMIT: Final = "RateLimit"
NOT_MADE: Final = frozenset({CallOutcome.LIMIT_REACHED, CallOutcome.NOT_HAPPENED})


class CallFigures:
    """The figures of one task. Calls that the agent gave up are among them: they kept a part busy, too.

    `busy_ms` is the time that calls took, `counts` how many there were, and `first_tokens_ms` how long each
    call of a model waited for its first token.
    """

    def __init__(self, past: Iterable[PastCall]) -> None:
        self.busy_ms: Final[dict[str, int]] = {}
        self.counts: Final[dict[str, int]] = {}
        self.first_tokens_ms: Final[dict[str, list[int]]] = {}
        for call in past:
            if call.done is not None:
                self.count(call.intent, call.done)

    def count(self, intent: Intended, done: Done) -> None:
        """Add a call that has its result."""
        if intent.kind not in PARTS or done.outcome in NOT_MADE:
            return
        for part, milliseconds in _busy_of(intent, done).items():
            self.busy_ms[part] = self.busy_ms.get(part, 0) + milliseconds
        for part in _counted_of(intent, done):
            self.counts[part] = self.counts.get(part, 0) + 1
        if done.first_token_ms is not None:
            self.first_tokens_ms.setdefault(_part_of(intent, done), []).append(done.first_token_ms)


def _busy_of(intent: Intended, done: Done) -> dict[str, int]:
    """The time that a finished call took, by part; what it waited at a rate limit is that of the limit."""
    waited = done.limited_ms or 0
    busy = {_part_of(intent, done): max(0, done.took_ms - waited)}
    if done.rate_limit is not None and waited:
        busy[f"{RATE_LIMIT}/{done.rate_limit}"] = waited
    return busy


def _counted_of(intent: Intended, done: Done) -> list[str]:
    """The counters that a finished call adds to; one that the cache answered kept no part busy."""
    if done.cached is None:
        return [_part_of(intent, done)]
    return [CACHE_HIT] if done.cached else [_part_of(intent, done), CACHE_MISS]


def _part_of(intent: Intended, done: Done) -> str:
    """The part that made a call, which may be another model than was asked for."""
    return f"{PARTS[intent.kind]}/{done.answered_by or intent.asks or intent.target}"
