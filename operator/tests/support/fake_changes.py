"""Patches, applies and selectors of the fake API server, as functions of values."""

import copy
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

Manifest = dict[str, Any]

REQUIREMENT = re.compile(
    r"\s*(?P<absent>!)?(?P<key>[\w./-]+)\s*"
    r"(?:(?P<same>==?|!=)\s*(?P<value>[\w.-]*)|\s(?P<among>in|notin)\s*\((?P<values>[^)]*)\))?\s*(?:,|$)"
)


class PatchError(Exception):
    """A JSON patch that cannot be applied: a test that fails, or a path that is not there."""


def merge(target: Manifest, patch: Mapping[str, Any]) -> None:
    """Change `target` by a merge patch (RFC 7386)."""
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, Mapping):
            if not isinstance(target.get(key), dict):
                target[key] = {}
            merge(target[key], value)
        else:
            target[key] = value


def prune(target: Manifest, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Remove what a manager applied before and no longer applies."""
    for key, value in before.items():
        if key not in now:
            target.pop(key, None)
        elif isinstance(value, dict) and isinstance(now[key], dict) and isinstance(target.get(key), dict):
            prune(target[key], value, now[key])


def applied(held: Manifest | None, before: Manifest, now: Manifest) -> Manifest:
    """The object after a server-side apply, when the same manager applied `before` the last time."""
    changed = copy.deepcopy(held) if held is not None else {}
    prune(changed, before, now)
    merge(changed, copy.deepcopy(now))
    return changed


def in_the_way(held: Mapping[str, Any], before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The fields that an apply would change although it did not set them the last time."""
    found = []
    for key, value in now.items():
        if key in ("apiVersion", "kind") or key not in held:
            continue
        old = before.get(key)
        if isinstance(value, dict) and isinstance(held[key], dict):
            inner = in_the_way(held[key], old if isinstance(old, dict) else {}, value)
            found += [f".{key}{path}" for path in inner]
        elif held[key] != value and old != held[key]:
            found.append(f".{key}")
    return found


def only(part: str, body: Manifest) -> Manifest:
    """Fields of an applied object that count."""
    if part == "status":
        return {**body, "metadata": {k: v for k, v in body["metadata"].items() if k in ("name", "namespace")}}
    return {key: value for key, value in body.items() if part == "all" or key != "status"}


def with_untouched(part: str, held: Manifest, changed: Manifest) -> Manifest:
    """The changed object, with what this request cannot change as it was."""
    kept = ("uid", "creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds")
    metadata = {key: value for key, value in changed["metadata"].items() if key not in kept}
    metadata |= {key: held["metadata"][key] for key in kept if key in held["metadata"]}
    if part == "all":
        return {**changed, "metadata": metadata}
    if part == "status":
        return {**held, **({"status": changed["status"]} if "status" in changed else {})}
    rest = {key: value for key, value in changed.items() if key != "status"}
    return {**rest, "metadata": metadata, **({"status": held["status"]} if "status" in held else {})}


def same_fields(one: Any, other: Any) -> bool:
    """Whether two applied objects set the same fields, to whatever values."""
    if not isinstance(one, Mapping) or not isinstance(other, Mapping):
        return isinstance(one, Mapping) is isinstance(other, Mapping)
    return one.keys() == other.keys() and all(same_fields(one[key], other[key]) for key in one)


def json_patched(held: Manifest, operations: Iterable[Mapping[str, Any]]) -> Manifest:
    """A copy after all operations of a JSON patch (RFC 6902)."""
    changed = copy.deepcopy(held)
    for operation in operations:
        try:
            _patch_one(changed, operation)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise PatchError(f"{operation['op']} operation does not apply: {operation['path']}") from error
    return changed


def _patch_one(target: Manifest, operation: Mapping[str, Any]) -> None:
    *parents, last = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
    place: Any = target
    for part in parents:
        place = place[int(part)] if isinstance(place, list) else place[part]
    index: Any = (len(place) if last == "-" else int(last)) if isinstance(place, list) else last
    match operation["op"]:
        case "test":
            held = place.get(index) if isinstance(place, dict) else place[index]
            if held != operation.get("value"):
                raise PatchError(f"testing value {operation['path']} failed")
        case "remove":
            del place[index]
        case "add" if isinstance(place, list):
            if index > len(place):
                raise IndexError(index)
            place.insert(index, operation["value"])
        case "add" | "replace":
            place[index] = operation["value"]
        case other:
            raise ValueError(f"the fake API does not know {other}")


def label_selector(text: str) -> Callable[[Mapping[str, str]], bool]:
    """Whether labels are selected; ValueError for a selector that is none."""
    requirements = []
    position = 0
    while position < len(text):
        found = REQUIREMENT.match(text, position)
        if found is None:
            raise ValueError(f"unable to parse requirement: {text[position:]!r}")
        requirements.append(_requirement(found))
        position = found.end()
    return lambda labels: all(holds(labels) for holds in requirements)


def _requirement(found: re.Match[str]) -> Callable[[Mapping[str, str]], bool]:
    key, value = found["key"], found["value"]
    if found["same"] == "!=":
        return lambda labels: labels.get(key) != value
    if found["same"]:
        return lambda labels: labels.get(key) == value
    if found["among"]:
        values = {one.strip() for one in found["values"].split(",")}
        inside = found["among"] == "in"
        return lambda labels: (labels.get(key) in values) is inside
    absent = bool(found["absent"])
    return lambda labels: (key not in labels) is absent


def field_selector(text: str) -> Callable[[Manifest], bool]:
    """Whether an object is selected by its fields: `metadata.name=a,spec.nodeName!=b`."""
    wanted = []
    for part in filter(None, text.split(",")):
        path, sign, value = re.split(r"(!=|==?)", part, maxsplit=1)
        wanted.append((path.split("."), value, sign != "!="))
    return lambda manifest: all((_at(manifest, path) == value) is same for path, value, same in wanted)


def _at(manifest: Manifest, path: Iterable[str]) -> str:
    found: Any = manifest
    for part in path:
        found = (found or {}).get(part)
    return str(found or "")
