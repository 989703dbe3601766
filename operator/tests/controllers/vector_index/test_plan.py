"""The story of an index, step by step, on manifests alone. The real loop: test_apiserver; real builds: the
runtime's tests and e2e.
"""

from datetime import timedelta
from typing import Any

import pytest

from flotilla_operator.cluster.writes import Apply, Create, Delete, JsonPatch
from flotilla_operator.controllers.vector_index.cleanup import CleanupState
from flotilla_operator.objects import used_by
from flotilla_operator.objects.send_to import ANNOTATION
from flotilla_runtime import contract
from flotilla_runtime.contract import BuildReason, BuildStep, DeadLetter, StepReport
from tests.builders.model_replica_set import model_replica_set
from tests.builders.vector_index import vector_index
from tests.builders.world import RESTRICTED
from tests.controllers.vector_index.indexes import (
    NOW,
    Stage,
    being_emptied,
    claim,
    embedder,
    planned,
    promoted,
)
from tests.support.planned import Plan, plan_by


def failed(step: BuildStep, reason: BuildReason, message: str = "it is so") -> StepReport:
    return StepReport(step=step, reason=reason, message=message)


@pytest.mark.holds(
    "decisions/0005-indexed-jobs.md", "The operator sequences the steps and swaps the alias last"
)
def test_a_build_goes_step_by_step_and_ends_ready() -> None:
    stage = Stage()
    stage.step()
    assert stage.status["phase"] == "Pending"
    assert stage.condition("MilvusReady") == ("False", "MilvusStarting")
    assert stage.jobs() == {}
    stage.ready()
    stage.step()
    assert set(stage.jobs()) == {"plan"}
    stage.step()
    assert stage.status["phase"] == "Building"
    assert stage.status["candidateGeneration"].startswith("g-")
    stage.finish(BuildStep.PLAN, planned(shards=2))
    stage.step()
    assert set(stage.jobs()) == {"plan", "shards"}
    assert stage.jobs()["shards"]["spec"]["completions"] == 2
    stage.jobs()["shards"]["status"] = {"succeeded": 1}
    stage.step()
    assert stage.message("Built").startswith("1 of 2 shards are done; they run on one node")
    assert stage.status["stages"] == [
        {"name": "Plan", "done": 1, "total": 1},
        {"name": "Index", "done": 1, "total": 2},
        {"name": "Promote", "done": 0, "total": 1},
    ]
    stage.finish(BuildStep.SHARDS, StepReport(step=BuildStep.SHARDS))
    stage.step()
    stage.step()
    assert stage.status["phase"] == "Validating"
    stage.finish(BuildStep.PROMOTE, promoted())
    stage.step()
    assert stage.status["phase"] == "Ready"
    assert stage.condition("Ready") == ("True", "Ready")
    assert stage.status["documents"] == {
        "discovered": 10,
        "indexed": 9,
        "duplicates": 0,
        "deadLettered": 1,
        "removed": 0,
    }
    assert (stage.status["chunks"], stage.status["gate"]["verdict"]) == (81, "Passed")
    assert "candidateGeneration" not in stage.status
    assert stage.events.count("GenerationPromoted") == 1


def test_each_step_of_each_build_is_an_event_of_its_own() -> None:
    stage = Stage()
    told = list(stage.step().events)
    stage.ready()
    told += stage.step().events
    stage.finish(BuildStep.PLAN, planned(shards=2))
    told += stage.step().events
    stage.finish(BuildStep.SHARDS, StepReport(step=BuildStep.SHARDS))
    told += stage.step().events
    stage.finish(BuildStep.PROMOTE, promoted())
    told += stage.step().events
    run = stage.jobs()["plan"]["metadata"]["labels"][contract.LABEL_BUILD]
    generation = stage.status["activeGeneration"]
    ours = ("BuildStarted", "BuildStepStarted", "GenerationPromoted")
    assert [(event.reason, event.subject) for event in told if event.reason in ours] == [
        ("BuildStarted", run),
        ("BuildStepStarted", f"{run}/{BuildStep.SHARDS}"),
        ("BuildStepStarted", f"{run}/{BuildStep.PROMOTE}"),
        ("GenerationPromoted", generation),
    ]
    assert [event.note for event in told if event.reason == "BuildStepStarted"] == [
        f"the Index step of build {run} started",
        f"the Promote step of build {run} started",
    ]


