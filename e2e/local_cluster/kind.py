"""The local cluster in Docker, made by kind.

It has never been run: it was written on machines without a Docker engine. It is meant to have the same
kubeconfig path, default storage class, KWOK nodes and path of the engine's folder as the embedded cluster.
"""

import json
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from local_cluster.api_client import Manifest
from local_cluster.binaries import binary
from local_cluster.commands import run, succeeds
from local_cluster.container_runtime import ENGINE_MOUNT, with_engine_mount
from local_cluster.directories import Directories
from local_cluster.errors import LocalClusterError
from local_cluster.kwok import GPU_TAINT, Parallelism, configuration, gpu_nodes
from local_cluster.processes import Daemon
from local_cluster.progress import Progress

NAME = "flotilla"
BASE_SPECIFICATION = "/etc/containerd/cri-base.json"


@dataclass(slots=True, kw_only=True)
class KindCluster:
    """A kind cluster named flotilla, with KWOK's controller beside it on the host."""

    places: Directories
    progress: Progress = field(default_factory=Progress)

    @property
    def present(self) -> bool:
        """Whether kind lists the cluster."""
        return NAME in run(["kind", "get", "clusters"], part="kind").split()

    def up(self, *, gpu_node_count: int, dual_stack: bool = False) -> None:
        """Create the cluster unless it exists, and start KWOK."""
        self.places.cluster.mkdir(parents=True, exist_ok=True)
        self.places.engine.mkdir(parents=True, exist_ok=True)
        kubeconfig = f"--kubeconfig={self.places.kubeconfig}"
        if not self.present:
            with self.progress.step("kind create cluster"):
                run(
                    ["kind", "create", "cluster", f"--name={NAME}", "--config=-", "--wait=180s", kubeconfig],
                    part="kind",
                    stdin=yaml.safe_dump(cluster_configuration(self.places.engine, dual_stack=dual_stack)),
                )
            with self.progress.step("mount the engine's folder in every container"):
                _mount_engine()
        with self.progress.step(f"{gpu_node_count} GPU nodes (KWOK)"):
            self._kwok().start()
            manifest = yaml.safe_dump_all(list(gpu_nodes(gpu_node_count, taints=[GPU_TAINT])))
            run([binary("kubectl"), kubeconfig, "apply", "-f", "-"], part="kubectl", stdin=manifest)

    def down(self) -> None:
        """Delete the cluster and stop KWOK."""
        with self.progress.step("kind delete cluster"):
            self._kwok().stop()
            run(["kind", "delete", "cluster", f"--name={NAME}"], part="kind")
            self.places.kubeconfig.unlink(missing_ok=True)

    def status(self) -> list[str]:
        """The nodes, and the path of the kubeconfig."""
        if not self.present:
            return ["There is no local cluster; start one with `make cluster-up`."]
        nodes = run(
            [binary("kubectl"), f"--kubeconfig={self.places.kubeconfig}", "get", "nodes"], part="kubectl"
        )
        return ["kind cluster " + NAME, *nodes.splitlines(), f"KUBECONFIG={self.places.kubeconfig}"]

    def healthy(self) -> bool:
        """Whether the API server answers."""
        with suppress(LocalClusterError):
            kubeconfig = f"--kubeconfig={self.places.kubeconfig}"
            return self.present and succeeds([binary("kubectl"), kubeconfig, "get", "--raw=/readyz"])
        return False

    def _kwok(self) -> Daemon:
        path = self.places.cluster / "kwok.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(configuration(Parallelism(), node_address="127.0.0.1"))
        argv = [str(binary("kwok")), f"--kubeconfig={self.places.kubeconfig}", f"--config={path}"]
        return Daemon("kwok", argv, directory=self.places.cluster, dies_with_parent=False)


def _mount_engine() -> None:
    """Mount the engine's folder in the base specification of the node's containers."""
    inside = ["docker", "exec", "--interactive", f"{NAME}-control-plane"]
    specification = json.loads(run([*inside, "cat", BASE_SPECIFICATION], part="kind"))
    changed = json.dumps(with_engine_mount(specification, Path(ENGINE_MOUNT)))
    run([*inside, "tee", BASE_SPECIFICATION], part="kind", stdin=changed)
    run([*inside, "systemctl", "restart", "containerd"], part="kind")


def cluster_configuration(engine: Path, *, dual_stack: bool) -> Manifest:
    """kind's config: pods that ask for GPUs tolerate GPU nodes, and the node mounts the engine's folder.

    As in the embedded cluster, a ModelReplicaSet needs the toleration in its spec all the same.
    """
    admission = "NodeRestriction,ExtendedResourceToleration"
    patch = {
        "kind": "ClusterConfiguration",
        "apiServer": {"extraArgs": {"enable-admission-plugins": admission}},
    }
    return {
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "name": NAME,
        "networking": {"ipFamily": "dual" if dual_stack else "ipv4"},
        "nodes": [
            {
                "role": "control-plane",
                "extraMounts": [{"hostPath": str(engine), "containerPath": ENGINE_MOUNT, "readOnly": True}],
                "kubeadmConfigPatches": [yaml.safe_dump(patch)],
            }
        ],
    }
