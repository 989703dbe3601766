"""Memory of a fleet in its status: conditions, revision, and the ages of older revisions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from flotilla_operator.api.fleet_status import AgentFleetStatus
from flotilla_operator.controllers.agent_fleet.rollout import named
from flotilla_operator.controllers.stored_status import conditions_before, stored_status
from flotilla_operator.objects.resources import Manifest
from flotilla_operator.objects.times import parsed_timestamp


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """State that the last reconcile wrote; empty for a new fleet."""

    conditions: Sequence[Mapping[str, Any]] = ()
    revision: str | None = None
    older_since: Mapping[str, datetime] = field(default_factory=dict)


def remembered(manifest: Manifest) -> Remembered:
    """Read the state that the status of this fleet keeps."""
    status = stored_status(AgentFleetStatus, manifest)
    return Remembered(
        conditions=conditions_before(status),
        revision=status.revision,
        older_since={
            named(one.revision): since
            for one in status.older_revisions
            if (since := _time(one.since_time)) is not None
        },
    )


def _time(text: str) -> datetime | None:
    """The time of a stored status; None for what nobody can compare with."""
    try:
        time = parsed_timestamp(text)
    except ValueError:
        return None
    return None if time.tzinfo is None else time
