"""What models and indexes give an agent."""

from dataclasses import dataclass
from typing import Any

from flotilla_runtime.agent.models import ToolCall
from flotilla_runtime.contract import Passage


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a model answered. `is_cut`: it stopped for want of tokens. `value`: that of a schema."""

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
