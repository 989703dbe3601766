"""A step's Job and what its pods left, as values.

A pod's termination message is the step's report. A pod that was lost took its report along, so a Job may be
complete without one; then the step is as good as not done and is run again.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import ValidationError

from flotilla_operator.cluster.writes import Manifest
from flotilla_operator.controllers.conditions import conditions_of, is_true, parsed_timestamp
from flotilla_runtime import contract
from flotilla_runtime.contract import BuildReason, BuildStep, StepReport

LAST_WORDS_CHARACTERS = 400
OVER = frozenset({"Succeeded", "Failed"})
NORMAL_WAITS = frozenset({"ContainerCreating", "PodInitializing"})


class JobState(StrEnum):
    """How far a Job is."""

    RUNNING = "Running"
    COMPLETE = "Complete"
    FAILED = "Failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepJob:
    """One Job; `report` is of a pod that decided it, `trouble` is why its pods do not run."""

    name: str
    uid: str
    step: BuildStep
    run: str
    attempt: int
    state: JobState
    completions: int
    done: int
    report: StepReport | None = None
    ended_at: datetime | None = None
    trouble: str | None = None


def step_job(job: Manifest, pods: Sequence[Manifest]) -> StepJob | None:
    """The Job with what its pods say; None when it is not a step of a build."""
    metadata = job["metadata"]
    labels = metadata.get("labels") or {}
    step = labels.get(contract.LABEL_STEP)
    if step not in list(BuildStep):
        return None
    state = _state(job)
    return StepJob(
        name=metadata["name"],
        uid=metadata["uid"],
        step=BuildStep(step),
        run=labels.get(contract.LABEL_BUILD, ""),
        attempt=int((metadata.get("annotations") or {}).get(contract.ANNOTATION_ATTEMPT, "0")),
        state=state,
        completions=job["spec"].get("completions") or 1,
        done=(job.get("status") or {}).get("succeeded") or 0,
        report=_report(BuildStep(step), state, pods),
        ended_at=_ended_at(job),
        trouble=_trouble(pods) if state is JobState.RUNNING else None,
    )


def pod_is_over(pod: Manifest) -> bool:
    """Whether none of its containers will run again."""
    return (pod.get("status") or {}).get("phase") in OVER


def _state(job: Manifest) -> JobState:
    if is_true(job, "Complete"):
        return JobState.COMPLETE
    return JobState.FAILED if is_true(job, "Failed") else JobState.RUNNING


def _ended_at(job: Manifest) -> datetime | None:
    for condition in conditions_of(job):
        if condition.get("type") in ("Failed", "Complete") and condition.get("status") == "True":
            time = condition.get("lastTransitionTime")
            return parsed_timestamp(time) if time else None
    return None


def _report(step: BuildStep, state: JobState, pods: Sequence[Manifest]) -> StepReport | None:
    reports = [
        read_report(step, terminated) for pod in _newest_first(pods) for terminated in _terminated(pod)
    ]
    if state is JobState.COMPLETE:
        return next((report for report in reports if report.reason is None), None)
    return next((report for report in reports if report.reason is not None), None)


def read_report(step: BuildStep, terminated: Manifest) -> StepReport:
    """The report in a container's end; a container that died without one left its last log lines."""
    message = terminated.get("message") or ""
    try:
        return StepReport.model_validate(json.loads(message))
    except (ValueError, ValidationError):
        said = message.strip()[-LAST_WORDS_CHARACTERS:] or terminated.get("reason") or "no message"
        code = terminated.get("exitCode")
        return StepReport(
            step=step,
            reason=BuildReason.UNEXPECTED,
            message=f"the {step} step ended with exit status {code}: {said}",
        )


def _newest_first(pods: Iterable[Manifest]) -> list[Manifest]:
    return sorted(pods, key=lambda pod: pod["metadata"].get("creationTimestamp") or "", reverse=True)


def _container_states(pod: Manifest) -> list[dict[str, Any]]:
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    return [status.get("state") or {} for status in statuses]


def _terminated(pod: Manifest) -> list[Manifest]:
    return [state["terminated"] for state in _container_states(pod) if state.get("terminated")]


def _trouble(pods: Sequence[Manifest]) -> str | None:
    """What keeps a pod from running, in the kubelet's or the scheduler's words."""
    for pod in pods:
        name = pod["metadata"]["name"]
        for state in _container_states(pod):
            waiting = state.get("waiting") or {}
            if waiting.get("reason") and waiting["reason"] not in NORMAL_WAITS:
                return f"pod {name}: {waiting['reason']}: {waiting.get('message') or ''}".rstrip(": ")
        for condition in conditions_of(pod):
            if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
                return f"pod {name} is not scheduled: {condition.get('message') or ''}".rstrip(": ")
    return None
