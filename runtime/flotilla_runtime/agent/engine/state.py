"""The state of an agent between tasks: values by key, for each tenant and agent, in the fleet's Redis.

Each access is a call in the journal, written with its result in one step. So a read gives the same in every
replay, and a write happens once.
"""

import json
import re
from collections.abc import Awaitable
from typing import Any, Final

from flotilla_runtime.agent.engine.engine import Engine
from flotilla_runtime.agent.engine.entries import Wanted
from flotilla_runtime.agent.engine.scopes import Scopes
from flotilla_runtime.agent.failures import StateFullError
from flotilla_runtime.agent.journal import CallKind, CallOutcome
from flotilla_runtime.agent.protocols import StateOperation, StateRequest
from flotilla_runtime.agent.tools.results import document_of
from flotilla_runtime.contract import Effect

MOST_VALUE_BYTES: Final = 64 * 1024
KEY: Final = re.compile(r"[^\s#/\x00-\x1f][^#\x00-\x1f]{0,149}")


class State:
    """The state of the task's tenant and agent."""

    def __init__(self, engine: Engine, scopes: Scopes, agent: str) -> None:
        self._engine: Final = engine
        self._scopes: Final = scopes
        self._agent: Final = agent

    def get(self, key: str) -> Awaitable[Any]:
        """The value of this key; None where there is none."""
        return self._value(self._wanted(StateOperation.GET, key, {}))

    def put(self, key: str, value: Any) -> Awaitable[None]:
        """Set the value of this key, JSON or pydantic models; None removes it. Raises StateFullError."""
        return self._put(self._wanted(StateOperation.PUT, key, {"value": value}))

    def compare_and_swap(self, key: str, expected: Any, value: Any) -> Awaitable[bool]:
        """Set the value if it is the expected one, where None is no value; whether it was."""
        asked = {"expected": expected, "value": value}
        return self._value(self._wanted(StateOperation.COMPARE_AND_SWAP, key, asked))

    def _wanted(self, operation: StateOperation, key: str, asked: dict[str, Any]) -> Wanted:
        if not KEY.fullmatch(key):
            raise ValueError(
                f"{key[:150]!r} is no key: keys have 1 to 150 characters, without # and control characters, "
                "and begin with no / or space"
            )
        texts = {name: _text(key, value) for name, value in asked.items()}
        told = {
            "operation": str(operation),
            "key": key,
            **{name: json.loads(texts[name] or "null") for name in texts},
        }
        request = StateRequest(
            agent=self._agent,
            operation=operation,
            key=key,
            expected=texts.get("expected", ""),
            value=texts.get("value", ""),
        )
        return Wanted(
            id=self._scopes.call_id(f"state/{key}"),
            kind=CallKind.STATE,
            target=key,
            hashed=told,
            request=request,
            arguments=told,
            effect=Effect.PURE if operation is StateOperation.GET else Effect.IDEMPOTENT,
        )

    async def _value(self, wanted: Wanted) -> Any:
        done = await self._engine.state(wanted)
        if done.outcome is not CallOutcome.SUCCEEDED:
            raise StateFullError(wanted.id, wanted.target, done.outcome, done.problem or str(done.outcome))
        return done.value

    async def _put(self, wanted: Wanted) -> None:
        await self._value(wanted)


def _text(key: str, value: Any) -> str:
    """The value as it is stored, the same text for the same value; empty for none."""
    document = document_of(value, MOST_VALUE_BYTES)
    if document.problem is not None:
        raise ValueError(f"the value of the key {key} {document.problem}")
    if document.value is None:
        return ""
    return json.dumps(document.value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
