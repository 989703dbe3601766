"""One row for each reason of an index's conditions and events: what happens, and what the plan says.

What a plan does then is in test_plan. That no reason is left out: tests/house/test_reasons.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from flotilla_operator.controllers.vector_index.cleanup import CleanupState
from flotilla_operator.controllers.vector_index.reasons import ConditionType, EventReason, Phase, Reason
from flotilla_operator.objects import used_by
from flotilla_operator.objects.send_to import ANNOTATION
from flotilla_runtime.contract import BuildReason, BuildStep, StepReport
from tests.builders.model_replica_set import model_replica_set
from tests.builders.pod_options import PRIORITY_CLASS, RUNTIME_CLASS
from tests.builders.vector_index import vector_index
from tests.controllers.vector_index.indexes import (
    NOW,
    Stage,
    being_emptied,
    claim,
    embedder,
    planned,
    promoted,
)
from tests.support.planned import plan_by

EXTERNAL = {"mode": "External", "uri": "http://milvus.example:19530"}
WITH_TOKEN = {**EXTERNAL, "tokenSecretRef": {"name": "milvus"}}
SOURCE, EMBEDDER = ConditionType.SOURCE_REACHABLE, ConditionType.EMBEDDER_READY
MILVUS, BUILT = ConditionType.MILVUS_READY, ConditionType.BUILT
VALIDATED, RETRIEVER = ConditionType.VALIDATED, ConditionType.RETRIEVER_READY
SPEC = ConditionType.SPEC_VALID
SANDBOXED, FIRST = {"runtimeClassName": RUNTIME_CLASS}, {"priorityClassName": PRIORITY_CLASS}


def on(*others: dict[str, Any], **spec: Any) -> Callable[[], Stage]:
    """An index that is looked at for the first time, among these objects."""

    def happens() -> Stage:
        stage = Stage(vector_index(**spec), *others)
        stage.step()
        return stage

    return happens


def planning(**spec: Any) -> Stage:
    """Milvus is ready, and the build's first step is started."""
    stage = Stage(vector_index(**spec))
    stage.step()
    stage.ready()
    stage.step()
    return stage


def has_begun() -> Stage:
    stage = planning()
    stage.step()
    return stage


def is_planned() -> Stage:
    stage = planning()
    stage.finish(BuildStep.PLAN, planned())
    stage.step()
    return stage


def is_built() -> Stage:
    stage = Stage()
    stage.build()
    return stage


def serves() -> Stage:
    stage = is_built()
    stage.ready()
    stage.step()
    return stage


def lost_its_report() -> Stage:
    stage = planning()
    stage.finish(BuildStep.PLAN, None)
    stage.step()
    return stage


def has_no_image() -> Stage:
    stage = Stage().without_image_of_milvus()
    stage.step()
    return stage


def is_taken(name: str, kind: str = "Service") -> Callable[[], Stage]:
    metadata = {"name": name, "namespace": "default", "uid": "uid-theirs"}
    theirs = {"apiVersion": "v1", "kind": kind, "metadata": metadata, "spec": {}}
    return on(embedder(), claim("documents"), theirs)


def broken_model() -> dict[str, Any]:
    return {**embedder(), "spec": {"replicas": "many"}}


