"""The objects of an index as golden files, what is the point of each by name, and their stability."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from flotilla_operator.api.model_replica_set import ModelReplicaSetSpec
from flotilla_operator.api.vector_index import VectorIndex, VectorIndexSpec
from flotilla_operator.controllers.vector_index.objects import claims_of, standing_objects
from flotilla_operator.controllers.vector_index.seen import EmbedderSeen
from flotilla_operator.workloads.labels import Owner
from flotilla_operator.workloads.vector_index.build import (
    WantedBuild,
    build_config_map,
    build_job,
    document_source,
    job_name,
)
from flotilla_operator.workloads.vector_index.identity import (
    EmbedderModel,
    alias_name,
    build_id,
    collection_name,
    generation_id,
    promotion_id,
)
from flotilla_runtime.contract import BuildStep
from tests.builders.model_replica_set import IMAGES, spec_of
from tests.builders.vector_index import OWNER, full_featured_objects, index_spec, vector_index
from tests.support.rendering import shuffled

GOLDEN = Path(__file__).parent / "golden"
LITE, EXTERNAL = full_featured_objects()
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


def owner_of(manifest: dict[str, Any]) -> Owner:
    metadata = manifest["metadata"]
    return Owner(kind="VectorIndex", namespace="default", name=metadata["name"], uid=metadata["uid"])


def wanted(spec: VectorIndexSpec, model: EmbedderModel, *, shared: bool = False) -> WantedBuild:
    generation = generation_id(spec, model)
    build = build_id(spec, generation)
    return WantedBuild(
        generation=generation, id=build, promotion=promotion_id(spec, build), shared_workspace=shared
    )


def rendered(manifest: dict[str, Any], seen: EmbedderSeen, *, shared: bool = False) -> list[dict[str, Any]]:
    owner, spec = owner_of(manifest), VectorIndex.model_validate(manifest).spec
    build = wanted(spec, seen.model, shared=shared)
    jobs = [build_job(owner, spec, IMAGES, seen.model, build, step, shards=7) for step in BuildStep]
    return [
        *claims_of(owner, spec),
        *standing_objects(owner, spec, IMAGES, seen),
        build_config_map(owner, spec, seen.model, build),
        *jobs,
    ]


def text_of(manifests: list[dict[str, Any]]) -> str:
    return yaml.safe_dump_all(manifests, sort_keys=False, width=110)


@pytest.mark.parametrize(
    ("manifest", "seen", "shared"),
    [
        pytest.param(vector_index(), embedder(), False, id="smallest-index"),
        pytest.param(LITE, embedder(model=ON_HUB), False, id="every-field-on-lite"),
        pytest.param(
            EXTERNAL,
            embedder(router={"authSecretRef": {"name": "keys"}}),
            True,
            id="external-milvus-with-keys",
        ),
    ],
)
def test_the_objects_are_as_reviewed(
    manifest: dict[str, Any],
    seen: EmbedderSeen,
    shared: bool,
    request: pytest.FixtureRequest,
    golden: Callable[[Path, str], None],
) -> None:
    name = request.node.callspec.id
    golden(GOLDEN / f"vector-index-{name}.yaml", text_of(rendered(manifest, seen, shared=shared)))


def test_the_order_of_keys_in_the_spec_changes_nothing() -> None:
    expected = json.dumps(rendered(LITE, embedder()))
    for seed in range(20):
        assert json.dumps(rendered(shuffled(LITE, random.Random(seed)), embedder())) == expected


def pods_of(manifests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [m["spec"]["template"]["spec"] for m in manifests if "template" in m.get("spec", {})]


def test_every_pod_is_restricted_and_holds_no_token() -> None:
    for pod in pods_of(rendered(LITE, embedder(model=ON_HUB))):
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in pod["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_every_container_asks_for_what_a_quota_counts() -> None:
    for pod in pods_of(rendered(vector_index(), embedder())):
        for container in pod["containers"]:
            assert set(container["resources"]["requests"]) == {"cpu", "memory"}


def test_documents_and_model_are_only_read() -> None:
    for pod in pods_of(rendered(vector_index(), embedder())):
        for volume in pod.get("volumes", ()):
            if volume["name"] in ("source", "model"):
                assert volume["persistentVolumeClaim"]["readOnly"] is True


def test_only_the_plan_sees_the_model_and_the_promotion_no_documents() -> None:
    volumes = {
        m["metadata"]["labels"]["flotilla.dev/step"]: {
            v["name"] for v in m["spec"]["template"]["spec"]["volumes"]
        }
        for m in rendered(vector_index(), embedder())
        if m["kind"] == "Job"
    }
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
