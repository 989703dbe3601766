"""Finds where a live object differs from the manifest that we apply.

Only the fields in the manifest are compared: other fields belong to other managers or are defaults of the
server. Quantities are compared by value (`1000m` equals `1`), and an empty value equals an absent one. Lists
of named items are matched by name, because admission may add containers or volumes.
"""

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, Final

# The keys by which Kubernetes itself merges lists of objects. The first one that every item has is used.
MERGE_KEYS: Final = ("name", "containerPort", "port", "mountPath", "uid", "key", "topologyKey", "type")

_SUFFIXES: Final = {
    "": Decimal(1),
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "k": Decimal(10) ** 3,
    "M": Decimal(10) ** 6,
    "G": Decimal(10) ** 9,
    "T": Decimal(10) ** 12,
    "P": Decimal(10) ** 15,
    "Ki": Decimal(2) ** 10,
    "Mi": Decimal(2) ** 20,
    "Gi": Decimal(2) ** 30,
    "Ti": Decimal(2) ** 40,
    "Pi": Decimal(2) ** 50,
}


def drifted(wanted: Any, live: Any) -> frozenset[str]:
    """The paths at which the live object differs from the manifest."""
    return frozenset(_differences(wanted, live, ""))


def quantity(value: Any) -> Decimal | None:
    """The number in a Kubernetes quantity, or None when the value is not a quantity."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    text = str(value)
    digits = text.rstrip("KMGTPiknum")
    try:
        return Decimal(digits) * _SUFFIXES[text[len(digits) :]]
    except (InvalidOperation, KeyError):
        return None


def _differences(wanted: Any, live: Any, path: str) -> Iterator[str]:
    if isinstance(wanted, Mapping) and isinstance(live, Mapping):
        for key, value in wanted.items():
            yield from _differences(value, live.get(key), f"{path}.{key}")
    elif isinstance(wanted, list | tuple) and isinstance(live, list | tuple):
        yield from _list_differences(wanted, live, path)
    elif not _equal(wanted, live):
        yield path


def _list_differences(wanted: Sequence[Any], live: Sequence[Any], path: str) -> Iterator[str]:
    if (key := _merge_key(wanted, live)) is None:
        if len(wanted) != len(live):
            yield path
            return
        for index, (mine, theirs) in enumerate(zip(wanted, live, strict=True)):
            yield from _differences(mine, theirs, f"{path}[{index}]")
        return
    by_key = {item[key]: item for item in live}
    for item in wanted:
        yield from _differences(item, by_key.get(item[key]), f"{path}[{item[key]}]")


def _merge_key(wanted: Sequence[Any], live: Sequence[Any]) -> str | None:
    items = [*wanted, *live]
    if not wanted or not all(isinstance(item, Mapping) for item in items):
        return None
    for key in MERGE_KEYS:
        for side in (wanted, live):
            values = [item.get(key) for item in side]
            if None in values or len(set(map(str, values))) != len(values):
                break
        else:
            return key
    return None


def _equal(wanted: Any, live: Any) -> bool:
    if wanted == live:
        return True
    if live is None:
        return _is_empty(wanted)
    return quantity(wanted) is not None and quantity(wanted) == quantity(live)


def _is_empty(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(_is_empty(item) for item in value.values())
    return value in (None, "", 0, False) or (isinstance(value, list | tuple) and not value)
