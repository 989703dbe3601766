"""Answers of models and indexes to an agent."""

from dataclasses import dataclass
from typing import Any

from flotilla_runtime.agent.models import ToolCall
from flotilla_runtime.contract import Passage


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The answer of a model. `is_cut`: it ran out of tokens. `value`: the value by the call's schema."""

    text: str
    tool_calls: tuple[ToolCall, ...] = ()
    is_cut: bool = False
    value: Any = None
    input_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The passages that an index found, best first, and the generation of the index."""

    passages: tuple[Passage, ...]
    generation: str
