"""Parts of objects that the caches keep, ours and strangers'."""

import json
from typing import Any

import pytest

from flotilla_operator.cluster.stripped import stripped
from flotilla_operator.objects.resources import (
    ALL,
    CLUSTER_ROLE_BINDINGS,
    CONFIG_MAPS,
    MODEL_REPLICA_SETS,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    RESOURCE_CLAIMS,
    Manifest,
    Resource,
)
from flotilla_operator.placement.manifests import claim_of

OURS = {"apiVersion": "flotilla.dev/v1alpha1", "kind": "ModelReplicaSet", "name": "m", "uid": "u"}
PADDING = "x" * 100_000


def stranger(**fields: Any) -> Manifest:
    """An object of nobody that we know, with much in every place that its maker chooses."""
    metadata = {
        "name": "s",
        "namespace": "default",
        "uid": "uid-s",
        "resourceVersion": "7",
        "labels": {"app": PADDING, "flotilla.dev/owner": "m"},
        "annotations": {"note": PADDING, "flotilla.dev/drain-epoch": "3"},
        "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "v"}],
        "managedFields": [{"manager": PADDING}],
    }
    return {"apiVersion": "v1", "kind": "K", "metadata": metadata, **fields}


def size(manifest: Manifest) -> int:
    return len(json.dumps(manifest))


def test_of_a_strangers_object_its_name_owners_and_our_labels_are_kept() -> None:
    kept = stripped(CONFIG_MAPS, stranger(data={"a": PADDING}, binaryData={"b": PADDING}))
    assert kept == {
        "apiVersion": "v1",
        "kind": "K",
        "metadata": {
            "name": "s",
            "namespace": "default",
            "uid": "uid-s",
            "resourceVersion": "7",
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "v"}],
            "labels": {"flotilla.dev/owner": "m"},
        },
    }


@pytest.mark.parametrize(
    "resource",
    [one for one in ALL if one.plural in ("configmaps", "services", "deployments", "jobs", "roles")],
)
def test_a_child_of_ours_is_kept_whole(resource: Resource) -> None:
    child = stranger(spec={"much": PADDING}, data={"a": "1"})
    child["metadata"]["ownerReferences"] = [{**OURS, "controller": True}]
    before = json.loads(json.dumps(child))
    del before["metadata"]["managedFields"]
    assert stripped(resource, child) == before


def test_an_owner_that_does_not_control_makes_no_child() -> None:
    other = stranger(data={"a": PADDING})
    other["metadata"]["ownerReferences"] = [OURS]
    assert "data" not in stripped(CONFIG_MAPS, other)


def test_of_a_binding_with_our_labels_is_kept_whom_it_binds() -> None:
    bound = {"subjects": [{"kind": "User", "name": "eve"}], "roleRef": {"name": "r"}}
    kept = stripped(CLUSTER_ROLE_BINDINGS, stranger(**bound, data=PADDING))
    assert {name: kept.get(name) for name in bound} == bound
    assert "data" not in kept
    of_others = stranger(**bound)
    of_others["metadata"]["labels"] = {"app": "a"}
    assert not bound.keys() & stripped(CLUSTER_ROLE_BINDINGS, of_others).keys()


def pod(**spec: Any) -> Manifest:
    container = {
        "name": "c",
        "image": PADDING,
        "command": [PADDING],
        "env": [{"name": "A", "value": PADDING}],
        "resources": {"requests": {"cpu": "2", "nvidia.com/gpu": "1"}},
    }
    first = {**container, "restartPolicy": "Always", "resources": {"limits": {"memory": "1Gi"}}}
    status = {"phase": "Running", "podIP": "10.0.0.1", "containerStatuses": [{"name": "c", "x": PADDING}]}
    whole = {
        "containers": [container],
        "initContainers": [first],
        "overhead": {"cpu": "1"},
        "volumes": [{"name": PADDING}],
        "tolerations": [{"key": PADDING}],
        **spec,
    }
    return stranger(spec=whole, status=status)


@pytest.mark.holds("security.md", "Strangers' objects take little of the operator's memory")
@pytest.mark.parametrize(
    "spec",
    [
        pytest.param({"nodeName": "a"}, id="bound"),
        pytest.param({}, id="not bound"),
        pytest.param(
            {
                "affinity": {
                    "podAffinity": {"much": PADDING},
                    "nodeAffinity": {
                        "preferredDuringSchedulingIgnoredDuringExecution": [PADDING],
                        "requiredDuringSchedulingIgnoredDuringExecution": {
                            "nodeSelectorTerms": [
                                {
                                    "matchFields": [
                                        {"key": "metadata.name", "operator": "In", "values": ["b"]}
                                    ],
                                    "matchExpressions": [{"key": PADDING, "operator": "Exists"}],
                                }
                            ]
                        },
                    },
                }
            },
            id="pinned",
        ),
    ],
)
def test_a_strangers_pod_holds_the_same_and_takes_little_memory(spec: dict[str, Any]) -> None:
    whole = pod(**spec)
    wanted = claim_of(whole)
    kept = stripped(PODS, whole)
    assert claim_of(kept) == wanted
    assert size({**kept, "status": {}}) < 2_000
    assert kept["metadata"]["labels"] == {"flotilla.dev/owner": "m"}


def test_what_the_kubelet_reports_is_kept_of_pods_with_our_labels_alone() -> None:
    ours, other = pod(), pod()
    del other["metadata"]["labels"]["flotilla.dev/owner"]
    assert "containerStatuses" in stripped(PODS, ours)["status"]
    assert stripped(PODS, other)["status"] == {"phase": "Running", "podIP": "10.0.0.1"}
    assert size(stripped(PODS, other)) < 1_000


def test_what_administrators_make_stays_whole_but_for_the_images_of_nodes() -> None:
    claim = stranger(spec={"accessModes": ["ReadWriteMany"]})
    assert stripped(PERSISTENT_VOLUME_CLAIMS, claim)["spec"] == {"accessModes": ["ReadWriteMany"]}
    node = stripped(
        NODES, stranger(spec={"taints": []}, status={"images": [PADDING], "capacity": {"cpu": "1"}})
    )
    assert node["status"] == {"capacity": {"cpu": "1"}}
    assert node["metadata"]["labels"]["app"] == PADDING


def test_of_a_device_claim_what_was_allocated_is_kept() -> None:
    claim = stranger(spec={"devices": PADDING}, status={"allocation": {"devices": {}}})
    kept = stripped(RESOURCE_CLAIMS, claim)
    assert kept["status"] == {"allocation": {"devices": {}}}
    assert "spec" not in kept


def test_our_kinds_lose_only_what_other_tools_note_on_them() -> None:
    ours = stranger(spec={"much": PADDING}, status={"conditions": []})
    kept = stripped(MODEL_REPLICA_SETS, ours)
    assert kept["spec"] == {"much": PADDING}
    assert kept["metadata"]["labels"]["app"] == PADDING
    assert kept["metadata"]["annotations"] == {"flotilla.dev/drain-epoch": "3"}