@pytest.mark.parametrize(
    ("objects", "condition", "reason", "part"),
    [
        pytest.param(
            [claim("documents")],
            "EmbedderReady",
            "ModelMissing",
            "no ModelReplicaSet 'minilm'",
            id="the model is not there",
        ),
        pytest.param(
            [claim("documents"), model_replica_set("minilm")],
            "EmbedderReady",
            "WrongTask",
            "is Generate; refer to one with the task Embed",
            id="the model generates",
        ),
        pytest.param(
            [claim("documents"), embedder(available=False)],
            "EmbedderReady",
            "ModelNotAvailable",
            "not Available yet",
            id="the model is not up yet",
        ),
        pytest.param(
            [claim("documents"), embedder(router={"authSecretRef": {"name": "keys"}})],
            "EmbedderReady",
            "SecretMissing",
            "no Secret 'keys'",
            id="the model's callers need keys and there are none",
        ),
        pytest.param(
            [embedder()],
            "SourceReachable",
            "ClaimMissing",
            "no PersistentVolumeClaim 'documents'",
            id="the documents' claim is not there",
        ),
    ],
)
def test_what_is_missing_is_named_and_no_build_starts(
    objects: list[dict[str, Any]], condition: str, reason: str, part: str
) -> None:
    stage = Stage(None, *objects)
    stage.step()
    stage.ready()
    stage.step()
    assert stage.condition(condition) == ("False", reason)
    assert part in stage.message(condition)
    assert part in stage.status["blockedBy"]
    assert stage.jobs() == {}
    assert stage.condition("Ready")[0] == "False"


@pytest.mark.holds(
    "install.md", "Without an image of Milvus Lite its indexes say so, and one that runs stays"
)
def test_without_an_image_of_milvus_lite_the_value_is_named_and_no_pod_is_made() -> None:
    stage = Stage().without_image_of_milvus()
    stage.step()
    assert stage.condition("MilvusReady") == ("False", "MilvusImageMissing")
    assert "images.milvus.repository" in stage.message("MilvusReady")
    assert ("StatefulSet", "handbook-milvus") not in stage.objects
    assert stage.jobs() == {}


@pytest.mark.holds(
    "security.md", "An object that would send it elsewhere says `SecretForElsewhere`, and what runs stays"
)
def test_a_retriever_whose_token_is_for_another_milvus_stays_as_it_is() -> None:
    milvus = {"mode": "External", "tokenSecretRef": {"name": "milvus"}}
    secret = {"token": b"x", ANNOTATION: b"milvus.example"}
    stage = Stage(vector_index(milvus={**milvus, "uri": "http://milvus.example:19530"}), milvus=secret)
    stage.step()
    config = stage.objects["ConfigMap", "handbook-retriever"]["data"]
    assert "milvus.example" in config["config.json"]
    stage.index["spec"]["milvus"] = {**milvus, "uri": "http://evil.example:19530"}
    stage.step()
    assert stage.condition("MilvusReady") == ("False", "SecretForElsewhere")
    assert stage.objects["ConfigMap", "handbook-retriever"]["data"] == config


@pytest.mark.holds(
    "security.md",
    "An object that a Secret does not list says `SecretForOthers`, and no pod mounts it; what runs stays",
)
@pytest.mark.parametrize(
    ("spec", "others", "secret", "user"),
    [
        pytest.param(
            {"retriever": {"authSecretRef": {"name": "held"}}},
            (),
            {"handbook": b"x"},
            "VectorIndex/handbook",
            id="keys of callers",
        ),
        pytest.param(
            {},
            (embedder(router={"authSecretRef": {"name": "held"}}),),
            {"vectorindex-handbook": b"x"},
            "ModelReplicaSet/minilm",
            id="the key for the embedder",
        ),
        pytest.param(
            {"milvus": {"tokenSecretRef": {"name": "held"}}},
            (),
            {"token": b"x"},
            "VectorIndex/handbook",
            id="a token that Milvus Lite does not need",
        ),
    ],
)
def test_where_kinds_are_restricted_a_secret_that_names_nobody_is_mounted_nowhere(
    spec: dict[str, Any], others: tuple[dict[str, Any], ...], secret: dict[str, bytes], user: str
) -> None:
    stage = Stage(vector_index(**spec), *others, held=secret)
    if others:
        stage.put(claim("documents"))
    stage.config = RESTRICTED
    stage.step()
    stage.ready()
    stage.step()
    messages = [one["message"] for one in stage.index["status"]["conditions"]]
    line = f"kubectl annotate -n default secret held flotilla.dev/used-by='{user}'"
    assert any(line in message for message in messages)
    assert ("Deployment", "handbook-retriever") not in stage.objects
    assert stage.jobs() == {}
    stage.secrets.entries = {"held": {**secret, used_by.ANNOTATION: user.encode()}}
    stage.step()
    assert ("Deployment", "handbook-retriever") in stage.objects


