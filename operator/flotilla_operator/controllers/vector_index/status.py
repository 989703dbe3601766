"""An index's whole status, and the events for what changed in it."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from flotilla_operator.api.parts import MESSAGE_LIMIT
from flotilla_operator.cluster.writes import Event, EventType
from flotilla_operator.controllers.conditions import Condition, Truth, merged, transitions
from flotilla_operator.controllers.vector_index.access import KeyReason
from flotilla_operator.controllers.vector_index.facts import Facts
from flotilla_operator.controllers.vector_index.judgement import conditions
from flotilla_operator.controllers.vector_index.progress import Progress, Stage
from flotilla_operator.controllers.vector_index.reasons import (
    STEP_NAMES,
    ConditionType,
    EventReason,
    Phase,
)
from flotilla_operator.controllers.vector_index.seen import Leaving
from flotilla_operator.objects.times import timestamp
from flotilla_operator.workloads.vector_index.retriever import keys_secret, retriever_url
from flotilla_operator.workloads.vector_index.retriever_key import KEY_ENTRY
from flotilla_runtime.contract import BuildReason, BuildStep, DocumentCounts

GATE_REASONS = frozenset({BuildReason.COUNT_MISMATCH, BuildReason.TOO_MANY_DEAD_LETTERS})


def status_and_events(facts: Facts, now: datetime) -> tuple[dict[str, Any], list[Event]]:
    """The whole status, and events for what changed."""
    observed = facts.observed
    judged = conditions(facts)
    before = observed.remembered.conditions
    generation = observed.manifest["metadata"].get("generation", 0)
    active, wanted = facts.active_generation, facts.decision.wanted_generation
    report = facts.promotion
    status: dict[str, Any] = {
        "observedGeneration": generation,
        "phase": str(phase_of(facts, judged)),
        "activeGeneration": active,
        "candidateGeneration": None if facts.decision.done or wanted == active else wanted,
        "url": retriever_url(observed.owner),
        "keys": _keys(facts),
        "documents": _documents(facts),
        "chunks": report.chunks if report is not None else _served_chunks(facts),
        "stages": _stages(facts.progress),
        "gate": _gate(facts, now),
        "shards": {"desired": 1, "ready": int(_is_searched(facts, judged))},
        "blockedBy": _blocked_by(facts, judged),
        "conditions": merged(before, judged, generation=generation, now=now),
    }
    news = [*_promotion_event(facts), *transitions(before, judged)]
    return {key: value for key, value in status.items() if value is not None}, news


def leaving_status(leaving: Leaving) -> dict[str, Any]:
    """The status as before, with the phase Deleting."""
    generation = leaving.manifest["metadata"].get("generation", 0)
    return {**leaving.remembered.whole, "observedGeneration": generation, "phase": str(Phase.DELETING)}


def phase_of(facts: Facts, judged: Sequence[Condition]) -> Phase:
    """`status.phase`; an index that is being deleted gets `leaving_status` instead."""
    progress = facts.progress
    right = {condition.type for condition in judged if condition.status is Truth.TRUE}
    if facts.decision.done:
        if {ConditionType.RETRIEVER_READY, ConditionType.EMBEDDER_READY, ConditionType.MILVUS_READY} <= right:
            return Phase.READY
        was_served = facts.observed.remembered.phase in (Phase.READY, Phase.DEGRADED)
        return Phase.DEGRADED if was_served else Phase.PROMOTING
    if progress is not None and progress.stage is Stage.RUN:
        return Phase.VALIDATING if progress.step is BuildStep.PROMOTE else Phase.BUILDING
    if progress is not None and progress.stage is Stage.START and progress.step is not BuildStep.PLAN:
        return Phase.BUILDING
    return Phase.DEGRADED if facts.active_generation else Phase.PENDING


def _keys(facts: Facts) -> Mapping[str, Any] | None:
    """`status.keys`: the keys that the retriever has been given, as before while it gets no others."""
    observed, access = facts.observed, facts.decision.access
    if observed.spec.paused or observed.lacks_callers_keys or facts.key_refused:
        return observed.remembered.keys
    generated = {"entry": KEY_ENTRY} if access.key is not KeyReason.OF_THE_USERS else {}
    return {
        "secretName": keys_secret(observed.owner, observed.spec),
        **generated,
        "required": access.required,
    }


def _documents(facts: Facts) -> Mapping[str, Any] | None:
    """The newest complete counts: while a build runs, those of the previous one."""
    report = facts.promotion
    return facts.observed.remembered.documents if report is None else _counts(report.documents)


def _counts(counts: DocumentCounts) -> dict[str, int]:
    return {
        "discovered": counts.discovered,
        "indexed": counts.indexed,
        "duplicates": counts.duplicates,
        "deadLettered": counts.dead_lettered,
        "removed": counts.removed,
    }


def _served_chunks(facts: Facts) -> int | None:
    told = facts.observed.retriever_status
    if told is not None and told.chunks is not None:
        return told.chunks
    return facts.observed.remembered.chunks


def _stages(progress: Progress | None) -> list[dict[str, Any]]:
    """`status.stages`: each step with how much of it is done."""
    if progress is None:
        return []
    order = list(STEP_NAMES)
    position = len(order) if progress.stage is Stage.DONE else order.index(progress.step)
    stages = []
    for index, (step, name) in enumerate(STEP_NAMES.items()):
        total = progress.shards if step is BuildStep.SHARDS else 1
        done = total if index < position else 0
        if step is BuildStep.SHARDS and index == position:
            done = progress.shards_done
        stages.append({"name": name, "done": done, "total": total})
    return stages


def _gate(facts: Facts, now: datetime) -> Mapping[str, Any] | None:
    """The result of the newest validation, with the time at which it was first seen."""
    before = facts.observed.remembered.gate
    report = facts.progress.report if facts.progress is not None else None
    if report is None or report.step is not BuildStep.PROMOTE:
        return before
    if report.reason is not None and report.reason not in GATE_REASONS:
        return before
    gate = {
        "countParity": report.count_parity if report.reason is None else False,
        "verdict": "Passed" if report.reason is None else "Failed",
    }
    if report.reason is BuildReason.TOO_MANY_DEAD_LETTERS:
        del gate["countParity"]
    since = None
    if before is not None and {k: v for k, v in before.items() if k != "time"} == gate:
        since = before.get("time")
    return {**gate, "time": since or timestamp(now)}


def _is_searched(facts: Facts, judged: Sequence[Condition]) -> bool:
    """Whether a generation is loaded: the retriever says which, or is ready, which it is once one is."""
    told = facts.observed.retriever_status
    ready = any(c.type == ConditionType.RETRIEVER_READY and c.status is Truth.TRUE for c in judged)
    return ready or bool(told is not None and told.generation)


def _blocked_by(facts: Facts, judged: Sequence[Condition]) -> str | None:
    """`status.blockedBy`: the first condition that keeps a build from starting."""
    progress = facts.progress
    if facts.decision.done or (progress is not None and progress.stage is Stage.RUN):
        return None
    for condition in judged:
        if condition.type != ConditionType.BUILT and condition.status is Truth.FALSE:
            return f"{condition.type}: {condition.message}"[:MESSAGE_LIMIT]
    return None


def _promotion_event(facts: Facts) -> list[Event]:
    generation = facts.decision.wanted_generation
    if not facts.decision.done or facts.observed.remembered.active_generation == generation:
        return []
    note = f"generation {generation} is live: the retriever searches it from now on"
    reason, subject = EventReason.GENERATION_PROMOTED, generation or ""
    return [Event(type=EventType.NORMAL, reason=reason, note=note, subject=subject)]
