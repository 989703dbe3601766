"""What a fleet's own status remembers: its conditions, with the times at which they changed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flotilla_operator.api.fleet_status import AgentFleetStatus
from flotilla_operator.controllers.stored_status import conditions_before, stored_status
from flotilla_operator.objects.resources import Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """What the last reconcile wrote; empty for a new fleet."""

    conditions: Sequence[Mapping[str, Any]] = ()


def remembered(manifest: Manifest) -> Remembered:
    """What the status of this fleet remembers."""
    return Remembered(conditions=conditions_before(stored_status(AgentFleetStatus, manifest)))
