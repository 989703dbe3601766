"""Makes the status, its conditions and the events of a decision and of the writes that were refused."""

from collections.abc import Sequence
from datetime import datetime

from flotilla_operator.cluster.writes import Event, EventType, Told
from flotilla_operator.controllers.failures import corrected
from flotilla_operator.controllers.vector_index.decide import Decision
from flotilla_operator.controllers.vector_index.facts import Facts
from flotilla_operator.controllers.vector_index.farewell import Farewell, FarewellReason
from flotilla_operator.controllers.vector_index.progress import Progress
from flotilla_operator.controllers.vector_index.reasons import STEP_NAMES, EventReason
from flotilla_operator.controllers.vector_index.status import leaving_status, status_and_events
from flotilla_operator.objects.refused_writes import RefusedWrite
from flotilla_operator.objects.resources import SECRETS
from flotilla_operator.workloads.vector_index.retriever_key import retriever_key
from flotilla_runtime.contract import BuildStep


def tell(decision: Decision | Farewell, refusals: Sequence[RefusedWrite], now: datetime) -> Told:
    """The status and the events, corrected by the writes that were refused."""
    if isinstance(decision, Farewell):
        return corrected(_farewell(decision), refusals, decision.leaving.manifest, now)
    owner = decision.observed.owner
    key = SECRETS.ref(owner.namespace, retriever_key(owner).name)
    facts = Facts(decision=decision, key_refused=any(refusal.ref == key for refusal in refusals))
    status, events = status_and_events(facts, now)
    start = decision.next.start
    told = Told(status=status, events=[*([_started(start)] if start is not None else ()), *events])
    return corrected(told, refusals, decision.observed.manifest, now)


def _farewell(decision: Farewell) -> Told:
    """A reconcile that takes the finalizer off writes no status.

    The API server could refuse that status, for example because the stored spec is not valid by today's
    rules, and would then block the deletion.
    """
    match decision.reason:
        case FarewellReason.NOT_HELD | FarewellReason.UNDER_WAY:
            return Told(status=leaving_status(decision.leaving))
        case FarewellReason.NOTHING_OUTSIDE:
            return Told()
        case FarewellReason.REMOVED:
            note = f"the collections of index {decision.leaving.owner.name} were removed from Milvus"
            return Told(events=[Event(type=EventType.NORMAL, reason=EventReason.CLEANUP_DONE, note=note)])
        case FarewellReason.GIVEN_UP | FarewellReason.TOO_LATE:
            note = decision.message or "the collections were not removed in time; drop them by hand"
            return Told(
                events=[Event(type=EventType.WARNING, reason=EventReason.CLEANUP_INCOMPLETE, note=note)]
            )


def _started(start: Progress) -> Event:
    build = start.build
    if start.step is BuildStep.PLAN:
        note = f"build {build.run} of generation {build.generation} started"
        return Event(type=EventType.NORMAL, reason=EventReason.BUILD_STARTED, note=note, subject=build.run)
    return Event(
        type=EventType.NORMAL,
        reason=EventReason.BUILD_STEP_STARTED,
        note=f"the {STEP_NAMES[start.step]} step of build {build.run} started",
        subject=f"{build.run}/{start.step}",
    )
