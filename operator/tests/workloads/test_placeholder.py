"""Placeholder pods: asking for what an engine pod asks for, and in nobody's way."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from flotilla_operator.objects.resources import Manifest
from flotilla_operator.placement.manifests import pod_requests
from flotilla_operator.replicas.group import GroupIdentity
from flotilla_operator.replicas.provisioning import PlaceholderId
from flotilla_operator.replicas.shape import PlaceholderShape
from flotilla_operator.workloads.engine_pod import claim_volumes, engine_pod
from flotilla_operator.workloads.placeholder import (
    Dress,
    is_placeholder,
    placeholder_of,
    placeholder_pod,
)
from tests.builders.model_replica_set import IMAGES, OWNER, spec_of

GOLDEN = Path(__file__).parent / "golden"
SPEC = spec_of(
    model={"source": "pvc://models/llama"},
    engine={"resources": {"requests": {"cpu": "7500m", "memory": "64Gi"}, "limits": {"memory": "128Gi"}}},
    accelerator={"resource": "nvidia.com/gpu", "products": ["H100", "H200"]},
    parallelism={"tensor": 8},
)
ENGINE = engine_pod(OWNER, SPEC, GroupIdentity(name="any", server_id=1, revision="r"), IMAGES)
SHAPE = PlaceholderShape(
    requests=pod_requests(ENGINE["spec"]),
    node_selector={"pool": "inference"},
    tolerations=[{"key": "nvidia.com/gpu", "operator": "Exists"}],
    products=frozenset({"H200", "H100"}),
    product_labels=("nvidia.com/gpu.product", "cloud.google.com/gke-accelerator"),
    claims=claim_volumes(SPEC),
)
DRESS = Dress(
    images=replace(IMAGES, pull_secrets=("registry",)),
    priority_class="flotilla-placeholder",
    labels={"team": "search"},
)
PLACE = PlaceholderId(slot=3, stage=1)


def as_created(pod: Manifest) -> Manifest:
    """The pod as the API server keeps it."""
    created = {"uid": "uid-p", "creationTimestamp": "2026-05-01T12:00:00Z"}
    return {**pod, "metadata": {**pod["metadata"], **created}}


@pytest.mark.holds("install.md", "`images.pullSecrets` is named by the placeholder pods")
@pytest.mark.holds("install.md", "A placeholder's limits equal its requests")
@pytest.mark.holds(
    "node-autoscalers.md",
    "`packPipelineWithin` and `spreadReplicasAcross` with `required` become pod affinity and topology spread",
)
def test_the_whole_pod(golden: Callable[[Path, str], None]) -> None:
    strict = replace(
        SHAPE,
        stages=2,
        pack_within="topology.kubernetes.io/zone",
        spread_across="topology.kubernetes.io/zone",
    )
    pod = placeholder_pod(OWNER, "llama-placeholder-a", PLACE, strict, DRESS)
    golden(GOLDEN / "placeholder.yaml", yaml.safe_dump(pod, sort_keys=True))


@pytest.mark.holds(
    "node-autoscalers.md",
    "For each replica that fits nowhere placeholders ask for what its pods ask for, and `Placed` "
    "is NodesRequested",
)
def test_it_asks_for_what_the_engine_asks_for() -> None:
    pod = placeholder_pod(OWNER, "p", PLACE, SHAPE, DRESS)
    assert pod_requests(pod["spec"]) == pod_requests(ENGINE["spec"])
    (volume,) = [v for v in ENGINE["spec"]["volumes"] if "persistentVolumeClaim" in v]
    assert pod["spec"]["volumes"] == [volume]


@pytest.mark.holds("pods.md", "Placeholders get the RuntimeClass")
def test_a_placeholder_has_the_runtime_of_its_replica() -> None:
    sandboxed = replace(SHAPE, runtime_class="sandboxed")
    pod = placeholder_pod(OWNER, "p", PLACE, sandboxed, DRESS)
    assert pod["spec"]["runtimeClassName"] == "sandboxed"
    assert sandboxed.hash != SHAPE.hash, "a placeholder without it would ask for other nodes"


def test_it_is_recognised_and_says_where_it_stands() -> None:
    pod = placeholder_pod(OWNER, "p", PLACE, SHAPE, DRESS)
    assert is_placeholder(pod)
    assert not is_placeholder(ENGINE)
    seen = placeholder_of(as_created(pod))
    assert (seen.id, seen.shape, seen.useful, seen.node) == (PLACE, SHAPE.hash, True, None)


def test_one_that_has_ended_is_of_no_use() -> None:
    pod = as_created(placeholder_pod(OWNER, "p", PLACE, SHAPE, DRESS))
    bound = {**pod, "spec": {**pod["spec"], "nodeName": "a"}}
    assert placeholder_of(bound).node == "a"
    assert not placeholder_of({**bound, "status": {"phase": "Failed"}}).useful


def test_the_users_labels_do_not_make_it_anothers() -> None:
    dress = replace(DRESS, labels={"app.kubernetes.io/component": "engine", "flotilla.dev/placeholder": "7"})
    pod = placeholder_pod(OWNER, "p", PLACE, SHAPE, dress)
    assert placeholder_of(as_created(pod)).id == PLACE
    assert pod["metadata"]["labels"]["app.kubernetes.io/component"] == "placeholder"


def test_a_wish_that_nodes_are_chosen_by_is_another_shape() -> None:
    assert replace(SHAPE, products=frozenset({"H100", "H200"})).hash == SHAPE.hash
    others = [
        replace(SHAPE, requests={**SHAPE.requests, "cpu": 1}),
        replace(SHAPE, node_selector={}),
        replace(SHAPE, products=frozenset()),
        replace(SHAPE, pack_within="topology.kubernetes.io/zone"),
    ]
    assert len({SHAPE.hash, *(other.hash for other in others)}) == 5
