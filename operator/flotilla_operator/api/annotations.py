"""The annotations that a user sets on an object to ask for something to be done once."""

from collections.abc import Mapping
from typing import Any, Final

ANNOTATION_REFRESH: Final = "flotilla.dev/refresh"
ANNOTATION_REBALANCE: Final = "flotilla.dev/rebalance"


def refresh_of(manifest: Mapping[str, Any]) -> str:
    """The value of flotilla.dev/refresh. Each new value asks for new pods with the images of the chart."""
    annotations = manifest["metadata"].get("annotations") or {}
    return str(annotations.get(ANNOTATION_REFRESH, ""))


def rebalance_of(manifest: Mapping[str, Any]) -> str:
    """The value of flotilla.dev/rebalance: `show` or `apply`.

    `:` and any text may follow. The text makes it a new value, so that the same can be asked for again.
    """
    annotations = manifest["metadata"].get("annotations") or {}
    return str(annotations.get(ANNOTATION_REBALANCE, ""))
