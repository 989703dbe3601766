"""The stages of a decision about an index: a row for each reason. What follows from it is in test_plan.py."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from flotilla_operator.controllers.vector_index.cleanup import Cleanup, CleanupState
from flotilla_operator.controllers.vector_index.decide import Decision, LiteReason, decide
from flotilla_operator.controllers.vector_index.farewell import Farewell, FarewellReason
from flotilla_operator.controllers.vector_index.next_step import NextReason
from flotilla_operator.controllers.vector_index.seen import Observed
from flotilla_runtime.contract import BuildReason, BuildStep, StepReport
from tests.builders.vector_index import vector_index
from tests.controllers.vector_index.indexes import NOW, Stage, being_emptied, claim, embedder, planned

EXTERNAL = {"mode": "External", "uri": "http://milvus.example:19530"}
SECOND = timedelta(seconds=1)


def decided(stage: Stage) -> Decision:
    seen = stage.observe()
    assert isinstance(seen, Observed)
    decision = decide(seen, NOW + SECOND)
    assert isinstance(decision, Decision)
    return decision


def ready(stage: Stage | None = None) -> Stage:
    """Observed state in which a build has all that it needs, and no step has started."""
    stage = stage or Stage()
    stage.step()
    stage.ready()
    return stage


def planning() -> Stage:
    stage = ready()
    stage.step()
    return stage


def another_source() -> Stage:
    stage = planning()
    stage.index["spec"]["source"]["revision"] = "2"
    return stage


def failed(reason: BuildReason) -> Stage:
    stage = planning()
    stage.finish(BuildStep.PLAN, StepReport(step=BuildStep.PLAN, reason=reason, message="so"))
    return stage


def built() -> Stage:
    stage = Stage()
    stage.build()
    return stage


def with_a_service_of_somebody_elses() -> Stage:
    stage = ready()
    stage.objects["Service", "handbook-retriever"]["metadata"]["ownerReferences"] = []
    return stage


def with_a_pod_that_still_runs() -> Stage:
    stage = planning()
    labels = stage.jobs()["plan"]["spec"]["template"]["metadata"]["labels"]
    del stage.objects["Job", stage.jobs()["plan"]["metadata"]["name"]]
    metadata = {"name": "still-running", "namespace": "default", "uid": "uid-pod", "labels": labels}
    stage.put({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "status": {"phase": "Running"}})
    return stage


@pytest.mark.parametrize(
    ("stage", "reason", "seconds"),
    [
        pytest.param(lambda: ready(Stage(vector_index(paused=True))), NextReason.PAUSED, 600, id="paused"),
        pytest.param(
            lambda: ready(Stage(None, claim("documents"))), NextReason.EMBEDDER_UNKNOWN, 600, id="no model"
        ),
        pytest.param(another_source, NextReason.OTHER_BUILD, 5, id="the spec asks for another build"),
        pytest.param(planning, NextReason.RUNS, 600, id="a step runs"),
        pytest.param(built, NextReason.DONE, 600, id="it is promoted"),
        pytest.param(
            lambda: failed(BuildReason.UNEXPECTED), NextReason.WAITS_TO_RETRY, 14, id="it failed a second ago"
        ),
        pytest.param(
            lambda: failed(BuildReason.TOO_MANY_DEAD_LETTERS),
            NextReason.NOT_REPEATED,
            600,
            id="another attempt would fail as well",
        ),
        pytest.param(lambda: ready(Stage(None, embedder())), NextReason.MISSING, 600, id="no documents"),
        pytest.param(
            lambda: ready(
                Stage(None, claim("documents"), embedder(router={"authSecretRef": {"name": "keys"}}))
            ),
            NextReason.MISSING,
            10,
            id="no secret, which nobody watches",
        ),
        pytest.param(with_a_service_of_somebody_elses, NextReason.NAME_TAKEN, 600, id="a name is taken"),
        pytest.param(
            lambda: ready(Stage(None, claim("documents"), embedder(available=False))),
            NextReason.EMBEDDER_NOT_READY,
            600,
            id="the model is not up yet",
        ),
        pytest.param(Stage, NextReason.MILVUS_NOT_READY, 600, id="Milvus is not up yet"),
        pytest.param(with_a_pod_that_still_runs, NextReason.PODS_LEFT, 5, id="a pod of a build is left"),
        pytest.param(ready, NextReason.STARTS, 600, id="nothing holds it back"),
    ],
)
def test_a_build_gets_on_or_says_why_not(
    stage: Callable[[], Stage], reason: NextReason, seconds: float
) -> None:
    step = decided(stage()).next
    assert (step.reason, step.look_again_seconds) == (reason, seconds)
    assert (step.start is not None) is (reason is NextReason.STARTS)


def moved(retriever: dict[str, Any] | None = None, *, whole: bool = True) -> Callable[[], Stage]:
    """Built on Milvus Lite, then on the user's Milvus; the Deployment of the retriever has this status."""

    def stage() -> Stage:
        stage = built()
        stage.index["spec"]["milvus"] = EXTERNAL
        stage.step()
        stage.step()
        if whole:
            stage.finish(BuildStep.PLAN, planned(shards=0))
            stage.step()
            stage.finish(BuildStep.PROMOTE, StepReport(step=BuildStep.PROMOTE))
        stage.objects["Deployment", "handbook-retriever"]["status"] = retriever or {}
        return stage

    return stage


