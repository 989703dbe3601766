"""The checks of a task's result: each validator in turn, and once more for a result that was repaired.

Every check is a call in the journal. A result that was checked before, in this run or by the journal, is not
checked again. A task of which a validator gave no verdict has nothing to repair, and ends. A validator that
takes no calls, because its circuit is open, has not seen the result: the task waits, and asks again.
"""

from collections.abc import Awaitable, Mapping
from typing import Any, Final, Protocol

from flotilla_runtime.agent.answers import Answer
from flotilla_runtime.agent.engine.endings import MOST_RESULT_BYTES
from flotilla_runtime.agent.engine.engine import Engine
from flotilla_runtime.agent.engine.entries import Wanted, hash_of
from flotilla_runtime.agent.engine.scopes import Scope, Scopes
from flotilla_runtime.agent.failures import CallFailedError, NotCheckedError, RejectedError
from flotilla_runtime.agent.journal import CallKind, CallOutcome
from flotilla_runtime.agent.tools.results import KIB, document_of
from flotilla_runtime.agent.verdicts import (
    MOST_VERDICT_KIB,
    MOST_VERDICT_TOKENS,
    VERDICT,
    Refused,
    judge_messages,
    no_verdict,
    refused_by,
    target_of,
    told,
)
from flotilla_runtime.contract import JudgeConfig, ValidatorConfig

MOST_ROUNDS: Final = 2  # one for the result, one for its repair
PATIENCE_SECONDS: Final = 120.0  # of a task, with validators that take no calls
LONGEST_LEAST_PAUSE_SECONDS: Final = 16.0  # between two calls, also if a validator says less

Refusals = tuple[Refused, ...]


class Judges(Protocol):
    """Asks the model that judges."""

    def __call__(self, messages: list[dict[str, str]], role: str, hashed: Any) -> Awaitable[Answer]:
        """The answer of the model with this role, which has the form of a verdict."""


class Validating:
    """The validators of one task."""

    def __init__(
        self,
        validators: tuple[ValidatorConfig, ...],
        task_input: str,
        engine: Engine,
        scopes: Scopes,
        judge: Judges,
    ) -> None:
        self._validators = validators
        self._input = task_input
        self._engine = engine
        self._scopes = scopes
        self._judge = judge
        self._rounds: dict[str, Refusals] = {}
        self._begun = 0
        self._waited_seconds = 0.0
        self._not_checked: NotCheckedError | None = None

    @property
    def is_needed(self) -> bool:
        """Whether the task's result is checked at all."""
        return bool(self._validators)

    def refusals(self, result: Any) -> Awaitable[Refusals]:
        """Return the refusals of this result by its validators.

        Raises RejectedError where nobody can tell, or a repair is refused too, and NotCheckedError where a
        validator takes no calls.
        """
        place = self._scopes.allotted("validate") if self.is_needed else None
        return self._refusals(result, place)

    async def passed(self, result: Any) -> Any:
        """The result, which every validator has accepted. Raises RejectedError and NotCheckedError."""
        if refusals := await self.refusals(result):
            raise RejectedError(told(refusals))
        return result

    async def _refusals(self, result: Any, place: Scope | None) -> Refusals:
        document = document_of(result, MOST_RESULT_BYTES)
        if place is None or document.problem is not None:
            return ()  # a result that cannot be stored ends the task anyway
        asked = hash_of(document.value)
        if asked in self._rounds:
            return self._rounds[asked]
        if self._not_checked is not None:
            raise self._not_checked
        if self._begun == MOST_ROUNDS:
            raise RejectedError(told(next(reversed(self._rounds.values()), ())))
        self._begun += 1
        with self._scopes.entered(place):
            said = [await self._said(one, document.value, asked) for one in self._validators]
        refusals = self._rounds[asked] = tuple(refused for refused in said if refused is not None)
        if not all(one.is_verdict for one in refusals):
            raise RejectedError(told(refusals))
        return refusals

    async def _said(self, validator: ValidatorConfig, result: Any, asked: str) -> Refused | None:
        if validator.judge is not None:
            return await self._judged(validator, validator.judge, result, asked)
        number = 0
        while True:
            number += 1
            done = await self._engine.call(
                Wanted(
                    id=self._scopes.call_id(validator.name),
                    kind=CallKind.TOOL,
                    target=target_of(validator),
                    hashed={"validator": validator.name, "result": asked},
                    request={"input": self._input, "result": result},
                    most_bytes=MOST_VERDICT_KIB * KIB,
                )
            )
            if done.outcome is CallOutcome.SUCCEEDED:
                return refused_by(validator.name, done.value)
            if done.retry_after_ms is None:
                return no_verdict(validator.name, f"it gave no verdict: {done.problem or done.outcome}")
            await self._pause(validator.name, number, done.retry_after_ms / 1000, done.problem or "")

    async def _pause(self, validator: str, number: int, later: float, problem: str) -> None:
        """Wait for a validator that took no call. The pauses follow from the journal, as they are hashed."""
        left = PATIENCE_SECONDS - self._waited_seconds
        if left <= 0:
            raise self._unchecked(validator, problem)
        least = min(2.0 ** (number - 1), LONGEST_LEAST_PAUSE_SECONDS)
        seconds = min(max(later, least), left)
        self._waited_seconds += seconds
        call = self._scopes.call_id(f"{validator}/sleep")
        await self._engine.sleep(Wanted(id=call, kind=CallKind.SLEEP, target="", hashed=seconds), seconds)

    def _unchecked(self, validator: str, problem: str) -> NotCheckedError:
        """The end of the task, also where its agent handles it."""
        self._not_checked = NotCheckedError(validator, problem)
        return self._not_checked

    async def _judged(
        self, validator: ValidatorConfig, judge: JudgeConfig, result: Any, asked: str
    ) -> Refused | None:
        messages = judge_messages(judge, self._input, result, mark=f"result-{hash_of([self._input, result])}")
        with self._scopes.scope(validator.name):
            try:
                answer = await self._judge(messages, judge.role, {"role": judge.role, "result": asked})
            except CallFailedError as failed:
                if failed.retry_after_seconds is not None:  # its call has waited for the model already
                    raise self._unchecked(validator.name, failed.problem) from failed
                return no_verdict(validator.name, f"it gave no verdict: {failed.problem}")
        verdict = answer.value if isinstance(answer.value, Mapping) and not answer.is_cut else None
        return refused_by(validator.name, verdict)


def judging(ctx: Any) -> Judges:
    """Asks a judge by the calls of this context."""

    def ask(messages: list[dict[str, str]], role: str, hashed: Any) -> Awaitable[Answer]:
        answer: Awaitable[Answer] = ctx.llm(
            messages, role=role, schema=VERDICT, max_tokens=MOST_VERDICT_TOKENS, hashed=hashed
        )
        return answer

    return ask
