"""The cluster of the benchmark: KWOK nodes of eight accelerators, a namespace, and the sets.

All runs use one cluster. Between runs everything in the namespace is deleted, and the benchmark waits until
it is gone.
"""

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cluster_site import Manifest, control_plane, wait_for
from local_cluster.control_plane import ControlPlane, Options
from local_cluster.kwok import GPU_RESOURCE, Parallelism, gpu_nodes

NAMESPACE = "scale"
OPERATOR_USER = "the-operator"
SETS = f"/apis/flotilla.dev/v1alpha1/namespaces/{NAMESPACE}/modelreplicasets"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
SECRETS = f"/api/v1/namespaces/{NAMESPACE}/secrets"
EVENTS = f"/apis/events.k8s.io/v1/namespaces/{NAMESPACE}/events"
DEPLOYMENTS = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments"
ENGINES = "?labelSelector=app.kubernetes.io/component=engine"
PLAYED_AT_ONCE = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """`sets` sets of `groups` groups in all, each of `stages` pods with one accelerator."""

    sets: int
    groups: int
    stages: int

    @property
    def pods(self) -> int:
        """How many pods that is."""
        return self.groups * self.stages

    def set_names(self) -> list[str]:
        """A name for each set."""
        return [f"model-{index:02}" for index in range(self.sets)]

    def manifests(self) -> list[Manifest]:
        """The sets, each with its share of the groups."""
        return [self._manifest(name) for name in self.set_names()]

    def _manifest(self, name: str) -> Manifest:
        return {
            "apiVersion": "flotilla.dev/v1alpha1",
            "kind": "ModelReplicaSet",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {
                "model": {"name": "model", "source": "hf://example/model"},
                "accelerator": {"resource": GPU_RESOURCE},
                "parallelism": {"tensor": 1, **({"pipeline": self.stages} if self.stages > 1 else {})},
                "replicas": self.groups // self.sets,
                "router": {"replicas": 1},
                "drain": {"deadlineSeconds": 1},
            },
        }


class Site:
    """The control plane with its nodes and namespace."""

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        self.plane = plane
        self.folder = folder
        self.kubeconfig = plane.kubeconfig_for(OPERATOR_USER, groups=["system:masters"])

    def engine_pods(self) -> list[Manifest]:
        """All engine pods."""
        items: list[Manifest] = self.plane.client.get(PODS + ENGINES)["items"]
        return items

    def bound(self) -> int:
        """How many engine pods have a node and are not being deleted."""
        return sum(
            bool(pod["spec"].get("nodeName")) and "deletionTimestamp" not in pod["metadata"]
            for pod in self.engine_pods()
        )

    def demand_bound(self, wanted: int) -> None:
        """Raise unless exactly this many pods are bound; otherwise the run measured something else."""
        bound = self.bound()
        if bound != wanted:
            raise RuntimeError(
                f"{bound} pods are bound, but the watcher saw {wanted}; this run's time is not valid"
            )

    def demand_no_release(self) -> None:
        """Raise when a group was released, because then the run placed that group twice."""
        events = self.plane.client.get(EVENTS)["items"]
        released = [event["note"] for event in events if event["reason"] == "GroupReleased"]
        if released:
            raise RuntimeError(
                f"{len(released)} groups were released; this run's time is not valid; first: {released[0]}"
            )

    def clear(self) -> None:
        """Delete every set and pod, and wait until all their objects are gone. Otherwise a new set of the
        same name would use the old set's secret, lose it to the garbage collector, and roll out its pods
        again.
        """
        client = self.plane.client
        client.request("DELETE", SETS)
        client.request("DELETE", f"{PODS}?gracePeriodSeconds=0")
        left = (SETS, PODS, SECRETS, DEPLOYMENTS)
        wait_for(lambda: not any(client.get(path)["items"] for path in left), "an empty namespace")

    @contextmanager
    def watching(self, count: int) -> Iterator["Watch"]:
        """A watcher that waits until this many pods are bound."""
        command = [sys.executable, "-m", "scale.watcher", f"--kubeconfig={self.plane.kubeconfig}"]
        command += [f"--namespace={NAMESPACE}", f"--count={count}"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline().strip() == "watching", "the watcher did not start"
                yield Watch(process)
            finally:
                process.kill()

    def requests_of_operator(self, since: datetime, until: datetime) -> int:
        """How many requests the operator sent between these times."""
        oldest = next(self.plane.audit_events(), None)
        return requests_between(since, until, oldest, self.plane.audit_events(user=OPERATOR_USER))


class Watch:
    """A running watcher."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def bound_at(self) -> float:
        """The monotonic time, in seconds, at which the last pod was bound."""
        output, _ = self._process.communicate(timeout=600)
        at: float = json.loads(output.splitlines()[-1])["bound_at"]
        return at


def requests_between(
    since: datetime, until: datetime, oldest: Manifest | None, events: Iterable[Manifest]
) -> int:
    """The number of requests in an audit log that arrived between these times; a watch has several events.

    `oldest` is the first event that the log still has. When it is later than `since` the number is unknown,
    because the API server has deleted older events, and this raises.
    """
    if oldest is None or _arrived(oldest) > since:
        raise RuntimeError(f"the audit log does not reach back to {since}: the run's requests are unknown")
    return len({event["auditID"] for event in events if since <= _arrived(event) <= until})


def _arrived(event: Manifest) -> datetime:
    return datetime.fromisoformat(event["requestReceivedTimestamp"])


@contextmanager
def site(folder: Path, *, nodes: int) -> Iterator[Site]:
    """A control plane with scheduler, controller manager and so many KWOK nodes, all of them ready."""
    options = Options(
        controller_manager=True,
        scheduler=True,
        kwok=True,
        kwok_parallelism=Parallelism(pods=PLAYED_AT_ONCE),
    )
    with control_plane(folder, options, nodes=list(gpu_nodes(nodes)), namespace=NAMESPACE) as plane:
        yield Site(plane, folder)


def as_created(pods: Sequence[Manifest]) -> list[Manifest]:
    """Manifests that create the same pods again: without the server's fields, owners, gates and nodes."""
    return [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                key: value
                for key, value in pod["metadata"].items()
                if key in ("name", "namespace", "labels", "annotations")
            },
            "spec": {
                key: value
                for key, value in pod["spec"].items()
                if key not in ("nodeName", "schedulingGates", "serviceAccount", "priority")
            },
        }
        for pod in pods
    ]
