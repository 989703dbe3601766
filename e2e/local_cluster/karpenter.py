"""Karpenter with its KWOK provider beside a control plane: a real node autoscaler without a cloud.

Karpenter runs as a process of this machine. It finds unschedulable pods and creates nodes, which KWOK makes
Ready. A node pool limits how many GPUs it may create, and labels the nodes with their accelerator, as the
template of a cloud's node pool would.
"""

import json
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from local_cluster.api_client import Manifest
from local_cluster.binaries import TOOLS, binary, module_directory
from local_cluster.control_plane import ControlPlane
from local_cluster.kwok import GPU_RESOURCE
from local_cluster.processes import Daemon, free_port, wait_until

TOOL = "karpenter-kwok"
TIMEOUT_SECONDS = 60.0
DEFINITIONS = ("kwok/charts/crds", "kwok/apis/crds")
NODE_CLASSES = "/apis/karpenter.kwok.sh/v1alpha1/kwoknodeclasses"
NODE_POOLS = "/apis/karpenter.sh/v1/nodepools"
GPU_INSTANCE_TYPE = "p5.48xlarge"
GPUS_PER_NODE = 8


@contextmanager
def karpenter(plane: ControlPlane, directory: Path) -> Iterator[Daemon]:
    """Run Karpenter on this control plane, which needs a scheduler, a controller manager and KWOK."""
    _install(plane)
    types = directory / "instance-types.json"
    types.write_text(json.dumps([_instance_type()]))
    health_port = free_port()
    daemon = Daemon(
        "karpenter",
        [binary(TOOL)],
        directory=directory,
        environment={
            "KUBECONFIG": str(plane.kubeconfig),
            "DISABLE_LEADER_ELECTION": "true",
            "SYSTEM_NAMESPACE": "kube-system",
            "KUBERNETES_MIN_VERSION": "1.19.0-0",
            "CPU_REQUESTS": "1000",
            "METRICS_PORT": str(free_port()),
            "HEALTH_PROBE_PORT": str(health_port),
            "INSTANCE_TYPES_FILE_PATH": str(types),
        },
        dies_with_parent=True,
    )
    daemon.start()
    try:
        url = f"http://127.0.0.1:{health_port}/healthz"
        wait_until(lambda: _answers(url), part="karpenter", timeout_seconds=TIMEOUT_SECONDS, daemons=[daemon])
        yield daemon
    finally:
        daemon.stop()


def create_node_pool(plane: ControlPlane, name: str, *, gpus: int, labels: Mapping[str, str]) -> None:
    """A pool of nodes with eight GPUs each, up to `gpus` GPUs; empty nodes are removed after 5 s."""
    if not plane.client.exists(f"{NODE_CLASSES}/default"):
        plane.client.create(NODE_CLASSES, _node_class())
    plane.client.create(NODE_POOLS, node_pool(name, gpus=gpus, labels=labels))


def node_pool(name: str, *, gpus: int, labels: Mapping[str, str]) -> Manifest:
    """The pool's manifest."""
    reference = {"group": "karpenter.kwok.sh", "kind": "KWOKNodeClass", "name": "default"}
    on_demand = {"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["on-demand"]}
    return {
        "apiVersion": "karpenter.sh/v1",
        "kind": "NodePool",
        "metadata": {"name": name},
        "spec": {
            "template": {
                "metadata": {"labels": dict(labels)},
                "spec": {"nodeClassRef": reference, "requirements": [on_demand], "expireAfter": "Never"},
            },
            "limits": {GPU_RESOURCE: str(gpus)},
            "disruption": {
                "consolidationPolicy": "WhenEmpty",
                "consolidateAfter": "5s",
                "budgets": [{"nodes": "100%"}],
            },
        },
    }


def _install(plane: ControlPlane) -> None:
    """Create Karpenter's custom resource definitions, and wait until the API server serves them."""
    module = module_directory(TOOLS[TOOL])
    folders = [argument for folder in DEFINITIONS for argument in ("-f", str(module / folder))]
    plane.kubectl("apply", "--server-side", *folders)
    plane.kubectl("wait", "--for=condition=Established", "--timeout=60s", *folders)


def _instance_type() -> dict[str, Any]:
    def one_of(key: str, value: str) -> dict[str, Any]:
        return {"key": key, "operator": "In", "values": [value]}

    offering = {
        "Price": 98.32,
        "Available": True,
        "Requirements": [
            one_of("karpenter.sh/capacity-type", "on-demand"),
            one_of("topology.kubernetes.io/zone", "zone-a"),
        ],
    }
    return {
        "name": GPU_INSTANCE_TYPE,
        "offerings": [offering],
        "architecture": "amd64",
        "operatingSystems": ["linux"],
        "resources": {
            "cpu": "96",
            "memory": "1024Gi",
            "ephemeral-storage": "1Ti",
            "pods": "110",
            GPU_RESOURCE: str(GPUS_PER_NODE),
        },
    }


def _node_class() -> Manifest:
    return {
        "apiVersion": "karpenter.kwok.sh/v1alpha1",
        "kind": "KWOKNodeClass",
        "metadata": {"name": "default"},
        "spec": {},
    }


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