@pytest.mark.holds("pods.md", "A missing class is a condition that names the field")
@pytest.mark.parametrize(
    ("happens", "kind", "status", "reason"),
    [
        pytest.param(on(), SPEC, "True", Reason.VALID, id="nothing is wrong"),
        pytest.param(on(shiny=True), SPEC, "True", Reason.FIELDS_IGNORED, id="a field of a newer release"),
        pytest.param(on(embedder()), SOURCE, "False", Reason.CLAIM_MISSING, id="no claim of documents"),
        pytest.param(
            on(embedder(), claim("documents", used_by="VectorIndex/other")),
            SOURCE,
            "False",
            Reason.CLAIM_FOR_OTHERS,
            id="documents of another index",
        ),
        pytest.param(
            on(embedder(), source={"path": "configmap://pages"}),
            SOURCE,
            "False",
            Reason.CONFIG_MAP_MISSING,
            id="no ConfigMap of documents",
        ),
        pytest.param(on(), SOURCE, "Unknown", Reason.SOURCE_NOT_LOOKED_AT, id="nobody has looked yet"),
        pytest.param(is_planned, SOURCE, "True", Reason.DOCUMENTS_FOUND, id="the plan has found documents"),
        pytest.param(on(claim("documents")), EMBEDDER, "False", Reason.MODEL_MISSING, id="no model"),
        pytest.param(
            on(claim("documents"), broken_model()),
            EMBEDDER,
            "False",
            Reason.MODEL_INVALID,
            id="a model that cannot be read",
        ),
        pytest.param(
            on(claim("documents"), model_replica_set("minilm")),
            EMBEDDER,
            "False",
            Reason.WRONG_TASK,
            id="a model that generates",
        ),
        pytest.param(
            on(claim("documents"), embedder(available=False)),
            EMBEDDER,
            "False",
            Reason.MODEL_NOT_AVAILABLE,
            id="a model that is not up yet",
        ),
        pytest.param(
            on(claim("documents"), embedder(router={"authSecretRef": {"name": "keys"}})),
            EMBEDDER,
            "False",
            Reason.SECRET_MISSING,
            id="a model whose callers need a key",
        ),
        pytest.param(on(), EMBEDDER, "True", Reason.MODEL_AVAILABLE, id="the model is up"),
        pytest.param(on(), MILVUS, "False", Reason.MILVUS_STARTING, id="Milvus is not up yet"),
        pytest.param(
            has_no_image, MILVUS, "False", Reason.MILVUS_IMAGE_MISSING, id="nobody names an image of Milvus"
        ),
        pytest.param(planning, MILVUS, "True", Reason.MILVUS_AVAILABLE, id="Milvus is up"),
        pytest.param(
            on(milvus=EXTERNAL), MILVUS, "True", Reason.MILVUS_EXTERNAL, id="a Milvus of the user's"
        ),
        pytest.param(
            lambda: with_secret({"password": b"x"}),
            MILVUS,
            "False",
            Reason.SECRET_KEY_MISSING,
            id="no entry for the token of Milvus",
        ),
        pytest.param(
            lambda: with_secret({"token": "é".encode()}),
            MILVUS,
            "False",
            Reason.SECRET_KEY_MISSING,
            id="a token for Milvus that no header can have",
        ),
        pytest.param(
            lambda: with_secret({"token": b"x", ANNOTATION: b"milvus.elsewhere"}),
            MILVUS,
            "False",
            Reason.SECRET_FOR_ELSEWHERE,
            id="a token for another Milvus",
        ),
        pytest.param(
            lambda: searched_with({"a": b"x", used_by.ANNOTATION: b"VectorIndex/other"}),
            RETRIEVER,
            "False",
            Reason.SECRET_FOR_OTHERS,
            id="keys of the callers of another index",
        ),
        pytest.param(
            on(embedder(), claim("documents"), milvus={"pod": SANDBOXED}),
            MILVUS,
            "False",
            Reason.RUNTIME_CLASS_MISSING,
            id="no runtime for Milvus",
        ),
        pytest.param(
            on(embedder(), claim("documents"), build={"pod": FIRST}),
            BUILT,
            "False",
            Reason.PRIORITY_CLASS_MISSING,
            id="no priority class for builds",
        ),
        pytest.param(
            on(embedder(), claim("documents"), retriever={"pod": SANDBOXED}),
            RETRIEVER,
            "False",
            Reason.RUNTIME_CLASS_MISSING,
            id="no runtime for the retriever",
        ),
        pytest.param(is_taken("handbook-milvus"), MILVUS, "False", Reason.NAME_TAKEN, id="Milvus' name"),
        pytest.param(on(), BUILT, "False", Reason.WAITING, id="the build cannot begin yet"),
        pytest.param(has_begun, BUILT, "False", Reason.BUILDING, id="the build runs"),
        pytest.param(lost_its_report, BUILT, "False", Reason.REPORT_LOST, id="a step left no report"),
        pytest.param(is_built, BUILT, "True", Reason.UP_TO_DATE, id="the build is live"),
        pytest.param(on(paused=True), BUILT, "False", Reason.PAUSED, id="paused"),
        pytest.param(
            is_taken("handbook-workspace", "PersistentVolumeClaim"),
            BUILT,
            "False",
            Reason.NAME_TAKEN,
            id="the workspace's name",
        ),
        pytest.param(
            on(build={"workspace": {"claimName": "absent"}}),
            BUILT,
            "False",
            Reason.CLAIM_MISSING,
            id="no claim for the workspace",
        ),
        pytest.param(on(), VALIDATED, "Unknown", Reason.NOT_BUILT, id="there is nothing to validate"),
        pytest.param(is_built, VALIDATED, "True", Reason.PASSED, id="the gate is passed"),
        pytest.param(on(), RETRIEVER, "False", Reason.RETRIEVER_STARTING, id="no retriever yet"),
        pytest.param(serves, RETRIEVER, "True", Reason.RETRIEVER_AVAILABLE, id="a retriever serves"),
        pytest.param(
            is_taken("handbook-retriever"), RETRIEVER, "False", Reason.NAME_TAKEN, id="the retriever's name"
        ),
    ],
)
def test_conditions(happens: Callable[[], Stage], kind: ConditionType, status: str, reason: Reason) -> None:
    assert happens().condition(kind) == (status, reason)


def with_secret(entries: dict[str, bytes]) -> Stage:
    stage = Stage(vector_index(milvus=WITH_TOKEN), milvus=entries)
    stage.step()
    return stage


def searched_with(entries: dict[str, bytes]) -> Stage:
    stage = Stage(vector_index(retriever={"authSecretRef": {"name": "callers"}}), callers=entries)
    stage.step()
    return stage


def failed_with(reason: BuildReason) -> Stage:
    stage = planning()
    stage.finish(BuildStep.PLAN, StepReport(step=BuildStep.PLAN, reason=reason, message="mend it so"))
    stage.step(NOW + timedelta(seconds=1))
    return stage