@pytest.mark.holds("security.md", "Proxies that an object names in its variables must be listed too")
@pytest.mark.parametrize("component", ["retriever", "build"])
def test_a_proxy_that_the_token_of_milvus_does_not_name_gets_it_from_no_pod(component: str) -> None:
    milvus = {"mode": "External", "tokenSecretRef": {"name": "milvus"}, "uri": "http://milvus.example:19530"}
    secret = {"token": b"x", ANNOTATION: b"milvus.example"}
    env = [{"name": "grpc_proxy", "value": "http://evil.example:3128"}]
    spec: dict[str, Any] = {"milvus": milvus, component: {"pod": {"env": env}}}
    stage = Stage(vector_index(**spec), milvus=secret)
    stage.step()
    assert stage.condition("MilvusReady") == ("False", "SecretForElsewhere")
    assert ("Deployment", "handbook-retriever") not in stage.objects
    assert stage.jobs() == {}


@pytest.mark.parametrize(
    "milvus",
    [
        pytest.param({"image": "registry.example/milvus:1"}, id="the spec names an image"),
        pytest.param({"mode": "External", "uri": "http://milvus.example:19530"}, id="Milvus is the user's"),
    ],
)
def test_the_charts_image_of_milvus_lite_is_not_always_needed(milvus: dict[str, Any]) -> None:
    stage = Stage(vector_index(milvus=milvus)).without_image_of_milvus()
    stage.step()
    stage.ready()
    stage.step()
    assert set(stage.jobs()) == {"plan"}


@pytest.mark.holds(
    "install.md", "Without an image of Milvus Lite its indexes say so, and one that runs stays"
)
def test_a_milvus_lite_that_runs_stays_when_the_chart_names_its_image_no_more() -> None:
    stage = Stage()
    stage.build()
    stage.without_image_of_milvus()
    before = stage.objects["StatefulSet", "handbook-milvus"]
    plan = stage.step()
    assert stage.condition("MilvusReady") == ("False", "MilvusImageMissing")
    assert stage.objects["StatefulSet", "handbook-milvus"] == before
    assert not {"StatefulSet"} & {w.manifest["kind"] for w in plan.writes if isinstance(w, Apply)}
    assert not any(isinstance(write, Delete) for write in plan.writes)


def test_it_goes_on_when_the_model_appears() -> None:
    stage = Stage(None, claim("documents"))
    stage.step()
    stage.ready()
    stage.step()
    stage.put(embedder())
    stage.step()
    assert set(stage.jobs()) == {"plan"}


@pytest.mark.parametrize("reason", [BuildReason.PATH_MISSING, BuildReason.UNEXPECTED])
def test_a_failed_plan_is_tried_again_whoever_mends_it(reason: BuildReason) -> None:
    stage = Stage()
    stage.step()
    stage.ready()
    stage.step()
    first = stage.jobs()["plan"]["metadata"]["name"]
    stage.finish(BuildStep.PLAN, failed(BuildStep.PLAN, reason))
    plan = stage.step(NOW + timedelta(seconds=1))
    assert plan.look_again_seconds == 14
    stage.step(NOW + timedelta(seconds=16))
    second = stage.jobs()["plan"]["metadata"]["name"]
    assert second != first
    assert ("Job", first) not in stage.objects
    stage.finish(BuildStep.PLAN, failed(BuildStep.PLAN, reason))
    assert stage.plan(NOW).look_again_seconds == 30


