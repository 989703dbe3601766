"""Maps a task to the input of a graph, and the graph's state to the task's result. Pure."""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from langchain_core.messages import BaseMessage

from flotilla_runtime.agent.failures import TaskFailedError
from flotilla_runtime.agent.journal import EndReason

MESSAGES: Final = "messages"


def input_of(question: str, history: Sequence[Mapping[str, str]], keys: Collection[str] | None) -> Any:
    """The input of the graph. `keys` are those of its schema; None for a graph that takes one value.

    A graph with messages gets the question as the last of them. Any other one gets the question's JSON: an
    object, by its keys. A graph that takes one value also gets a text that is no JSON.
    """
    if keys is not None and MESSAGES in keys:
        return {MESSAGES: [*map(dict, history), {"role": "user", "content": question}]}
    try:
        value = json.loads(question)
    except ValueError:
        if keys is None:
            return question
        value = None
    if keys is not None and not isinstance(value, dict):
        raise TaskFailedError(
            EndReason.INVALID,
            "spec.agent.graph: the graph's state has no messages, so the task's input must be a JSON object "
            f"with {', '.join(sorted(keys)) or 'its keys'}",
        )
    return value


def result_of(output: Any) -> Any:
    """The text of the last message; without messages, the whole output."""
    if isinstance(output, Mapping):
        messages = output.get(MESSAGES)
        if isinstance(messages, Sequence) and messages and isinstance(messages[-1], BaseMessage):
            return str(messages[-1].text)
    return output
