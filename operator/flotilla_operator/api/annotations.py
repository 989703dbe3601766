"""What users ask for by annotating an object of ours: things to do once, which are no part of a spec."""

from collections.abc import Mapping
from typing import Any, Final

ANNOTATION_REFRESH: Final = "flotilla.dev/refresh"
ANNOTATION_REBALANCE: Final = "flotilla.dev/rebalance"


def refresh_of(manifest: Mapping[str, Any]) -> str:
    """What flotilla.dev/refresh says; any new value asks for new pods, with the images of the chart."""
    annotations = manifest["metadata"].get("annotations") or {}
    return str(annotations.get(ANNOTATION_REFRESH, ""))


def rebalance_of(manifest: Mapping[str, Any]) -> str:
    """What flotilla.dev/rebalance says: `show` or `apply`, with `:` and anything behind it to ask anew."""
    annotations = manifest["metadata"].get("annotations") or {}
    return str(annotations.get(ANNOTATION_REBALANCE, ""))