def test_too_many_dead_letters_keep_what_is_live_and_wait_for_a_person() -> None:
    stage = Stage()
    stage.build()
    live = stage.status["activeGeneration"]
    stage.index["spec"]["source"]["revision"] = "2"
    stage.step()
    stage.step()
    assert stage.condition("Ready")[0] == "False"
    stage.finish(BuildStep.PLAN, planned())
    stage.step()
    stage.finish(BuildStep.SHARDS, StepReport(step=BuildStep.SHARDS))
    stage.step()
    stage.finish(BuildStep.PROMOTE, failed(BuildStep.PROMOTE, BuildReason.TOO_MANY_DEAD_LETTERS, "5 of 10"))
    stage.step()
    assert stage.status["phase"] == "Degraded"
    assert stage.status["activeGeneration"] == live
    assert stage.condition("Validated") == ("False", "TooManyDeadLetters")
    assert stage.message("Built") == (
        "the Promote step failed: 5 of 10; after repairing documents, change spec.source.revision to start "
        "another build"
    )
    assert stage.status["gate"]["verdict"] == "Failed"
    assert stage.condition("RetrieverReady")[0] == "True"
    jobs = stage.jobs()
    stage.step(NOW + timedelta(days=1))
    assert stage.jobs() == jobs
    stage.index["spec"]["build"] = {"maxFailedPercent": 60}
    stage.step()
    stage.step()
    assert stage.jobs()["promote"]["metadata"]["name"] != jobs["promote"]["metadata"]["name"]
    assert stage.jobs()["shards"] == jobs["shards"]


@pytest.mark.holds(
    "decisions/0007-index-builds.md", "What makes vectors makes another generation, built aside"
)
@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"processing": {"chunkTokens": 100}}, id="another chunk length"),
        pytest.param({"index": {"type": "Flat"}}, id="another index type"),
        pytest.param({"embedding": {"normalize": False}}, id="another normalisation"),
    ],
)
def test_a_change_of_what_makes_vectors_builds_another_generation_aside(change: dict[str, Any]) -> None:
    stage = Stage()
    stage.build()
    live = stage.status["activeGeneration"]
    for section, fields in change.items():
        stage.index["spec"][section] = {**stage.index["spec"].get(section, {}), **fields}
    stage.step()
    stage.step()
    stage.step()
    assert stage.status["activeGeneration"] == live
    assert stage.status["candidateGeneration"] not in (None, live)
    assert set(stage.jobs()) == {"plan"}


def a_build_with_a_running_pod(stage: Stage) -> dict[str, Any]:
    """The pod runs on when its Job is removed."""
    stage.step()
    stage.ready()
    stage.step()
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "still-running",
            "namespace": "default",
            "uid": "uid-still-running",
            "labels": stage.jobs()["plan"]["spec"]["template"]["metadata"]["labels"],
        },
        "status": {"phase": "Running"},
    }
    stage.put(pod)
    return pod


def test_a_running_pod_of_another_build_is_waited_for() -> None:
    stage = Stage()
    pod = a_build_with_a_running_pod(stage)
    stage.index["spec"]["source"] = {"path": "pvc://documents/elsewhere"}
    stage.step()
    assert stage.jobs() == {}
    stage.step()
    assert stage.jobs() == {}
    pod["status"] = {"phase": "Failed"}
    stage.step()
    assert set(stage.jobs()) == {"plan"}


def test_a_build_that_returns_waits_for_the_pods_it_had() -> None:
    stage = Stage()
    pod = a_build_with_a_running_pod(stage)
    first = stage.jobs()["plan"]["metadata"]["name"]
    source = dict(stage.index["spec"]["source"])
    stage.index["spec"]["source"] = {**source, "revision": "another"}
    stage.step()
    assert stage.jobs() == {}
    stage.index["spec"]["source"] = source
    stage.step()
    assert stage.jobs() == {}
    pod["status"] = {"phase": "Failed"}
    stage.step()
    assert stage.jobs()["plan"]["metadata"]["name"] == first


def test_a_lost_report_starts_the_build_over() -> None:
    stage = Stage()
    stage.step()
    stage.ready()
    stage.step()
    stage.finish(BuildStep.PLAN, None)
    stage.objects = {place: found for place, found in stage.objects.items() if place[0] != "Pod"}
    stage.step()
    assert stage.condition("Built") == ("False", "ReportLost")
    plan = stage.step(NOW + timedelta(minutes=1))
    assert any(isinstance(write, Create) for write in plan.writes) or "plan" in stage.jobs()
    assert stage.jobs()["plan"]["metadata"]["annotations"][contract.ANNOTATION_ATTEMPT] == "1"


