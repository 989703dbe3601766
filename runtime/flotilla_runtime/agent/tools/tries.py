"""The tries of one call, of which each says whether another one may do better."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final

from flotilla_runtime.agent.journal import CallOutcome
from flotilla_runtime.agent.protocols import Certainty, Reply
from flotilla_runtime.agent.retries import RetryPolicy
from flotilla_runtime.backoff import Draw

MAY_PASS: Final = frozenset({429, 502, 503, 504})
OF_A_PROXY: Final = frozenset({502, 504})  # which does not know what became of the request


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """How one try ended. `may_pass` says that another try may do better and is allowed."""

    reply: Reply
    may_pass: bool = False


async def tried(one: Callable[[], Awaitable[Answer]], retries: RetryPolicy, draw: Draw) -> Reply:
    """The reply of the last try; refused if yet another one might have done better."""
    for failures in range(1, retries.tries + 1):
        answer = await one()
        if not answer.may_pass or failures == retries.tries:
            break
        await asyncio.sleep(retries.pause_seconds(failures, None, draw))
    return replace(answer.reply, tries=failures, is_refused=answer.may_pass)


def failed(problem: str, certainty: Certainty = Certainty.KNOWN) -> Reply:
    """The reply of a call that failed."""
    return Reply(outcome=CallOutcome.FAILED, problem=problem, certainty=certainty)
