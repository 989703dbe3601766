"""Runs of a build's Jobs: a step of an attempt, and for a promotion the validation rules.

A Job's template cannot be changed, so its name contains what it runs. Labels and an annotation say the same,
except for the id of the promotion, which is only in the name. All of them are written and read here.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from flotilla_operator.objects.owners import Owner
from flotilla_operator.objects.resources import Manifest
from flotilla_runtime import contract
from flotilla_runtime.contract import BuildStep

NAMES_IN_JOBS = {BuildStep.PLAN: "plan", BuildStep.SHARDS: "shard", BuildStep.PROMOTE: "promote"}


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRun:
    """Run of a Job: a step of the build with this id. Only a promotion has the id of a promotion."""

    step: BuildStep
    build: str
    attempt: int
    promotion: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedBuild:
    """One build: its generation, its own id, the id of its promotion, and the attempt."""

    generation: str
    id: str
    promotion: str
    shared_workspace: bool
    attempt: int = 0

    @property
    def run(self) -> str:
        """The name of this attempt in its Jobs and its folder; every attempt starts from the beginning."""
        return f"{self.id}{_attempt_suffix(self.attempt)}"

    def step_run(self, step: BuildStep) -> StepRun:
        """Return the run of the Job of this step."""
        promotion = self.promotion if step is BuildStep.PROMOTE else None
        return StepRun(step=step, build=self.id, attempt=self.attempt, promotion=promotion)


def job_name(owner: Owner, step: BuildStep, build: WantedBuild) -> str:
    """The Job's name; a promotion with other validation rules is another Job."""
    name = _name_of_run(owner, step, build.run)
    return f"{name}-{build.promotion}" if step is BuildStep.PROMOTE else name


def step_labels(step: BuildStep, build: WantedBuild) -> dict[str, str]:
    """The labels of a step's Job and pods."""
    return {
        contract.LABEL_BUILD: build.run,
        contract.LABEL_STEP: step.value,
        contract.LABEL_GENERATION: build.generation,
    }


def step_annotations(build: WantedBuild) -> dict[str, str]:
    """The annotations of a step's Job."""
    return {contract.ANNOTATION_ATTEMPT: str(build.attempt)}


def step_run(owner: Owner, job: Manifest) -> StepRun | None:
    """Return the run of a Job of this owner; None when it is not a step of a build.

    A Job whose label and annotation do not agree belongs to no build that can be wanted.
    """
    metadata = job["metadata"]
    labels: Mapping[str, str] = metadata.get("labels") or {}
    if labels.get(contract.LABEL_STEP) not in list(BuildStep):
        return None
    step, run = BuildStep(labels[contract.LABEL_STEP]), labels.get(contract.LABEL_BUILD, "")
    told = (metadata.get("annotations") or {}).get(contract.ANNOTATION_ATTEMPT, "0")
    attempt = int(told) if told.isdecimal() else 0
    promotion = None
    beginning = f"{_name_of_run(owner, step, run)}-"
    if step is BuildStep.PROMOTE and metadata["name"].startswith(beginning):
        promotion = metadata["name"].removeprefix(beginning)
    build = run.removesuffix(_attempt_suffix(attempt))
    return StepRun(step=step, build=build, attempt=attempt, promotion=promotion)


def _attempt_suffix(attempt: int) -> str:
    return f"-{attempt}"


def _name_of_run(owner: Owner, step: BuildStep, run: str) -> str:
    return f"{owner.name}-{NAMES_IN_JOBS[step]}-{run}"
