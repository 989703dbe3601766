"""The names and texts under which checkpoints are stored. Pure, and without LangGraph.

A name is a JSON list: what it names, the thread, and the rest. So each part may have any characters. A text
is JSON too, with the bytes of values in base 64.
"""

import base64
import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

Typed = tuple[str, bytes]  # what a serializer gives: the type of the bytes, and the bytes


class FieldKind(StrEnum):
    """The kind of a field of the checkpoints."""

    CHECKPOINT = "c"  # with its metadata and its parent; the rest of the name: namespace, id
    VALUE = "v"  # of a channel in a version; namespace, channel, version
    WRITE = "w"  # of a node, not yet in a checkpoint; namespace, checkpoint, task, number


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """A name, read. `id` is that of the checkpoint; `key` are the parts after the namespace."""

    text: str
    kind: FieldKind
    thread: str
    namespace: str
    key: tuple[Any, ...]

    @property
    def id(self) -> str:
        return str(self.key[0])


def field_name(kind: FieldKind, thread: str, namespace: str, *key: Any) -> str:
    """The name of a field: always the same for the same parts."""
    return json.dumps([kind, thread, namespace, *key], ensure_ascii=False, separators=(",", ":"))


def read_fields(names: Iterable[str]) -> list[Field]:
    """The fields of these names."""
    found = []
    for name in names:
        kind, thread, namespace, *key = json.loads(name)
        found.append(
            Field(text=name, kind=FieldKind(kind), thread=thread, namespace=namespace, key=tuple(key))
        )
    return found


def packed(**parts: Any) -> str:
    """A text of these parts; those that are `Typed` keep their bytes."""
    return json.dumps({name: _plain(part) for name, part in parts.items()}, separators=(",", ":"))


def unpacked(text: str) -> dict[str, Any]:
    """The parts of a text."""
    return {name: _typed(part) for name, part in json.loads(text).items()}


def _plain(part: Any) -> Any:
    if isinstance(part, tuple):
        kind, body = part
        return [kind, base64.b64encode(body).decode()]
    return part


def _typed(part: Any) -> Any:
    if isinstance(part, list):
        kind, body = part
        return kind, base64.b64decode(body)
    return part