@pytest.mark.holds("install.md", "`MilvusReady` is False with `MilvusUnreachable` and the cause")
@pytest.mark.parametrize(
    ("reason", "kind", "stalled"),
    [
        pytest.param(BuildReason.PATH_MISSING, SOURCE, "True", id="the folder is not there"),
        pytest.param(BuildReason.SOURCE_EMPTY, SOURCE, "True", id="the folder is empty"),
        pytest.param(BuildReason.SOURCE_UNREADABLE, SOURCE, "True", id="the folder cannot be listed"),
        pytest.param(BuildReason.EMBEDDER_UNREACHABLE, EMBEDDER, "False", id="the embedder does not answer"),
        pytest.param(BuildReason.EMBEDDER_UNAUTHORIZED, EMBEDDER, "True", id="it refuses the key"),
        pytest.param(BuildReason.MODEL_UNKNOWN, EMBEDDER, "True", id="it serves another model"),
        pytest.param(BuildReason.DIMENSION_MISMATCH, EMBEDDER, "True", id="it makes another dimension"),
        pytest.param(BuildReason.CHUNKS_TOO_LONG, EMBEDDER, "True", id="chunks are too long for it"),
        pytest.param(BuildReason.MILVUS_UNREACHABLE, MILVUS, "False", id="Milvus does not answer"),
        pytest.param(BuildReason.WORKSPACE_INCOMPLETE, BUILT, "False", id="the workspace was lost"),
        pytest.param(BuildReason.TOO_MANY_DEAD_LETTERS, VALIDATED, "True", id="too many dead letters"),
        pytest.param(BuildReason.COUNT_MISMATCH, VALIDATED, "False", id="chunks are lost"),
        pytest.param(BuildReason.SECRET_UNUSABLE, BUILT, "True", id="a token that no header can have"),
        pytest.param(BuildReason.UNEXPECTED, BUILT, "False", id="something nobody thought of"),
    ],
)
def test_a_failed_build_is_shown_where_it_belongs(
    reason: BuildReason, kind: ConditionType, stalled: str
) -> None:
    stage = failed_with(reason)
    assert stage.condition(kind) == ("False", reason)
    assert stage.condition(BUILT) == ("False", reason)
    assert stage.condition("Stalled")[0] == stalled
    for condition in (kind, BUILT):
        assert "mend it so" in stage.message(condition)


def leaving(state: CleanupState) -> list[str]:
    """Words on an index that is being deleted while its Milvus is being emptied."""
    stage = Stage()
    return [event.reason for event in plan_by(stage.controller, being_emptied(stage, state), NOW).events]


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        pytest.param(lambda: planning().events, EventReason.BUILD_STARTED, id="a build begins"),
        pytest.param(lambda: is_planned().events, EventReason.BUILD_STEP_STARTED, id="a step begins"),
        pytest.param(lambda: is_built().events, EventReason.GENERATION_PROMOTED, id="a build is live"),
        pytest.param(lambda: leaving(CleanupState.DONE), EventReason.CLEANUP_DONE, id="Milvus is emptied"),
        pytest.param(
            lambda: leaving(CleanupState.GIVEN_UP),
            EventReason.CLEANUP_INCOMPLETE,
            id="Milvus does not answer",
        ),
    ],
)
def test_events(told: Callable[[], list[str]], reason: EventReason) -> None:
    assert told().count(reason) == 1


def is_validated() -> Stage:
    """Every shard is done, and the gate is asked."""
    stage = is_planned()
    stage.finish(BuildStep.SHARDS, StepReport(step=BuildStep.SHARDS))
    stage.step()
    stage.step()
    return stage


def is_promoted() -> Stage:
    """The alias has moved, and no retriever is ready."""
    stage = is_validated()
    stage.objects["Deployment", "handbook-retriever"]["status"] = {}
    stage.finish(BuildStep.PROMOTE, promoted())
    stage.step()
    return stage


def has_lost_its_model() -> Stage:
    stage = serves()
    del stage.objects["ModelReplicaSet", "minilm"]
    stage.step()
    return stage


def is_being_emptied() -> Stage:
    stage = is_built()
    running = being_emptied(stage, CleanupState.RUNNING)
    stage.index = {**stage.index, "status": plan_by(stage.controller, running, NOW).status}
    return stage


@pytest.mark.parametrize(
    ("happens", "phase"),
    [
        pytest.param(on(), Phase.PENDING, id="what it needs is not there yet"),
        pytest.param(has_begun, Phase.BUILDING, id="a build runs"),
        pytest.param(is_validated, Phase.VALIDATING, id="the gate is asked"),
        pytest.param(is_promoted, Phase.PROMOTING, id="the alias has moved and nobody serves yet"),
        pytest.param(serves, Phase.READY, id="it serves"),
        pytest.param(has_lost_its_model, Phase.DEGRADED, id="it served, and its model is gone"),
        pytest.param(is_being_emptied, Phase.DELETING, id="its Milvus is being emptied"),
    ],
)
def test_phases(happens: Callable[[], Stage], phase: Phase) -> None:
    assert happens().status["phase"] == phase