def test_a_source_without_one_good_document_goes_straight_to_the_gate() -> None:
    stage = Stage()
    stage.step()
    stage.ready()
    stage.step()
    stage.finish(BuildStep.PLAN, planned(shards=0))
    stage.step()
    assert set(stage.jobs()) == {"plan", "promote"}


def test_dead_letters_are_named_in_the_message() -> None:
    stage = Stage()
    stage.step()
    stage.ready()
    stage.step()
    stage.finish(BuildStep.PLAN, planned(shards=0))
    stage.step()
    letter = DeadLetter(document="a.pdf", reason="Broken", message="cannot be opened")
    stage.finish(BuildStep.PROMOTE, promoted().model_copy(update={"dead_letters": (letter,)}))
    stage.step()
    assert "a.pdf: Broken, cannot be opened" in stage.message("Built")


def test_a_build_whose_last_report_is_lost_is_promoted() -> None:
    stage = Stage()
    stage.step()
    stage.ready()
    stage.step()
    stage.finish(BuildStep.PLAN, planned(shards=0))
    stage.step()
    job = stage.jobs()["promote"]
    job["status"] = {"succeeded": 1, "conditions": [{"type": "Complete", "status": "True"}]}
    stage.step()
    generation = stage.status["activeGeneration"]
    assert stage.message("Built") == f"generation {generation} is built and promoted"


def test_a_service_of_somebody_elses_is_named_and_no_build_starts() -> None:
    stage = Stage()
    stage.step()
    stage.ready()
    assert starts_a_job(stage.plan())
    stage.objects["Service", "handbook-retriever"]["metadata"]["ownerReferences"] = []
    plan = stage.plan()
    assert not starts_a_job(plan)
    taken = plan.status or {}
    shown = {c["type"]: (c["reason"], c["message"]) for c in taken["conditions"]}
    assert shown["RetrieverReady"][0] == "NameTaken"
    assert "Service handbook-retriever exists" in shown["RetrieverReady"][1]
    assert shown["Stalled"][0] == "NameTaken"


def starts_a_job(plan: Plan) -> bool:
    return any(isinstance(write, Create) and write.manifest["kind"] == "Job" for write in plan.writes)


def test_fields_of_a_newer_release_are_named_and_keep_nothing_from_being_done() -> None:
    stage = Stage(vector_index(processing={"chunkTokens": 100, "ocr": True}))
    stage.build()
    assert stage.condition("SpecValid") == ("True", "FieldsIgnored")
    assert "spec.processing.ocr" in stage.message("SpecValid")
    assert stage.condition("Ready")[0] == "True"
    del stage.index["spec"]["processing"]["ocr"]
    stage.step()
    assert stage.condition("SpecValid") == ("True", "Valid")


def test_the_claim_follows_the_deletion_policy() -> None:
    stage = Stage()
    stage.step()
    kept = stage.objects["PersistentVolumeClaim", "handbook-milvus"]
    assert "ownerReferences" not in kept["metadata"]
    stage.index["spec"]["retention"] = {"deletionPolicy": "Delete"}
    [patch] = [write for write in stage.plan().writes if isinstance(write, JsonPatch)]
    assert patch.operations[0]["value"][0]["uid"] == "uid-handbook"
    kept["metadata"]["ownerReferences"] = patch.operations[0]["value"]
    assert not [write for write in stage.plan().writes if isinstance(write, JsonPatch)]
    stage.index["spec"]["retention"] = {"deletionPolicy": "Retain"}
    [back] = [write for write in stage.plan().writes if isinstance(write, JsonPatch)]
    assert back.operations[0]["value"] == []


def test_a_refusal_of_milvus_claim_names_the_field_that_asks_for_it() -> None:
    stage = Stage()
    for _ in range(2):
        fields = {
            write.manifest["metadata"]["name"]: write.field
            for write in stage.step().writes
            if isinstance(write, Apply) and write.manifest["kind"] == "PersistentVolumeClaim"
        }
        assert fields["handbook-milvus"] == "spec.milvus.storage"


