"""What a plan amounts to: the whole status, and the events of what changed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from flotilla_operator.cluster.writes import Event, EventType
from flotilla_operator.controllers.conditions import (
    Condition,
    Truth,
    conditions_of,
    merged,
    timestamp,
    transitions,
)
from flotilla_operator.controllers.vector_index.judgement import Facts, conditions
from flotilla_operator.controllers.vector_index.progress import Progress, Stage
from flotilla_operator.controllers.vector_index.reasons import ConditionType, EventReason, Phase
from flotilla_operator.controllers.vector_index.seen import Leaving, Observed
from flotilla_operator.workloads.vector_index.retriever import retriever_url
from flotilla_runtime.contract import BuildReason, BuildStep, DocumentCounts, StepReport

STEPS = (("Plan", BuildStep.PLAN), ("Index", BuildStep.SHARDS), ("Promote", BuildStep.PROMOTE))
GATE_REASONS = frozenset({BuildReason.COUNT_MISMATCH, BuildReason.TOO_MANY_DEAD_LETTERS})


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What was seen and what is done about it."""

    observed: Observed
    progress: Progress | None
    wanted_generation: str | None
    names_taken: tuple[str, ...] = ()

    @property
    def before(self) -> Mapping[str, Any]:
        """The status as it stands."""
        return self.observed.manifest.get("status") or {}

    @property
    def promoted(self) -> bool:
        """Whether the wanted build is the live one."""
        return self.progress is not None and self.progress.stage is Stage.DONE

    @property
    def active_generation(self) -> str | None:
        """What is served: as the retriever says, else as the last promotion left it."""
        if self.promoted:
            return self.wanted_generation
        told = self.observed.retriever_status
        if told is not None and told.generation is not None:
            return told.generation
        return self.before.get("activeGeneration")


def status_and_events(outcome: Outcome, now: datetime) -> tuple[dict[str, Any], list[Event]]:
    """The whole status, and what of it is news."""
    observed = outcome.observed
    facts = Facts(observed=observed, names_taken=outcome.names_taken, progress=outcome.progress)
    judged = conditions(facts)
    before = conditions_of(observed.manifest)
    generation = observed.manifest["metadata"].get("generation", 0)
    active = outcome.active_generation
    candidate = None if outcome.promoted or outcome.wanted_generation == active else outcome.wanted_generation
    told = observed.retriever_status
    report = _promotion(outcome)
    status: dict[str, Any] = {
        "observedGeneration": generation,
        "phase": str(phase_of(outcome, judged)),
        "activeGeneration": active,
        "candidateGeneration": candidate,
        "url": retriever_url(observed.owner),
        "documents": _documents(outcome),
        "chunks": report.chunks if report is not None else _served_chunks(outcome),
        "stages": _stages(outcome.progress),
        "gate": _gate(outcome, now),
        "shards": {
            "desired": 1,
            "ready": 1 if told is not None and told.generation else _ready_shards(judged),
        },
        "blockedBy": _blocked_by(outcome, judged),
        "conditions": merged(before, judged, generation=generation, now=now),
    }
    news = [*_promotion_event(outcome), *transitions(before, judged)]
    return {key: value for key, value in status.items() if value is not None}, news


def leaving_status(leaving: Leaving) -> dict[str, Any]:
    """The status as it stood, in the phase Deleting."""
    before = leaving.manifest.get("status") or {}
    generation = leaving.manifest["metadata"].get("generation", 0)
    return {**before, "observedGeneration": generation, "phase": str(Phase.DELETING)}


def phase_of(outcome: Outcome, judged: Sequence[Condition]) -> Phase:
    """One word for the whole; an index that leaves has `leaving_status`."""
    progress = outcome.progress
    right = {condition.type for condition in judged if condition.status is Truth.TRUE}
    if outcome.promoted:
        if {ConditionType.RETRIEVER_READY, ConditionType.EMBEDDER_READY, ConditionType.MILVUS_READY} <= right:
            return Phase.READY
        return Phase.DEGRADED if outcome.before.get("phase") in ("Ready", "Degraded") else Phase.PROMOTING
    if progress is not None and progress.stage is Stage.RUN:
        return Phase.VALIDATING if progress.step is BuildStep.PROMOTE else Phase.BUILDING
    if progress is not None and progress.stage is Stage.START and progress.step is not BuildStep.PLAN:
        return Phase.BUILDING
    return Phase.DEGRADED if outcome.active_generation else Phase.PENDING


def _promotion(outcome: Outcome) -> StepReport | None:
    return outcome.progress.report if outcome.promoted and outcome.progress is not None else None


def _documents(outcome: Outcome) -> dict[str, int] | None:
    """The newest complete counts; while a build runs, those of the build before."""
    report = _promotion(outcome)
    if report is None:
        before: dict[str, int] | None = outcome.before.get("documents")
        return before
    return _counts(report.documents)


def _counts(counts: DocumentCounts) -> dict[str, int]:
    return {
        "discovered": counts.discovered,
        "indexed": counts.indexed,
        "duplicates": counts.duplicates,
        "deadLettered": counts.dead_lettered,
        "removed": counts.removed,
    }


def _served_chunks(outcome: Outcome) -> int | None:
    told = outcome.observed.retriever_status
    if told is not None and told.chunks is not None:
        return told.chunks
    before: int | None = outcome.before.get("chunks")
    return before


def _stages(progress: Progress | None) -> list[dict[str, Any]]:
    """The steps with what is done of each."""
    if progress is None:
        return []
    order = [step for _, step in STEPS]
    position = len(order) if progress.stage is Stage.DONE else order.index(progress.step)
    stages = []
    for index, (name, step) in enumerate(STEPS):
        total = progress.shards if step is BuildStep.SHARDS else 1
        done = total if index < position else 0
        if step is BuildStep.SHARDS and index == position:
            done = progress.shards_done
        stages.append({"name": name, "done": done, "total": total})
    return stages


def _gate(outcome: Outcome, now: datetime) -> dict[str, Any] | None:
    """What the newest gate said, with the time it said it first."""
    before: dict[str, Any] | None = outcome.before.get("gate")
    progress = outcome.progress
    report = progress.report if progress is not None else None
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
    same = before is not None and {k: v for k, v in before.items() if k != "time"} == gate
    return {**gate, "time": before["time"] if same and before is not None else timestamp(now)}


def _ready_shards(judged: Sequence[Condition]) -> int:
    return int(any(c.type == ConditionType.RETRIEVER_READY and c.status is Truth.TRUE for c in judged))


def _blocked_by(outcome: Outcome, judged: Sequence[Condition]) -> str | None:
    """What a build that cannot start waits for."""
    progress = outcome.progress
    if outcome.promoted or (progress is not None and progress.stage is Stage.RUN):
        return None
    for condition in judged:
        if condition.type != ConditionType.BUILT and condition.status is Truth.FALSE:
            return f"{condition.type}: {condition.message}"[:1024]
    return None


def _promotion_event(outcome: Outcome) -> list[Event]:
    if not outcome.promoted or outcome.before.get("activeGeneration") == outcome.wanted_generation:
        return []
    note = f"generation {outcome.wanted_generation} is live"
    return [
        Event(
            type=EventType.NORMAL,
            reason=EventReason.GENERATION_PROMOTED,
            note=note,
            subject=outcome.wanted_generation or "",
        )
    ]
