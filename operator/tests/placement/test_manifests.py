"""Nodes and pods of the API become placement's values."""

from typing import Any

import pytest

from flotilla_operator.objects.quantities import amount
from flotilla_operator.placement.manifests import claim_of, node_of, pinned_node, pod_requests


@pytest.mark.parametrize(
    ("resource", "text", "expected"),
    [
        pytest.param("cpu", "500m", 500, id="millicores"),
        pytest.param("cpu", 2, 2000, id="whole cores as a number"),
        pytest.param("cpu", "0.1", 100, id="a fraction of a core"),
        pytest.param("cpu", "1n", 1, id="a fraction of a millicore rounds up"),
        pytest.param("memory", "1Gi", 2**30, id="binary"),
        pytest.param("memory", "1G", 10**9, id="decimal"),
        pytest.param("memory", "1e3", 1000, id="exponent"),
        pytest.param("memory", "128974848", 128974848, id="bare"),
        pytest.param("nvidia.com/gpu", "8", 8, id="devices"),
    ],
)
def test_quantities(resource: str, text: str | int, expected: int) -> None:
    assert amount(resource, text) == expected


def test_a_quantity_that_is_none() -> None:
    with pytest.raises(ValueError, match="'lots' is not a Kubernetes quantity"):
        amount("memory", "lots")


def container(**requests: str) -> dict[str, Any]:
    return {"name": "c", "resources": {"requests": requests}}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        pytest.param(
            {"containers": [container(cpu="1"), container(cpu="2")]}, {"cpu": 3000, "pods": 1}, id="sum"
        ),
        pytest.param(
            {"containers": [container(cpu="1")], "initContainers": [container(cpu="3")]},
            {"cpu": 3000, "pods": 1},
            id="an init container's peak",
        ),
        pytest.param(
            {
                "containers": [container(cpu="1")],
                "initContainers": [{**container(cpu="1"), "restartPolicy": "Always"}, container(cpu="3")],
            },
            {"cpu": 4000, "pods": 1},
            id="a sidecar runs beside the init containers that follow it",
        ),
        pytest.param(
            {"containers": [{"name": "c", "resources": {"limits": {"nvidia.com/gpu": "2"}}}]},
            {"nvidia.com/gpu": 2, "pods": 1},
            id="a limit is a request where none is given",
        ),
        pytest.param(
            {"containers": [container(cpu="1")], "overhead": {"cpu": "250m"}},
            {"cpu": 1250, "pods": 1},
            id="overhead",
        ),
    ],
)
def test_pod_requests(spec: dict[str, Any], expected: dict[str, int]) -> None:
    assert pod_requests(spec) == expected


def pinned(*terms: list[str]) -> dict[str, Any]:
    return {
        "containers": [container(cpu="1")],
        "affinity": {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [
                        {"matchFields": [{"key": "metadata.name", "operator": "In", "values": values}]}
                        for values in terms
                    ]
                }
            }
        },
    }


@pytest.mark.parametrize(
    ("spec", "node"),
    [
        pytest.param(pinned(["a"]), "a", id="one term"),
        pytest.param(pinned(["a"], ["a"]), "a", id="every term names it"),
        pytest.param(pinned(["a"], ["b"]), None, id="two nodes are no pin"),
        pytest.param(pinned(["a", "b"]), None, id="a choice is no pin"),
        pytest.param({"containers": []}, None, id="no affinity"),
    ],
)
def test_pins(spec: dict[str, Any], node: str | None) -> None:
    assert pinned_node(spec) == node


@pytest.mark.holds("groups.md", "Other sets are planned around gated pods")
@pytest.mark.parametrize(
    ("pod", "node"),
    [
        pytest.param({"spec": {**pinned(["a"]), "nodeName": "b"}}, "b", id="where it is bound counts"),
        pytest.param({"spec": pinned(["a"])}, "a", id="a pin is a reservation"),
        pytest.param({"spec": {"containers": [container(cpu="1")]}}, None, id="pending and unpinned"),
        pytest.param(
            {"spec": {**pinned(["a"]), "nodeName": "a"}, "status": {"phase": "Succeeded"}}, None, id="over"
        ),
    ],
)
def test_claims(pod: dict[str, Any], node: str | None) -> None:
    claim = claim_of(pod)
    assert (claim.node if claim else None) == node


def test_a_node() -> None:
    seen = node_of(
        {
            "metadata": {"name": "a", "labels": {"zone": "z"}},
            "spec": {
                "unschedulable": True,
                "taints": [
                    {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"},
                    {"key": "gpu", "effect": "NoSchedule"},
                ],
            },
            "status": {
                "allocatable": {"cpu": "7910m", "nvidia.com/gpu": "8"},
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        }
    )
    assert seen.cordoned
    assert seen.ready
    assert [taint.key for taint in seen.taints] == ["gpu"], "a cordon is one reason, not two"
    assert seen.allocatable == {"cpu": 7910, "nvidia.com/gpu": 8}


@pytest.mark.parametrize(
    ("taint", "ready"),
    [
        pytest.param({"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}, False, id="not ready"),
        pytest.param({"key": "node.kubernetes.io/disk-pressure", "effect": "NoSchedule"}, False, id="full"),
        pytest.param({"key": "karpenter.sh/unregistered", "effect": "NoExecute"}, False, id="just coming"),
        pytest.param({"key": "node.kubernetes.io/x", "effect": "PreferNoSchedule"}, True, id="only prefers"),
        pytest.param({"key": "team", "effect": "NoSchedule"}, True, id="a user's taint is for its pods"),
    ],
)
def test_a_passing_taint_means_not_now(taint: dict[str, str], ready: bool) -> None:
    seen = node_of(
        {
            "metadata": {"name": "a"},
            "spec": {"taints": [taint]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        }
    )
    assert seen.ready == ready
    assert [t.key for t in seen.taints] == (["team"] if taint["key"] == "team" else [])
