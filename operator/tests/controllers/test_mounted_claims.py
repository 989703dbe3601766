"""The claims that a spec names, and whose pods may mount them."""

from typing import Any

import pytest

from flotilla_operator.controllers.mounted_claims import (
    NamedClaim,
    Unaskable,
    claim_problem,
    claims_of_volumes,
)
from flotilla_operator.objects.owners import Owner
from flotilla_operator.objects.used_by import ANNOTATION, User
from flotilla_operator.workloads import agent_fleet
from flotilla_operator.workloads.vector_index.milvus import milvus
from tests.builders.world import CONFIG, RESTRICTED, world

LLAMA = User(kind="ModelReplicaSet", name="llama")
NAMED = NamedClaim(field="spec.modelCache.claimName", name="models")
PVC = "PersistentVolumeClaim"


def claim(name: str, used_by: str | None = None, labels: dict[str, str] | None = None) -> dict[str, Any]:
    annotations = {} if used_by is None else {ANNOTATION: used_by}
    metadata = {
        "name": name,
        "namespace": "default",
        "uid": "c",
        "annotations": annotations,
        "labels": labels or {},
    }
    return {"apiVersion": "v1", "kind": PVC, "metadata": metadata, "spec": {}}


def copying(field: str, **source: str) -> dict[str, Any]:
    return {"name": "v", "ephemeral": {"volumeClaimTemplate": {"spec": {field: source}}}}


@pytest.mark.holds(
    "security.md",
    "A claim is for the objects that its `flotilla.dev/used-by` lists, also as the source of a "
    "copy, and that of a managed Redis or Milvus for its own pod alone",
)
@pytest.mark.parametrize(
    ("volume", "found"),
    [
        pytest.param({"name": "v", "configMap": {"name": "m"}}, [], id="no claim"),
        pytest.param(
            {"name": "v", "persistentVolumeClaim": {"claimName": "models"}},
            [
                NamedClaim(
                    field="spec.pod.volumes[v].persistentVolumeClaim.claimName",
                    name="models",
                )
            ],
            id="a claim",
        ),
        pytest.param(
            copying("dataSource", kind=PVC, name="models"),
            [
                NamedClaim(
                    field="spec.pod.volumes[v].ephemeral.volumeClaimTemplate.spec.dataSource",
                    name="models",
                    copied=True,
                )
            ],
            id="a copy of a claim",
        ),
        pytest.param(
            copying("dataSourceRef", kind=PVC, name="models", namespace="team-b"),
            [
                Unaskable(
                    field="spec.pod.volumes[v].ephemeral.volumeClaimTemplate.spec.dataSourceRef",
                    what="PersistentVolumeClaim 'models'",
                )
            ],
            id="a copy of a claim of another namespace",
        ),
        pytest.param(
            copying("dataSource", apiGroup="snapshot.storage.k8s.io", kind="VolumeSnapshot", name="s"),
            [
                Unaskable(
                    field="spec.pod.volumes[v].ephemeral.volumeClaimTemplate.spec.dataSource",
                    what="VolumeSnapshot 's'",
                )
            ],
            id="a snapshot",
        ),
        pytest.param({"name": "v", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}}, [], id="a new claim"),
        pytest.param({"name": "v", "persistentVolumeClaim": "models"}, [], id="no claim that exists"),
        pytest.param({"name": "v", "ephemeral": {"volumeClaimTemplate": None}}, [], id="nor this"),
    ],
)
def test_what_a_volume_names(volume: dict[str, Any], found: list[NamedClaim | Unaskable]) -> None:
    assert list(claims_of_volumes("spec.pod.volumes", [volume])) == found


@pytest.mark.holds(
    "security.md",
    "A claim is for the objects that its `flotilla.dev/used-by` lists, also as the source of a "
    "copy, and that of a managed Redis or Milvus for its own pod alone",
)
@pytest.mark.parametrize(
    ("held", "restricted", "words"),
    [
        pytest.param(claim("models"), False, None, id="nobody restricts"),
        pytest.param(claim("models", "ModelReplicaSet/llama"), True, None, id="it lists the set"),
        pytest.param(
            claim("models"),
            True,
            "run: kubectl annotate -n default pvc models flotilla.dev/used-by='ModelReplicaSet/llama'",
            id="it lists nobody",
        ),
        pytest.param(claim("models", "ModelReplicaSet/gpt"), False, "does not list", id="it lists another"),
        pytest.param(
            claim("models", "team-b/ModelReplicaSet/llama"), True, "names a namespace", id="elsewhere"
        ),
    ],
)
def test_who_may_mount_a_claim(held: dict[str, Any], restricted: bool, words: str | None) -> None:
    around = world(held, config=RESTRICTED if restricted else CONFIG)
    problem = claim_problem(NAMED, "default", LLAMA, around)
    if words is None:
        assert problem is None
    else:
        assert problem is not None
        assert not problem.is_missing
        assert words in problem.message
        assert problem.message.startswith(
            "spec.modelCache.claimName: the PersistentVolumeClaim 'models' is not mounted: "
        )


def owner(kind: str, name: str) -> Owner:
    return Owner(kind=kind, namespace="default", name=name, uid="u")


@pytest.mark.holds(
    "security.md",
    "A claim is for the objects that its `flotilla.dev/used-by` lists, also as the source of a "
    "copy, and that of a managed Redis or Milvus for its own pod alone",
)
@pytest.mark.parametrize("config", [CONFIG, RESTRICTED], ids=["as it is", "restricted"])
@pytest.mark.parametrize("retained", [True, False])
@pytest.mark.parametrize("copied", [True, False])
@pytest.mark.parametrize(
    ("part", "whose"),
    [
        pytest.param(
            agent_fleet.redis(owner("AgentFleet", "support")),
            "the Redis of AgentFleet support",
            id="Redis",
        ),
        pytest.param(
            milvus(owner("VectorIndex", "handbook")),
            "the Milvus of VectorIndex handbook",
            id="Milvus",
        ),
    ],
)
def test_no_annotation_lets_anybody_into_a_store_of_ours(
    part: Any, whose: str, copied: bool, retained: bool, config: Any
) -> None:
    metadata = part.metadata(owned=not retained)
    metadata["annotations"] = {ANNOTATION: "ModelReplicaSet/llama"}
    held = {"apiVersion": "v1", "kind": PVC, "metadata": metadata, "spec": {}}
    named = NamedClaim(field="f", name=part.name, copied=copied)
    problem = claim_problem(named, "default", LLAMA, world(held, config=config))
    assert problem is not None
    assert f"it holds {whose}" in problem.message


def test_a_claim_that_is_not_there_yet_is_waited_for() -> None:
    """Else its pods would wait for it too, and mount whatever gets the name."""
    problem = claim_problem(NAMED, "default", LLAMA, world())
    assert problem is not None
    assert problem.is_missing


def test_where_kinds_are_restricted_nothing_begins_as_a_copy_of_what_nobody_can_ask() -> None:
    named = Unaskable(field="f", what="VolumeSnapshot 's'")
    assert claim_problem(named, "default", LLAMA, world()) is None
    problem = claim_problem(named, "default", LLAMA, world(config=RESTRICTED))
    assert problem is not None
    assert "VolumeSnapshot 's'" in problem.message
