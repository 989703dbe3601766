"""Nodes, groups and claims that show only what matters to a row."""

from collections.abc import Mapping

from flotilla_operator.placement import (
    Claim,
    Group,
    Node,
    Policy,
    Snapshot,
    Standing,
    Taint,
    Toleration,
    Topology,
)

GPU = "nvidia.com/gpu"
PRODUCT_LABEL = "nvidia.com/gpu.product"
PRODUCT_LABELS = (PRODUCT_LABEL, "amd.com/gpu.product-name", "cloud.google.com/gke-accelerator")
POLICY = Policy(product_labels=PRODUCT_LABELS, aging_seconds=600)
GIB = 2**30


def node(
    name: str,
    *,
    gpus: int = 8,
    product: str | None = "H100",
    labels: Mapping[str, str] | None = None,
    taints: tuple[Taint, ...] = (),
    cordoned: bool = False,
    ready: bool = True,
    cores: int = 64,
    resource: str = GPU,
) -> Node:
    return Node(
        name=name,
        allocatable={resource: gpus, "cpu": cores * 1000, "memory": 512 * GIB, "pods": 110},
        labels={**({PRODUCT_LABEL: product} if product else {}), **(labels or {})},
        taints=taints,
        cordoned=cordoned,
        ready=ready,
    )


def group(
    name: str,
    *,
    gpus: int = 1,
    owner: str = "default/llama",
    since: float = 0,
    priority: int = 0,
    products: frozenset[str] = frozenset(),
    selector: Mapping[str, str] | None = None,
    tolerations: tuple[Toleration, ...] = (),
    left_out: frozenset[str] = frozenset(),
    cores: int = 1,
    resource: str = GPU,
    stages: int = 1,
    pack_within: str | None = None,
    spread_across: str | None = None,
    required: bool = False,
) -> Group:
    return Group(
        owner=owner,
        name=name,
        accelerator=resource,
        requests={resource: gpus, "cpu": cores * 1000, "pods": 1},
        waiting_since_seconds=since,
        priority=priority,
        node_selector=selector or {},
        tolerations=tolerations,
        products=products,
        left_out=left_out,
        stages=stages,
        pack_within=pack_within,
        spread_across=spread_across,
        required=required,
    )


def used(name: str, gpus: int) -> Claim:
    return Claim(node=name, requests={GPU: gpus, "pods": 1})


def cluster(*nodes: Node, claims: tuple[Claim, ...] = (), standing: tuple[Standing, ...] = ()) -> Snapshot:
    return Snapshot(topology=Topology.of(nodes), claims=claims, standing=standing)
