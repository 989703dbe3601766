"""Decides which calls of an unfinished answer may begin: those that change nothing. Pure.

A try of the model may die, and the next one may want other calls. A call that changes nothing can then be
dropped; any other one waits for the whole answer.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from flotilla_runtime.agent.models import ToolCall

HASH_LETTERS: Final = 12


def keys_of(calls: Sequence[ToolCall]) -> list[str]:
    """A key for each call: the same in every try that asks the same. Equal calls are numbered."""
    times: Counter[str] = Counter()
    keys = []
    for call in calls:
        name = f"{call.name}-{_hash(call)}"
        times[name] += 1
        keys.append(name if times[name] == 1 else f"{name}-{times[name]}")
    return keys


def is_sound(call: ToolCall) -> bool:
    """Whether the call can be made as it is."""
    return call.problem is None and call.arguments is not None


def why_unsound(call: ToolCall) -> str:
    """Why a call that is not sound is not made, as the model reads it."""
    return f"not called: {call.problem.message if call.problem else 'the arguments are no object'}"


def why_unknown(call: ToolCall, known: Iterable[str]) -> str:
    """Why a call of a tool that there is not is not made, as the model reads it."""
    return f"not called: there is no tool {call.name[:100]!r}; there are {', '.join(known) or 'none'}"


def _hash(call: ToolCall) -> str:
    text = call.arguments_text if call.arguments is None else json.dumps(call.arguments, sort_keys=True)
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:HASH_LETTERS]