@pytest.mark.holds(
    "README.md",
    "The operator changes nothing in a user's object but its status and a finalizer where one is needed",
)
@pytest.mark.holds(
    "argocd.md",
    "The operator writes nothing but the status and a finalizer into our objects, so there is no drift",
)
def test_only_an_external_milvus_that_is_to_be_emptied_needs_a_finalizer() -> None:
    external = {"mode": "External", "uri": "http://milvus.example:19530"}
    policies = {"Delete": ("flotilla.dev/milvus",), "Retain": ()}
    for policy, finalizers in policies.items():
        index = vector_index(milvus=external, retention={"deletionPolicy": policy})
        assert Stage(index).plan().finalizers == finalizers
    assert Stage(vector_index(retention={"deletionPolicy": "Delete"})).plan().finalizers == ()


@pytest.mark.parametrize(
    ("cleanup", "seconds", "finalizers", "event"),
    [
        pytest.param(CleanupState.RUNNING, 1, None, None, id="it runs"),
        pytest.param(CleanupState.RUNNING, 46, (), "CleanupIncomplete", id="the deadline passed"),
        pytest.param(CleanupState.DONE, 1, (), "CleanupDone", id="it is done"),
        pytest.param(CleanupState.GIVEN_UP, 1, (), "CleanupIncomplete", id="Milvus is gone"),
    ],
)
def test_a_deleted_index_lets_go_when_it_can(
    cleanup: CleanupState, seconds: int, finalizers: tuple[str, ...] | None, event: str | None
) -> None:
    stage = Stage()
    plan = plan_by(stage.controller, being_emptied(stage, cleanup), NOW + timedelta(seconds=seconds))
    assert plan.writes == ()
    assert plan.finalizers == finalizers
    assert [e.reason for e in plan.events] == ([event] if event else [])


def test_milvus_lite_goes_when_the_index_is_live_on_another_milvus() -> None:
    stage = Stage()
    stage.build()
    stage.index["spec"]["milvus"] = {"mode": "External", "uri": "http://milvus.example:19530"}
    lite = {(kind, "handbook-milvus") for kind in ("Service", "NetworkPolicy", "StatefulSet")}
    stage.step()
    stage.step()
    for step, report in (
        (BuildStep.PLAN, planned()),
        (BuildStep.SHARDS, StepReport(step=BuildStep.SHARDS)),
        (BuildStep.PROMOTE, promoted()),
    ):
        assert lite <= set(stage.objects), "the old generation is served while the new one is built"
        stage.finish(step, report)
        stage.step()
    retriever = stage.objects["Deployment", "handbook-retriever"]
    retriever["status"] = {"readyReplicas": 1, "updatedReplicas": 1, "replicas": 2}
    stage.step()
    assert lite <= set(stage.objects), "an old retriever still reads it"
    retriever = stage.objects["Deployment", "handbook-retriever"]
    retriever["status"] = {"readyReplicas": 1, "updatedReplicas": 1, "replicas": 1}
    stage.step()
    assert not lite & set(stage.objects)
    assert ("PersistentVolumeClaim", "handbook-milvus") in stage.objects
    assert stage.condition("Ready")[0] == "True"


def test_a_milvus_lite_of_somebody_elses_name_is_not_ours_to_delete() -> None:
    external = {"mode": "External", "uri": "http://milvus.example:19530"}
    stage = Stage(vector_index(milvus=external))
    metadata = {"name": "handbook-milvus", "namespace": "default", "uid": "uid-theirs"}
    stage.put({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {}})
    stage.build()
    stage.objects["Deployment", "handbook-retriever"]["status"] = {
        "readyReplicas": 1,
        "updatedReplicas": 1,
        "replicas": 1,
    }
    stage.step()
    assert stage.status["phase"] == "Ready"
    assert ("Service", "handbook-milvus") in stage.objects


def test_what_the_retriever_says_is_live_is_what_the_status_says() -> None:
    stage = Stage()
    stage.build()
    stage.index["spec"]["processing"] = {"chunkTokens": 100}
    stage.measure({"index": "handbook", "generation": "g-other", "chunks": 7})
    stage.step()
    assert (stage.status["activeGeneration"], stage.status["chunks"]) == ("g-other", 7)
