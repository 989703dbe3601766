"""Calls of the benchmarks' agents: a model, and tools that are paths of the effect server."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final


class Kind(StrEnum):
    """Purpose of a call. The values are the tools' names, and paths of the effect server."""

    MODEL = "model"
    LOOK_UP = "look_up"  # Pure
    BOOK = "book"  # Idempotent: the server knows the key
    SHIP = "ship"  # Unsafe, with a reconcile
    NOTIFY = "notify"  # Unsafe: somebody must resolve it


EFFECTS: Final[Mapping[Kind, str]] = {
    Kind.LOOK_UP: "Pure",
    Kind.BOOK: "Idempotent",
    Kind.SHIP: "Unsafe",
    Kind.NOTIFY: "Unsafe",
}
UNSAFE: Final = frozenset(kind for kind, effect in EFFECTS.items() if effect == "Unsafe")
ARGUMENTS: Final = {
    "type": "object",
    "properties": {
        "task": {"type": "integer"},
        "step": {"type": "string"},
        "beforeMs": {"type": "integer"},
        "afterMs": {"type": "integer"},
    },
}


def tool_config(kind: Kind, effects_url: str) -> dict[str, Any]:
    """A tool as the workers' configuration file has it."""
    tool: dict[str, Any] = {
        "name": kind,
        "description": "A step of the benchmark.",
        "parameters": ARGUMENTS,
        "http": {"url": f"{effects_url}/{kind}"},
        "effect": EFFECTS[kind],
    }
    if kind is Kind.SHIP:
        tool["reconcile"] = {"http": {"url": f"{effects_url}/happened"}}
    return tool
