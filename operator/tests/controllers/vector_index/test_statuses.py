"""Whole statuses of an index as golden files: every field and every message, in the scenes that matter.

One row for each reason and phase is in test_reasons.py, the story of a build in test_plan.py.
"""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from flotilla_runtime.contract import BuildReason, BuildStep, DeadLetter, StepReport
from tests.builders.vector_index import vector_index
from tests.controllers.vector_index.indexes import NOW, Stage, claim, embedder, planned, promoted
from tests.support.statuses import status_difference, status_text

GOLDEN = Path(__file__).parent / "golden"
WHOLE = "index-that-serves.yaml"
HOUR = timedelta(hours=1)


def an_index_that_serves() -> Stage:
    """Built, with a dead letter and the plain tokenizer, and served."""
    stage = Stage()
    stage.step()
    stage.ready()
    stage.step()
    stage.finish(BuildStep.PLAN, planned())
    stage.step()
    stage.finish(BuildStep.SHARDS, StepReport(step=BuildStep.SHARDS))
    stage.step()
    letter = DeadLetter(document="a.pdf", reason="Broken", message="cannot be opened")
    report = promoted().model_copy(update={"dead_letters": (letter,), "tokenizer": "Plain"})
    stage.finish(BuildStep.PROMOTE, report)
    stage.step()
    stage.measure({"index": "handbook", "generation": stage.status["activeGeneration"], "chunks": 81})
    stage.step(NOW + HOUR)
    return stage


def a_new_index_that_lacks_everything() -> Stage:
    metadata = {"name": "handbook-milvus", "namespace": "default", "uid": "uid-theirs"}
    theirs = {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {}}
    workspace = claim("handbook-workspace")
    stage = Stage(vector_index(shiny=True), embedder(available=False), theirs, workspace)
    stage.step()
    return stage


def an_index_that_is_built_again_in_shards() -> Stage:
    stage = an_index_that_serves()
    stage.index["metadata"]["generation"] = 2
    stage.index["spec"]["processing"] = {"chunkTokens": 100}
    for _ in range(3):
        stage.step(NOW + HOUR)
    stage.finish(BuildStep.PLAN, planned(shards=4), at=NOW + HOUR)
    stage.step(NOW + HOUR)
    stage.jobs()["shards"]["status"] = {"succeeded": 3}
    stage.step(NOW + HOUR)
    return stage


def an_index_that_failed_at_the_gate() -> Stage:
    stage = an_index_that_is_built_again_in_shards()
    stage.finish(BuildStep.SHARDS, StepReport(step=BuildStep.SHARDS), at=NOW + HOUR)
    stage.step(NOW + HOUR)
    report = StepReport(
        step=BuildStep.PROMOTE, reason=BuildReason.TOO_MANY_DEAD_LETTERS, message="5 of 10 documents"
    )
    stage.finish(BuildStep.PROMOTE, report, at=NOW + HOUR)
    stage.step(NOW + HOUR)
    return stage


def an_index_that_is_being_deleted() -> Stage:
    stage = an_index_that_serves()
    stage.index["metadata"] |= {"generation": 2, "deletionTimestamp": NOW.isoformat()}
    stage.step(NOW + HOUR)
    return stage


def status_of(stage: Stage) -> str:
    return status_text(stage.index, stage.status)


def test_the_status_of_an_index_that_serves_is_as_reviewed(golden: Callable[[Path, str], None]) -> None:
    golden(GOLDEN / WHOLE, status_of(an_index_that_serves()))


@pytest.mark.parametrize(
    "scene",
    [
        pytest.param(a_new_index_that_lacks_everything, id="new-index-that-lacks-everything"),
        pytest.param(an_index_that_is_built_again_in_shards, id="index-that-is-built-again"),
        pytest.param(an_index_that_failed_at_the_gate, id="index-that-failed-at-the-gate"),
        pytest.param(an_index_that_is_being_deleted, id="index-that-is-being-deleted"),
    ],
)
def test_what_differs_from_it_in_other_scenes_is_as_reviewed(
    scene: Callable[[], Stage], golden: Callable[[Path, str], None], request: pytest.FixtureRequest
) -> None:
    whole = status_of(an_index_that_serves())
    golden(
        GOLDEN / f"{request.node.callspec.id}.diff",
        status_difference(status_of(scene()), file=WHOLE, whole=whole),
    )
