"""The objects of an index as golden files, what is the point of each by name, and their stability.

The smallest index is a whole file, the other scenarios are files of what differs from it, as in
test_model_replica_set.py.
"""

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flotilla_operator.api.model_replica_set import ModelReplicaSetSpec
from flotilla_operator.api.vector_index import VectorIndex, VectorIndexSpec
from flotilla_operator.controllers.vector_index.objects import claims_of, standing_objects
from flotilla_operator.controllers.vector_index.seen import EmbedderSeen
from flotilla_operator.objects.owners import Owner
from flotilla_operator.workloads.images import Images
from flotilla_operator.workloads.model_replica_set import internal_url
from flotilla_operator.workloads.vector_index.build import build_config_map, build_job
from flotilla_operator.workloads.vector_index.identity import (
    EmbedderModel,
    alias_name,
    build_id,
    collection_name,
    generation_id,
    promotion_id,
)
from flotilla_operator.workloads.vector_index.source import document_source
from flotilla_operator.workloads.vector_index.steps import StepRun, WantedBuild, job_name, step_run
from flotilla_runtime import contract
from flotilla_runtime.contract import BuildStep
from golden_files import Whole, difference, objects_of
from tests.builders.model_replica_set import IMAGES, spec_of
from tests.builders.vector_index import OWNER, full_featured_objects, index_spec, vector_index
from tests.support.rendering import json_of, shuffled, yaml_of

GOLDEN = Path(__file__).parent / "golden"
LITE, EXTERNAL, FULL_PODS = full_featured_objects()
ON_CLAIM = {"name": "minilm", "source": "pvc://models/minilm", "task": "Embed"}
ON_HUB = {
    "name": "minilm",
    "source": "hf://sentence-transformers/all-MiniLM-L6-v2",
    "revision": "c9745ed",
    "task": "Embed",
    "tokenSecretRef": {"name": "hf", "key": "hub"},
}


def embedder(**spec: Any) -> EmbedderSeen:
    model_spec: ModelReplicaSetSpec = spec_of(**{"model": ON_CLAIM, **spec})
    url = "http://minilm-model.default.svc:8000/v1"
    model = EmbedderModel(name="minilm", url=url, spec=model_spec)
    return EmbedderSeen(spec=model_spec, available=True, model=model)


SMALLEST = vector_index()
SCENARIOS = [
    pytest.param(SMALLEST, embedder(), False, id="smallest-index"),
    pytest.param(LITE, embedder(model=ON_HUB), False, id="index-with-every-field-on-lite"),
    pytest.param(
        EXTERNAL,
        embedder(router={"authSecretRef": {"name": "keys"}}),
        True,
        id="index-on-an-external-milvus-with-keys",
    ),
    pytest.param(FULL_PODS, embedder(), False, id="index-with-every-option-of-its-pods"),
]


def owner_of(manifest: dict[str, Any]) -> Owner:
    metadata = manifest["metadata"]
    return Owner(kind="VectorIndex", namespace="default", name=metadata["name"], uid=metadata["uid"])


def wanted(spec: VectorIndexSpec, model: EmbedderModel, *, shared: bool = False) -> WantedBuild:
    generation = generation_id(spec, model)
    build = build_id(spec, generation)
    return WantedBuild(
        generation=generation, id=build, promotion=promotion_id(spec, build), shared_workspace=shared
    )


def rendered(
    manifest: dict[str, Any], seen: EmbedderSeen, *, shared: bool = False, images: Images = IMAGES
) -> list[dict[str, Any]]:
    owner, spec = owner_of(manifest), VectorIndex.model_validate(manifest).spec
    build = wanted(spec, seen.model, shared=shared)
    jobs = [build_job(owner, spec, images, seen.model, build, step, shards=7) for step in BuildStep]
    return [
        *claims_of(owner, spec),
        *standing_objects(owner, spec, images, seen),
        build_config_map(owner, spec, seen.model, build),
        *jobs,
    ]