@pytest.mark.parametrize(
    ("stage", "reason"),
    [
        pytest.param(built, LiteReason.IN_USE, id="the spec names it"),
        pytest.param(
            moved(whole=False), LiteReason.NOT_LIVE_ELSEWHERE, id="the build on the user's has begun"
        ),
        pytest.param(
            moved({"readyReplicas": 1, "updatedReplicas": 1, "replicas": 2}),
            LiteReason.STILL_READ,
            id="an old retriever reads it",
        ),
        pytest.param(moved(), LiteReason.STILL_READ, id="no retriever is ready"),
        pytest.param(
            moved({"readyReplicas": 1, "updatedReplicas": 1, "replicas": 1}),
            LiteReason.UNUSED,
            id="every retriever reads the user's",
        ),
    ],
)
def test_milvus_lite_is_kept_while_somebody_needs_it(stage: Callable[[], Stage], reason: LiteReason) -> None:
    assert decided(stage()).lite is reason


@pytest.mark.parametrize(
    ("changes", "seconds", "reason", "starts"),
    [
        pytest.param({"held": False}, 1, FarewellReason.NOT_HELD, False, id="our finalizer is gone"),
        pytest.param({"deletes": False}, 1, FarewellReason.NOTHING_OUTSIDE, False, id="they are retained"),
        pytest.param({"remains": None}, 1, FarewellReason.NOTHING_OUTSIDE, False, id="there are none"),
        pytest.param({"cleanup": None}, 1, FarewellReason.UNDER_WAY, True, id="nothing has started"),
        pytest.param({}, 1, FarewellReason.UNDER_WAY, False, id="the removal runs"),
        pytest.param(
            {"remains": None, "cleanup": None, "unreadable": "no UTF-8"},
            1,
            FarewellReason.UNDER_WAY,
            False,
            id="the token cannot be read",
        ),
        pytest.param(
            {"cleanup": Cleanup(state=CleanupState.DONE)}, 1, FarewellReason.REMOVED, False, id="done"
        ),
        pytest.param(
            {"cleanup": Cleanup(state=CleanupState.GIVEN_UP, message="no answer")},
            1,
            FarewellReason.GIVEN_UP,
            False,
            id="Milvus does not answer",
        ),
        pytest.param({}, 46, FarewellReason.TOO_LATE, False, id="the deadline has passed"),
        pytest.param(
            {"cleanup": None}, 46, FarewellReason.TOO_LATE, True, id="the operator was down until then"
        ),
    ],
)
def test_a_deleted_index_says_farewell(
    changes: dict[str, Any], seconds: int, reason: FarewellReason, starts: bool
) -> None:
    leaving = replace(being_emptied(Stage(), CleanupState.RUNNING), **changes)
    decision = decide(leaving, NOW + timedelta(seconds=seconds))
    assert isinstance(decision, Farewell)
    assert (decision.reason, decision.starts) == (reason, starts)
    assert decision.lets_go is (reason is not FarewellReason.UNDER_WAY)
