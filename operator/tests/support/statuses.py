"""Whole statuses as golden files: one scene in full, the others as what differs from it."""

import json
from collections.abc import Mapping
from typing import Any

from flotilla_operator.cluster.status import without_nulls
from golden_files import Whole, difference, objects_of
from tests.support.rendering import yaml_of


def status_text(manifest: Mapping[str, Any], status: Mapping[str, Any]) -> str:
    """The status as the API server stores it: the figures under the object's name, then each condition."""
    stored: dict[str, Any] = json.loads(json.dumps(without_nulls(status)))
    conditions = stored.pop("conditions")
    head = {
        "kind": manifest["kind"],
        "metadata": {"name": manifest["metadata"]["name"]},
        "status": stored,
    }
    named = [
        {"kind": "Condition", "name": one["type"], **{k: v for k, v in one.items() if k != "type"}}
        for one in conditions
    ]
    return yaml_of([head, *named])


def status_difference(text: str, *, file: str, whole: str) -> str:
    """Differences from the whole text, which is in this file."""
    return difference(Whole(file=file, parts=objects_of(whole)), objects_of(text))
