"""GPU nodes that exist in the API only: KWOK keeps them Ready and sets the status of their pods.

KWOK handles only nodes with its annotation, so it leaves a real node of the same cluster alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from local_cluster.api_client import ApiClient, Manifest

FAKE_ANNOTATION = ("kwok.x-k8s.io/node", "fake")
GPU_RESOURCE = "nvidia.com/gpu"
GPU_TAINT = {"key": GPU_RESOURCE, "value": "present", "effect": "NoSchedule"}
POD_ADDRESSES = "10.245.0.1/16"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parallelism:
    """How many transitions of each kind KWOK makes at once; only its config file can set it."""

    pods: int = 16
    nodes: int = 8
    leases: int = 8


def configuration(parallelism: Parallelism, *, node_address: str, stages: str = "") -> str:
    """KWOK's config file; `stages` are YAML documents that replace its stages of the kinds they name."""
    options = {
        "cidr": POD_ADDRESSES,
        "nodeIP": node_address,
        "manageAllNodes": False,
        "manageNodesWithAnnotationSelector": "=".join(FAKE_ANNOTATION),
        "podPlayStageParallelism": parallelism.pods,
        "nodePlayStageParallelism": parallelism.nodes,
        "nodeLeaseParallelism": parallelism.leases,
        "nodeLeaseDurationSeconds": 40,
    }
    document = {
        "apiVersion": "config.kwok.x-k8s.io/v1alpha1",
        "kind": "KwokConfiguration",
        "options": options,
    }
    text = yaml.safe_dump(document, sort_keys=True)
    return f"{text}---\n{stages}" if stages else text


def gpu_node(
    name: str,
    *,
    gpus: int = 8,
    zone: str = "zone-a",
    rack: str = "rack-1",
    product: str = "NVIDIA-H100-80GB-HBM3",
    memory_gib: int = 80,
    labels: Mapping[str, str] | None = None,
    taints: Sequence[Mapping[str, str]] = (),
) -> Manifest:
    """A node as a cloud's GPU node pool creates it, with the labels that placement reads."""
    resources = {
        "cpu": "96",
        "memory": "1024Gi",
        "ephemeral-storage": "1Ti",
        "pods": "110",
        **({GPU_RESOURCE: str(gpus)} if gpus else {}),
    }
    known = {
        "kubernetes.io/arch": "amd64",
        "kubernetes.io/os": "linux",
        "kubernetes.io/hostname": name,
        "node.kubernetes.io/instance-type": "p5.48xlarge",
        "topology.kubernetes.io/region": "region-1",
        "topology.kubernetes.io/zone": zone,
        "topology.kubernetes.io/rack": rack,
        f"{GPU_RESOURCE}.product": product,
        f"{GPU_RESOURCE}.memory": str(memory_gib * 1024),
        f"{GPU_RESOURCE}.count": str(gpus),
        "type": "kwok",
    }
    metadata: dict[str, Any] = {
        "name": name,
        "annotations": dict([FAKE_ANNOTATION]),
        "labels": {**known, **(labels or {})},
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": metadata,
        "spec": {"taints": [dict(taint) for taint in taints]} if taints else {},
        "status": {"allocatable": dict(resources), "capacity": dict(resources), "phase": "Running"},
    }


def gpu_nodes(count: int, **shape: Any) -> Iterator[Manifest]:
    """`count` nodes, two to a rack and two racks to a zone."""
    for index in range(count):
        yield gpu_node(
            f"gpu-{index}",
            zone=f"zone-{chr(ord('a') + index // 4 % 26)}",
            rack=f"rack-{index // 2}",
            **shape,
        )


def create_nodes(client: ApiClient, nodes: Iterator[Manifest] | Sequence[Manifest]) -> list[str]:
    """Create the nodes that are not there yet; returns all their names."""
    names = []
    for node in nodes:
        name = node["metadata"]["name"]
        if not client.exists(f"/api/v1/nodes/{name}"):
            client.create("/api/v1/nodes", node)
        names.append(name)
    return names
