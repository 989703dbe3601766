"""The set under test: four nodes with one accelerator each, a model of up to four replicas, two routers."""

import json
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from cluster_site import Manifest, control_plane, ready_operator, wait_for
from flotilla_runtime import contract
from flotilla_runtime.contract import RouterStatus
from local_cluster.binaries import binary
from local_cluster.control_plane import ControlPlane, Options
from local_cluster.kwok import GPU_RESOURCE, gpu_nodes
from streams.kubelet import Kubelets, kubelets
from tests.support.processes import OperatorProcess

NAMESPACE = "streams"
NAME = "chat"
MODEL = "double"
SET = f"/apis/flotilla.dev/v1alpha1/namespaces/{NAMESPACE}/modelreplicasets"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
STAGES = Path(__file__).with_name("pod-stages.yaml")
NODES_THAT_CARRY = 4
ROUTERS = 2


@dataclass(slots=True)
class Site:
    """The cluster, and the set in it."""

    plane: ControlPlane
    kubelets: Kubelets
    start_operator: Callable[[], AbstractContextManager[OperatorProcess]]
    operator: ExitStack = field(default_factory=ExitStack)

    def restart_operator(self) -> None:
        """Stop the operator, if one runs, and start another."""
        self.operator.close()
        self.operator.enter_context(self.start_operator())

    def create(self, *, replicas: int, drain_seconds: int, **spec: Any) -> None:
        """Create the set, with these fields of its spec changed, and wait until its pods are ready."""
        self.plane.client.create(SET, _manifest(replicas, drain_seconds, **spec))
        self.wait_for_engines(replicas)
        self.wait_for_routers()

    def change(self, **spec: Any) -> None:
        """Change the set's spec."""
        self.plane.client.merge(f"{SET}/{NAME}", {"spec": spec})

    def remove(self) -> None:
        """Delete the set, if it is there, and wait until its pods have gone."""
        self.plane.client.delete(f"{SET}/{NAME}")
        wait_for(lambda: not self.plane.client.get(PODS)["items"], "no pods")

    def status(self) -> Manifest:
        """The set's status; empty until the operator has written it."""
        found: Manifest = self.plane.client.get(f"{SET}/{NAME}").get("status") or {}
        return found

    def engines(self) -> list[Manifest]:
        """All engine pods."""
        return self._pods("engine")

    def ready(self, component: str) -> list[Manifest]:
        """The pods that are ready, not being deleted and not draining."""
        return [pod for pod in self._pods(component) if _serves(pod)]

    def draining(self) -> list[Manifest]:
        """The engine pods that are draining and not yet being deleted."""
        return [pod for pod in self.engines() if _drains(pod) and "deletionTimestamp" not in pod["metadata"]]

    def wait_for_engines(self, count: int, such: Callable[[Manifest], bool] = lambda _pod: True) -> None:
        """Wait until there are exactly this many engine pods, all ready and as `such` demands."""
        wait_for(
            lambda: len(self.engines()) == count and sum(map(such, self.ready("engine"))) == count,
            f"{count} engines",
            every_seconds=1,
        )

    def wait_for_routers(self, *, without: AbstractSet[str] = frozenset()) -> None:
        """Wait until there are exactly two router pods, both ready, and none with a uid in `without`."""

        def stand() -> bool:
            ready = {pod["metadata"]["uid"] for pod in self.ready("router")}
            return len(self._pods("router")) == len(ready) == ROUTERS and not ready & without

        wait_for(stand, "the routers", every_seconds=1)

    def statuses(self) -> list[RouterStatus]:
        """The status of each ready router."""
        return [_status(pod["status"]["podIP"]) for pod in self.ready("router")]

    def in_flight(self, pod: Manifest) -> int:
        """The open streams of one engine pod."""
        servers = [server for status in self.statuses() for server in status.servers]
        return sum(server.in_flight for server in servers if server.name == group_of(pod))

    def kill(self, pod: Manifest) -> None:
        """Kill the engine, and delete its pod without a grace period."""
        name = pod["metadata"]["name"]
        self.kubelets.life_of(name).kill()
        self.kubectl("delete", "pod", name, f"--namespace={NAMESPACE}", "--force", "--grace-period=0")

    def kubectl(self, *arguments: str) -> None:
        """Run kubectl; a failure raises an error with its output."""
        command = [str(binary("kubectl")), f"--kubeconfig={self.plane.kubeconfig}", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"kubectl {' '.join(arguments)}: {done.stderr}")

    def _pods(self, component: str) -> list[Manifest]:
        selector = f"?labelSelector={contract.LABEL_COMPONENT}={component}"
        items: list[Manifest] = self.plane.client.get(PODS + selector)["items"]
        return items


@contextmanager
def site(folder: Path, **config: Any) -> Iterator[Site]:
    """The control plane, kubelets and an operator with this configuration."""
    options = Options(controller_manager=True, scheduler=True, kwok=True, kwok_stages=STAGES.read_text())
    nodes = list(gpu_nodes(NODES_THAT_CARRY, gpus=1))
    with (
        control_plane(folder, options, nodes=nodes, namespace=NAMESPACE) as plane,
        kubelets(plane, NAMESPACE, folder / "pods") as players,
    ):
        place = Site(plane, players, partial(ready_operator, folder, plane.kubeconfig, NAMESPACE, **config))
        with place.operator:
            place.restart_operator()
            yield place


def group_of(pod: Manifest) -> str:
    """The group of an engine pod, which is also its server's name in the routers."""
    group: str = pod["metadata"]["labels"][contract.LABEL_GROUP]
    return group


def revision_of(pod: Manifest) -> str:
    """The revision of an engine pod."""
    revision: str = pod["metadata"]["labels"][contract.LABEL_REVISION]
    return revision


def node_of(pod: Manifest) -> str:
    """The node of a pod that is bound."""
    node: str = pod["spec"]["nodeName"]
    return node


def _manifest(replicas: int, drain_seconds: int, **spec: Any) -> Manifest:
    return {
        "apiVersion": "flotilla.dev/v1alpha1",
        "kind": "ModelReplicaSet",
        "metadata": {"name": NAME, "namespace": NAMESPACE},
        "spec": {
            "model": {"name": MODEL, "source": "hf://example/model"},
            "accelerator": {"resource": GPU_RESOURCE},
            "engine": {"maxNumSeqs": 256, "maxModelLen": 8192},
            "replicas": replicas,
            "router": {"replicas": ROUTERS},
            "drain": {"deadlineSeconds": drain_seconds},
            **spec,
        },
    }


def _drains(pod: Manifest) -> bool:
    return contract.ANNOTATION_DRAIN_EPOCH in (pod["metadata"].get("annotations") or {})


def _serves(pod: Manifest) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    return ready and "deletionTimestamp" not in pod["metadata"] and not _drains(pod)


def _status(address: str) -> RouterStatus:
    url = f"http://{address}:{contract.PORT_ROUTER_AGENT}/v1/status"
    with urllib.request.urlopen(url, timeout=10) as answer:
        return RouterStatus.model_validate(json.load(answer))