def ids_of(manifest: dict[str, Any], seen: EmbedderSeen) -> list[str]:
    """Parts of an index's names and labels, besides its own name."""
    spec = VectorIndex.model_validate(manifest).spec
    build = wanted(spec, seen.model)
    generation = build.generation.replace("-", "_")
    return [alias_name(owner_of(manifest)), build.generation, generation, build.id, build.promotion]


@pytest.mark.holds("install.md", "No container but those with limits in the spec has limits")
@pytest.mark.holds("install.md", "No container of ours requests more than 100m and 512Mi by default")
@pytest.mark.holds(
    "install.md",
    "Claims with `deletionPolicy: Retain` are kept, and have the label by which the page lists them",
)
@pytest.mark.holds("architecture.md", "Each kind makes the objects that the page lists")
@pytest.mark.holds(
    "security.md", "No pod gets a token of the cluster but routers and those with a service account"
)
def test_the_smallest_index_is_as_reviewed(golden: Callable[[Path, str], None]) -> None:
    golden(GOLDEN / "smallest-index.yaml", yaml_of(rendered(SMALLEST, embedder())))


@pytest.mark.holds("install.md", "An index with an external Milvus makes no Milvus of its own")
@pytest.mark.parametrize(("manifest", "seen", "shared"), SCENARIOS[1:])
def test_what_differs_from_the_smallest_index_is_as_reviewed(
    manifest: dict[str, Any],
    seen: EmbedderSeen,
    shared: bool,
    request: pytest.FixtureRequest,
    golden: Callable[[Path, str], None],
) -> None:
    whole = Whole(
        file="smallest-index.yaml",
        parts=objects_of(yaml_of(rendered(SMALLEST, embedder()))),
        owner=(owner_of(SMALLEST).name, owner_of(manifest).name),
        ids=dict(zip(ids_of(SMALLEST, embedder()), ids_of(manifest, seen), strict=True)),
    )
    here = objects_of(yaml_of(rendered(manifest, seen, shared=shared)))
    golden(GOLDEN / f"{request.node.callspec.id}.diff", difference(whole, here))


@pytest.mark.parametrize(("manifest", "seen", "shared"), SCENARIOS)
def test_shuffled_input_renders_the_same_bytes(
    manifest: dict[str, Any], seen: EmbedderSeen, shared: bool
) -> None:
    expected = json_of(rendered(manifest, seen, shared=shared))
    for seed in range(20):
        again = shuffled(manifest, random.Random(seed))
        assert json_of(rendered(again, seen, shared=shared)) == expected


def volumes_of_jobs() -> dict[str, dict[str, dict[str, Any]]]:
    """The volumes of each step, by name."""
    return {
        m["metadata"]["labels"]["flotilla.dev/step"]: {
            volume["name"]: volume for volume in m["spec"]["template"]["spec"]["volumes"]
        }
        for m in rendered(vector_index(), embedder())
        if m["kind"] == "Job"
    }


def test_documents_and_model_are_only_read() -> None:
    read_only = {
        (step, name)
        for step, volumes in volumes_of_jobs().items()
        for name, volume in volumes.items()
        if volume.get("persistentVolumeClaim", {}).get("readOnly")
    }
    assert read_only == {("plan", "source"), ("plan", "model"), ("shards", "source")}


def test_only_the_plan_sees_the_model_and_the_promotion_no_documents() -> None:
    volumes = {step: set(found) for step, found in volumes_of_jobs().items()}
    assert volumes["plan"] - volumes["shards"] == {"model"}
    assert volumes["shards"] - volumes["promote"] == {"source"}


def test_the_plan_is_told_which_job_it_belongs_to() -> None:
    plan, *others = (m for m in rendered(vector_index(), embedder()) if m["kind"] == "Job")
    container = plan["spec"]["template"]["spec"]["containers"][0]
    [variable] = [one for one in container["env"] if one["name"] == "JOB_UID"]
    field = variable["valueFrom"]["fieldRef"]["fieldPath"]
    assert field == "metadata.labels['batch.kubernetes.io/controller-uid']"
    assert container["args"][2:4] == ["--job", "$(JOB_UID)"]
    assert not any("--job" in one["spec"]["template"]["spec"]["containers"][0]["args"] for one in others)


