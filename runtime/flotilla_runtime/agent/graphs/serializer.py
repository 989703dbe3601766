"""Writes the state of graphs as bytes, and reads it without letting the bytes say what is run.

LangGraph's serializer can build any object that the bytes name. This one builds plain values, messages, and
the classes that the graph's own state declares, and nothing else: whoever writes to Redis names no class to a
worker. What could not be read back is refused when it is written, so no state changes silently.
"""

from typing import Any, Final

import ormsgpack
from langgraph.checkpoint.serde import _msgpack
from langgraph.checkpoint.serde.jsonplus import (
    EXT_DELTA_SNAPSHOT,
    EXT_NUMPY_ARRAY,
    JsonPlusSerializer,
)

from flotilla_runtime.agent.failures import AgentError
from flotilla_runtime.agent.journal import EndReason

READ: Final = ("null", "bytes", "bytearray", "msgpack")


class StateNotStoredError(AgentError):
    """The state of a graph has a value that cannot be stored. Ends the task as Invalid."""

    reason = EndReason.INVALID

    def __init__(self, problem: str) -> None:
        super().__init__(f"spec.agent.graph: the graph's state cannot be stored: {problem}")


class StrictSerializer(JsonPlusSerializer):
    """LangGraph's serializer for known types alone. Its graph adds those that its state declares."""

    def __init__(self) -> None:
        super().__init__(pickle_fallback=False, allowed_json_modules=None, allowed_msgpack_modules=None)

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        """The type and the bytes; raises StateNotStoredError for what could not be read back."""
        try:
            written = super().dumps_typed(obj)
        except (ormsgpack.MsgpackEncodeError, TypeError, ValueError, RecursionError) as problem:
            raise StateNotStoredError(f"{type(obj).__name__}: {_root(problem)}") from problem
        if written[0] == "msgpack" and (unknown := sorted(self._unknown(written[1]))):
            raise StateNotStoredError(
                f"{unknown[0]} is no type that the graph's state declares; name it in the annotations of the "
                "state, or keep plain values"
            )
        return written

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        """The value; raises ValueError for a type that `dumps_typed` never gives."""
        if data[0] not in READ:
            raise ValueError(f"a checkpoint has the type {data[0][:50]!r}, which is not read")
        return super().loads_typed(data)

    def _unknown(self, written: bytes) -> set[str]:
        """The classes that the bytes name, and that would not be built from them."""
        unknown: set[str] = set()
        allowed = self._allowed_msgpack_modules
        declared = allowed if isinstance(allowed, set) else set()

        def look(code: int, data: bytes) -> Any:
            if code == EXT_NUMPY_ARRAY:
                return None
            named = ormsgpack.unpackb(data, ext_hook=look, option=ormsgpack.OPT_NON_STR_KEYS)
            if code == EXT_DELTA_SNAPSHOT:
                return None
            key = (named[0], named[1])
            if key not in _msgpack.SAFE_MSGPACK_TYPES and key not in declared:
                unknown.add(".".join(key))
            return ()

        ormsgpack.unpackb(written, ext_hook=look, option=ormsgpack.OPT_NON_STR_KEYS)
        return unknown


def _root(problem: BaseException) -> BaseException:
    """The first cause of a problem."""
    while problem.__cause__ is not None:
        problem = problem.__cause__
    return problem
