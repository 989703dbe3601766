"""Reads a build step's Job and the reports of its pods into values.

A pod writes the step's report as its termination message. When such a pod is lost, its report is lost too, so
a Job can be complete without a report. The step then counts as not done and runs again.
"""

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import ValidationError

from flotilla_operator.controllers.conditions import conditions_of, is_true
from flotilla_operator.controllers.vector_index.reasons import STEP_NAMES
from flotilla_operator.objects.owners import Owner
from flotilla_operator.objects.resources import Manifest
from flotilla_operator.objects.times import known_time
from flotilla_operator.workloads.vector_index.steps import StepRun, step_run
from flotilla_runtime.contract import BuildReason, BuildStep, StepReport

LAST_WORDS_CHARACTERS = 400
OVER = frozenset({"Succeeded", "Failed"})
NORMAL_WAITS = frozenset({"ContainerCreating", "PodInitializing"})


class JobState(StrEnum):
    """The state of a Job."""

    RUNNING = "Running"
    COMPLETE = "Complete"
    FAILED = "Failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepJob:
    """One Job. `report` comes from a pod that decided the Job; `trouble` says why its pods do not run."""

    name: str
    uid: str
    runs: StepRun
    state: JobState
    completions: int
    done: int
    report: StepReport | None = None
    ended_at: datetime | None = None
    trouble: str | None = None

    @property
    def step(self) -> BuildStep:
        return self.runs.step


def step_job(
    owner: Owner, job: Manifest, pods: Sequence[Manifest], silent_nodes: Collection[str] = ()
) -> StepJob | None:
    """The owner's Job with the reports of its pods; None when it is not a step of a build.

    `silent_nodes` are nodes whose kubelet does not report.
    """
    runs = step_run(owner, job)
    if runs is None:
        return None
    state = _state(job)
    return StepJob(
        name=job["metadata"]["name"],
        uid=job["metadata"]["uid"],
        runs=runs,
        state=state,
        completions=job["spec"].get("completions") or 1,
        done=(job.get("status") or {}).get("succeeded") or 0,
        report=_report(runs.step, state, pods),
        ended_at=_ended_at(job),
        trouble=_trouble(pods, silent_nodes) if state is JobState.RUNNING else None,
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
            return known_time(condition.get("lastTransitionTime"))
    return None


def _report(step: BuildStep, state: JobState, pods: Sequence[Manifest]) -> StepReport | None:
    reports = [
        read_report(step, terminated) for pod in _newest_first(pods) for terminated in _terminated(pod)
    ]
    if state is JobState.COMPLETE:
        return next((report for report in reports if report.reason is None), None)
    return next((report for report in reports if report.reason is not None), None)


def read_report(step: BuildStep, terminated: Manifest) -> StepReport:
    """The report of a terminated container; without one, a report made of its last log lines."""
    message = terminated.get("message") or ""
    try:
        return StepReport.model_validate(json.loads(message))
    except (ValueError, ValidationError):
        said = message.strip()[-LAST_WORDS_CHARACTERS:] or terminated.get("reason") or "no message"
        code = terminated.get("exitCode")
        return StepReport(
            step=step,
            reason=BuildReason.UNEXPECTED,
            message=f"the {STEP_NAMES[step]} step ended with exit status {code}: {said}",
        )


def _newest_first(pods: Iterable[Manifest]) -> list[Manifest]:
    return sorted(pods, key=lambda pod: pod["metadata"].get("creationTimestamp") or "", reverse=True)


def _container_states(pod: Manifest) -> list[dict[str, Any]]:
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    return [status.get("state") or {} for status in statuses]


def _terminated(pod: Manifest) -> list[Manifest]:
    return [state["terminated"] for state in _container_states(pod) if state.get("terminated")]


def _trouble(pods: Sequence[Manifest], silent_nodes: Collection[str]) -> str | None:
    """Why a pod does not run, in the words of the kubelet or the scheduler.

    A Job makes no other pod before this one has ended for certain.
    """
    for pod in pods:
        name, node = pod["metadata"]["name"], (pod.get("spec") or {}).get("nodeName")
        if node in silent_nodes and not pod_is_over(pod):
            return (
                f"pod {name} is on node {node}, which does not report, so nobody knows whether it runs; if "
                "the node is down for good, delete the Node object, and the pod is replaced"
            )
        for state in _container_states(pod):
            waiting = state.get("waiting") or {}
            if waiting.get("reason") and waiting["reason"] not in NORMAL_WAITS:
                return f"pod {name}: {waiting['reason']}: {waiting.get('message') or ''}".rstrip(": ")
        for condition in conditions_of(pod):
            if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
                return f"pod {name} is not scheduled: {condition.get('message') or ''}".rstrip(": ")
    return None