DEFAULT_REQUESTS = {"cpu": "100m", "memory": "512Mi"}


@pytest.mark.holds(
    "security.md", "Build pods have a memory limit of 2 GiB unless the user sets one, and the parser knows it"
)
@pytest.mark.parametrize(
    ("own", "requests", "limits"),
    [
        pytest.param({}, DEFAULT_REQUESTS, {"memory": "2Gi"}, id="nothing"),
        pytest.param(
            {"requests": {"cpu": "1"}},
            {**DEFAULT_REQUESTS, "cpu": "1"},
            {"memory": "2Gi"},
            id="a request of CPU",
        ),
        pytest.param(
            {"requests": {"memory": "1Gi"}},
            {**DEFAULT_REQUESTS, "memory": "1Gi"},
            {"memory": "2Gi"},
            id="a request of memory",
        ),
        pytest.param(
            {"requests": {"memory": "3G"}},
            {**DEFAULT_REQUESTS, "memory": "3G"},
            {"memory": "3G"},
            id="a request above the limit",
        ),
        pytest.param(
            {"limits": {"cpu": "2"}}, {"memory": "512Mi"}, {"cpu": "2", "memory": "2Gi"}, id="a limit of CPU"
        ),
        pytest.param(
            {"limits": {"memory": "8Gi"}}, {"cpu": "100m"}, {"memory": "8Gi"}, id="a limit of memory"
        ),
        pytest.param(
            {"limits": {"cpu": "2", "memory": "256Mi"}},
            None,
            {"cpu": "2", "memory": "256Mi"},
            id="limits alone",
        ),
        pytest.param(
            {"requests": {"ephemeral-storage": "1Gi"}},
            {**DEFAULT_REQUESTS, "ephemeral-storage": "1Gi"},
            {"memory": "2Gi"},
            id="another resource",
        ),
    ],
)
def test_what_the_user_leaves_out_of_the_resources_of_builds_has_its_default(
    own: dict[str, Any], requests: dict[str, str] | None, limits: dict[str, str]
) -> None:
    spec = index_spec(build={"resources": own})
    seen = embedder()
    build = wanted(spec, seen.model)
    for step in BuildStep:
        job = build_job(OWNER, spec, IMAGES, seen.model, build, step, shards=1)
        (container,) = job["spec"]["template"]["spec"]["containers"]
        assert container["resources"].get("requests") == requests
        assert container["resources"]["limits"] == limits


@pytest.mark.holds(
    "decisions/0007-index-builds.md", "Indexes that share a workspace claim have a folder each"
)
def test_indexes_that_share_a_workspace_claim_have_a_folder_each() -> None:
    names = ("a", "b")
    folders = set()
    for name in names:
        build = {"workspace": {"claimName": "shared"}}
        objects = rendered(vector_index(name, build=build), embedder())
        [config] = [m for m in objects if m["kind"] == "ConfigMap" and "-build-" in m["metadata"]["name"]]
        folders.add(json.loads(config["data"]["config.json"])["workspace"])
    assert len(folders) == len(names)
    assert all(folder.startswith("/workspace/") for folder in folders)


def test_pods_stay_together_unless_the_workspace_is_shared() -> None:
    spec = index_spec()
    seen = embedder()
    alone = build_job(OWNER, spec, IMAGES, seen.model, wanted(spec, seen.model), BuildStep.PLAN)
    shared = build_job(OWNER, spec, IMAGES, seen.model, wanted(spec, seen.model, shared=True), BuildStep.PLAN)
    assert "affinity" in alone["spec"]["template"]["spec"]
    assert "affinity" not in shared["spec"]["template"]["spec"]


@pytest.mark.parametrize("attempt", [0, 7, 12])
@pytest.mark.parametrize("step", list(BuildStep))
def test_what_a_job_runs_is_read_back_from_it(step: BuildStep, attempt: int) -> None:
    spec, seen = index_spec(), embedder()
    build = replace(wanted(spec, seen.model), attempt=attempt)
    job = build_job(OWNER, spec, IMAGES, seen.model, build, step)
    assert step_run(OWNER, job) == build.step_run(step)
    assert build.run == f"{build.id}-{attempt}"


