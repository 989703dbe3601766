"""Reciprocal rank fusion: one ranking from several, by places alone, since scores of sources do not compare.

An item's score is the sum of weight / (60 + rank) over the sources that found it (Cormack, Clarke and
Büttcher, 2009, who found 60). Pure.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from flotilla_runtime.agent.tools.results import document_of
from flotilla_runtime.contract import Passage

SMOOTHING: Final = 60
MOST_ITEM_BYTES: Final = 2**20
LISTS: Final = ("passages", "results", "items", "rows", "hits", "documents")

Items = Callable[[Any], Sequence[Any]]
Key = Callable[[Any], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """An item, its fused score, and its rank in each source that found it."""

    item: Any
    score: float
    ranks: Mapping[str, int] = field(default_factory=dict)

    @property
    def document(self) -> dict[str, Any]:
        """The hit as JSON."""
        return {"item": _plain(self.item), "score": self.score, "ranks": dict(self.ranks)}


def fused(
    found: Mapping[str, Sequence[Any]], *, weights: Mapping[str, float], key: Key | None, most: int
) -> tuple[Hit, ...]:
    """The best items of all sources. Of equal scores, what the earlier source has comes first."""
    key = key or key_of
    items: dict[str, Any] = {}
    ranks: dict[str, dict[str, int]] = {}
    for source, ranked in found.items():
        for rank, item in enumerate(ranked, start=1):
            name = key(item)
            items.setdefault(name, item)
            ranks.setdefault(name, {}).setdefault(source, rank)
    hits = [
        Hit(
            item=item,
            score=sum(weights.get(source, 1) / (SMOOTHING + rank) for source, rank in ranks[name].items()),
            ranks=ranks[name],
        )
        for name, item in items.items()
    ]
    return tuple(sorted(hits, key=lambda hit: -hit.score)[:most])


def key_of(item: Any) -> str:
    """The key of an item, the same for equal items: its text if it has one, else all but the score."""
    plain = _plain(item)
    if not isinstance(plain, Mapping):
        return json.dumps(plain, sort_keys=True)
    text = plain.get("text")
    if isinstance(text, str) and text.strip():
        return " ".join(text.split())
    return json.dumps({name: value for name, value in plain.items() if name != "score"}, sort_keys=True)


def items_of(value: Any) -> Sequence[Any]:
    """The items in what a tool gave: a list, or the list of an object under a usual name."""
    if isinstance(value, list | tuple):
        return value
    if isinstance(value, Mapping):
        for name in LISTS:
            if isinstance(value.get(name), list):
                return list(value[name])
    usual = ", ".join(LISTS)
    raise ValueError(f"the source gave no list, and no object with a list under one of {usual}; set items")


def _plain(item: Any) -> Any:
    if isinstance(item, Passage):
        return item.model_dump(by_alias=True, exclude_none=True)
    document = document_of(item, MOST_ITEM_BYTES)
    if document.problem is not None:
        raise ValueError(f"an item {document.problem}")
    return document.value
