"""Makes the status, its conditions and the events of a decision and of the writes that were refused."""

from collections.abc import Sequence
from datetime import datetime

from flotilla_operator.cluster.writes import Told
from flotilla_operator.controllers.agent_fleet.decide import Decision
from flotilla_operator.controllers.agent_fleet.seen import Observed
from flotilla_operator.controllers.agent_fleet.status import status_and_events
from flotilla_operator.controllers.failures import corrected
from flotilla_operator.objects.refused_writes import RefusedWrite


def tell(
    observed: Observed, decision: Decision | None, refusals: Sequence[RefusedWrite], now: datetime
) -> Told:
    """The status and the events, corrected by the writes that were refused."""
    if decision is None:
        return corrected(Told(), refusals, observed.manifest, now)
    status, events = status_and_events(observed, decision, now)
    return corrected(Told(status=status, events=events), refusals, observed.manifest, now)