def stored_job(
    name: str, *, step: str, run: str | None = "gxzk3b-1", attempt: str | None = "1"
) -> dict[str, Any]:
    """A Job with the marks that version 0.1.0 gives it."""
    labels = {
        "flotilla.dev/kind": "VectorIndex",
        "flotilla.dev/owner": "handbook",
        "app.kubernetes.io/component": "build",
        "flotilla.dev/build": run,
        "flotilla.dev/step": step,
        "flotilla.dev/generation": "g-ax3wgftv",
    }
    annotations = {"flotilla.dev/attempt": attempt}
    return {
        "metadata": {
            "name": name,
            "labels": {key: value for key, value in labels.items() if value is not None},
            "annotations": {key: value for key, value in annotations.items() if value is not None},
        }
    }


@pytest.mark.parametrize(
    ("job", "runs"),
    [
        pytest.param(
            stored_job("handbook-plan-gxzk3b-1", step="plan"),
            StepRun(step=BuildStep.PLAN, build="gxzk3b", attempt=1),
            id="a plan",
        ),
        pytest.param(
            stored_job("handbook-shard-gxzk3b-1", step="shards"),
            StepRun(step=BuildStep.SHARDS, build="gxzk3b", attempt=1),
            id="shards",
        ),
        pytest.param(
            stored_job("handbook-promote-gxzk3b-1-q5wd", step="promote"),
            StepRun(step=BuildStep.PROMOTE, build="gxzk3b", attempt=1, promotion="q5wd"),
            id="a promotion, whose rules are only in its name",
        ),
        pytest.param(
            stored_job("handbook-plan-gxzk3b-0", step="plan", run="gxzk3b-0", attempt=None),
            StepRun(step=BuildStep.PLAN, build="gxzk3b", attempt=0),
            id="no attempt came before",
        ),
        pytest.param(
            stored_job("handbook-plan-gxzk3b-1", step="plan", attempt="many"),
            StepRun(step=BuildStep.PLAN, build="gxzk3b-1", attempt=0),
            id="an attempt that is no number, so it is of no build",
        ),
        pytest.param(
            stored_job("handbook-plan", step="plan", run=None),
            StepRun(step=BuildStep.PLAN, build="", attempt=1),
            id="no build is named",
        ),
        pytest.param(
            stored_job("renamed", step="promote"),
            StepRun(step=BuildStep.PROMOTE, build="gxzk3b", attempt=1),
            id="a promotion of another name has no known rules",
        ),
        pytest.param(stored_job("handbook-tidy", step="tidy"), None, id="no step of a build"),
    ],
)
def test_a_job_that_is_in_a_cluster_says_what_it_runs(job: dict[str, Any], runs: StepRun | None) -> None:
    assert step_run(OWNER, job) == runs


@pytest.mark.holds("decisions/0005-indexed-jobs.md", "A Job's name carries the hash of what it runs")
def test_names_fit_into_what_kubernetes_allows() -> None:
    longest = Owner(kind="VectorIndex", namespace="default", name="n" * 40, uid="u")
    build = WantedBuild(
        generation="g-abcdefgh", id="abcdef", promotion="abcd", shared_workspace=True, attempt=99
    )
    for step in BuildStep:
        # The pods of an Indexed Job are called after it and their index.
        assert len(job_name(longest, step, build) + "-12345"[: 6 if step is BuildStep.SHARDS else 0]) <= 63
    assert len(collection_name(longest, "g-abcdefgh")) < 255


def test_two_indexes_never_share_an_alias() -> None:
    one = Owner(kind="VectorIndex", namespace="a-b", name="c", uid="1")
    other = Owner(kind="VectorIndex", namespace="a", name="b-c", uid="2")
    assert alias_name(one) != alias_name(other)


