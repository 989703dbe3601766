"""Names and values of cached results; pure.

A name is a hash of all that decides a result. The tenant is in each, so no task gets what another tenant's
task was answered. So is the revision of a tool's fleet. What an index found has the generation that it was
found in, and counts as long as that is the newest that was seen within the last minute.
"""

import base64
import hashlib
import json
import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from flotilla_runtime.agent.protocols import SearchRequest

TOOL_SECONDS: Final = 300.0  # for which a Pure tool's result is kept
SEARCH_SECONDS: Final = 3600.0
GENERATION_SECONDS: Final = 60.0  # after which an index is asked anew what it serves
MOST_ENTRY_BYTES: Final = 256 * 1024
MOST_SIMILAR: Final = 64  # searches of a tenant and index that others are compared with
MOST_DIMENSIONS: Final = 8192

Vector = Sequence[float]


class Kept(Protocol):
    """Where results are kept. Nothing of it fails: what is not there is a miss."""

    async def get(self, *names: str) -> list[str | None]:
        """Return the cached value of each name, None for none."""

    async def put(self, name: str, text: str, seconds: float) -> None:
        """Keep a text for this long, unless others need its room."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A result that is kept; `generation` is that of an index."""

    value: Any
    generation: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Similar:
    """A search that others are compared with: the name of its result, and the vector of its query."""

    name: str
    vector: Vector


def tool_name(tenant: str, revision: str, tool: str, arguments: Any) -> str:
    """The name of a tool's result."""
    return _name("tool", tenant, revision, tool, arguments)


def search_name(tenant: str, index: str, request: SearchRequest) -> str:
    """The name of what an index found."""
    return _name("search", tenant, index, request.query, request.top_k)


def generation_name(index: str) -> str:
    """The name of the generation that an index serves."""
    return _name("generation", index)


def similar_name(tenant: str, index: str, top_k: int | None, embedder: str) -> str:
    """The name of the searches with which one of this tenant and index is compared."""
    return _name("similar", tenant, index, top_k, embedder)


def _name(*parts: Any) -> str:
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def written(result: Result) -> str | None:
    """A result as text; None where it is too large to be kept."""
    text = json.dumps([result.value, result.generation], ensure_ascii=False, separators=(",", ":"))
    return text if len(text.encode(errors="replace")) <= MOST_ENTRY_BYTES else None


def read(text: str | None) -> Result | None:
    """The result that a text stands for; None for none."""
    if text is None:
        return None
    try:
        value, generation = json.loads(text)
    except (ValueError, TypeError):
        return None
    return Result(value=value, generation=generation)


def written_similar(known: Sequence[Similar], newest: Similar) -> str:
    """The searches to compare with as text, the newest first, as many as there is room for."""
    entries: list[tuple[str, str]] = []
    room = MOST_ENTRY_BYTES
    for one in (newest, *(one for one in known if one.name != newest.name))[:MOST_SIMILAR]:
        packed = base64.b64encode(array("f", one.vector).tobytes()).decode()
        room -= len(packed) + len(one.name) + 8
        if room < 0:
            break
        entries.append((one.name, packed))
    return json.dumps(entries, separators=(",", ":"))


def read_similar(text: str | None) -> list[Similar]:
    """The searches that a text stands for."""
    if text is None:
        return []
    try:
        return [
            Similar(name=str(name), vector=array("f", base64.b64decode(packed)))
            for name, packed in json.loads(text)
        ]
    except (ValueError, TypeError):
        return []


def nearest(known: Sequence[Similar], vector: Vector, threshold: float) -> str | None:
    """The name of the most similar search, if it is similar enough; all vectors have the length 1."""
    likeness = [
        (sum(map(float.__mul__, one.vector, vector)), one.name)
        for one in known
        if len(one.vector) == len(vector)
    ]
    best, name = max(likeness, default=(-1.0, ""))
    return name if name and best >= threshold else None


def normalized(vector: Any) -> Vector | None:
    """The vector with the length 1; None for what is none."""
    if not isinstance(vector, list) or not 0 < len(vector) <= MOST_DIMENSIONS:
        return None
    if not all(isinstance(number, int | float) for number in vector):
        return None
    try:
        length = math.hypot(*vector)
        return [number / length for number in vector] if math.isfinite(length) and length else None
    except OverflowError:  # a whole number that no float can be
        return None