def test_ids_are_the_same_from_release_to_release() -> None:
    """A change here makes every index in every cluster build again: is it meant?"""
    spec, model = index_spec(), embedder().model
    build = wanted(spec, model)
    assert (build.generation, build.id, build.promotion) == GOLDEN_IDS
    assert alias_name(OWNER) == "flotilla_default_handbook_" + GOLDEN_ALIAS


GOLDEN_IDS = ("g-3wnswzhn", "lc43ds", "vee4")
GOLDEN_ALIAS = "nuzsbm"


@pytest.mark.holds("decisions/0005-indexed-jobs.md", "A Job's name carries the hash of what it runs")
@pytest.mark.holds(
    "decisions/0007-index-builds.md", "What makes vectors makes another generation, built aside"
)
@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"processing": {"chunkTokens": 100}}, id="chunk length"),
        pytest.param({"processing": {"overlapTokens": 1}}, id="overlap"),
        pytest.param({"embedding": {"dimension": 768}}, id="dimension"),
        pytest.param({"embedding": {"normalize": False}}, id="normalisation"),
        pytest.param({"embedding": {"modelRef": {"name": "other"}}}, id="model"),
        pytest.param({"index": {"type": "Flat"}}, id="index type"),
        pytest.param({"index": {"metric": "Euclidean"}}, id="metric"),
        pytest.param({"index": {"parameters": {"M": 8}}}, id="index parameter"),
    ],
)
def test_what_makes_vectors_makes_another_generation(change: dict[str, Any]) -> None:
    spec = index_spec(**change)
    model = EmbedderModel(name=spec.embedding.model_ref.name, url="", spec=embedder().spec)
    assert generation_id(spec, model) != generation_id(index_spec(), embedder().model)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"source": {"path": "pvc://documents/other"}}, id="other documents"),
        pytest.param({"retriever": {"replicas": 3}}, id="more retrievers"),
        pytest.param({"embedding": {"batchSize": 8}}, id="smaller batches"),
        pytest.param({"index": {"parameters": {"M": 16}}}, id="a default said aloud"),
    ],
)
def test_what_does_not_make_vectors_keeps_the_generation(change: dict[str, Any]) -> None:
    assert generation_id(index_spec(**change), embedder().model) == generation_id(
        index_spec(), embedder().model
    )


@pytest.mark.holds(
    "decisions/0007-index-builds.md", "What makes vectors makes another generation, built aside"
)
def test_another_revision_of_the_weights_is_another_generation() -> None:
    newer = embedder(model={**ON_HUB, "revision": "d0"}).model
    assert generation_id(index_spec(), newer) != generation_id(index_spec(), embedder(model=ON_HUB).model)


@pytest.mark.parametrize(
    ("path", "root", "volume"),
    [
        pytest.param(
            "pvc://docs/a/b/",
            "/source/a/b",
            {"name": "source", "persistentVolumeClaim": {"claimName": "docs", "readOnly": True}},
            id="a folder of a claim",
        ),
        pytest.param(
            "pvc://docs",
            "/source",
            {"name": "source", "persistentVolumeClaim": {"claimName": "docs", "readOnly": True}},
            id="a whole claim",
        ),
        pytest.param(
            "configmap://pages",
            "/source",
            {"name": "source", "configMap": {"name": "pages"}},
            id="a ConfigMap",
        ),
    ],
)
def test_a_source_says_what_to_mount_and_where_to_look(path: str, root: str, volume: dict[str, Any]) -> None:
    source = document_source(path)
    assert (source.root, source.volume) == (root, volume)


@pytest.mark.holds("security.md", "Queries are embedded at no address that only Milvus names")
@pytest.mark.parametrize("router", [{}, {"tls": {"secretRef": {"name": "tls"}}}])
def test_the_retriever_knows_the_address_of_every_set_that_embeds(router: dict[str, Any]) -> None:
    """The runtime takes other embedders' addresses for routers' by their form alone."""
    owner = Owner(kind="ModelReplicaSet", namespace="team", name="minilm", uid="u")
    url = internal_url(owner, spec_of(router=router))
    assert url in contract.router_urls("minilm", "team")
