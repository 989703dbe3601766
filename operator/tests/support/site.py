"""A namespace of a real API server and an operator with the tiny controller at work in it."""

import signal
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from local_cluster.control_plane import ControlPlane
from tests.builders.api_objects import smallest
from tests.support.processes import OperatorProcess, operator_process

Manifest = dict[str, Any]
KINDS = "/apis/flotilla.dev/v1alpha1"
USER = "the-operator"


class Site:
    """One namespace of the control plane and the operator's work in it."""

    def __init__(self, plane: ControlPlane, namespace: str, folder: Path) -> None:
        self.plane = plane
        self.namespace = namespace
        self.folder = folder
        self.kubeconfig = plane.kubeconfig_for(USER, groups=["system:masters"])

    def operator(self, **options: Any) -> Any:
        environment = {"POD_NAMESPACE": self.namespace, **options.pop("environment", {})}
        return operator_process(
            self.folder,
            self.kubeconfig,
            environment=environment,
            **{"watchNamespaces": [self.namespace], **options},
        )

    def forget_leader(self) -> None:
        """Free the lease of an operator that has ended, so that the next need not wait until it expires."""
        self.plane.client.delete(
            f"/apis/coordination.k8s.io/v1/namespaces/{self.namespace}/leases/flotilla-operator"
        )

    def path(self, plural: str, name: str = "") -> str:
        base = KINDS if plural == "modelreplicasets" else "/api/v1"
        return f"{base}/namespaces/{self.namespace}/{plural}" + (f"/{name}" if name else "")

    def create(self, name: str, *, replicas: int, data: Mapping[str, str] | None = None) -> None:
        """An object of the tiny controller's."""
        manifest = smallest("ModelReplicaSet", name=name, namespace=self.namespace)
        manifest["spec"].update(replicas=replicas, pod={"annotations": dict(data or {})})
        self.plane.client.create(self.path("modelreplicasets"), manifest)

    def change(self, name: str, *, data: Mapping[str, str | None] | None = None, **spec: Any) -> None:
        """Another spec for an object of the tiny controller's; an entry of the data that is None goes."""
        pod = {} if data is None else {"pod": {"annotations": dict(data)}}
        self.patch("modelreplicasets", name, {"spec": {**spec, **pod}})

    def patch(self, plural: str, name: str, patch: Manifest) -> None:
        self.plane.client.merge(self.path(plural, name), patch)

    def get(self, plural: str, name: str) -> Manifest:
        found: Manifest = self.plane.client.get(self.path(plural, name))
        return found

    def pods(self) -> list[Manifest]:
        listed: list[Manifest] = self.plane.client.get(self.path("pods"))["items"]
        return listed

    def settled(self, name: str, replicas: int, **data: str) -> bool:
        """Whether the object is Ready for its newest generation, with exactly its pods, all ungated."""
        manifest = self.get("modelreplicasets", name)
        status = manifest.get("status") or {}
        ready = [c for c in status.get("conditions", []) if (c["type"], c["status"]) == ("Ready", "True")]
        mine = [pod for pod in self.pods() if pod["metadata"]["ownerReferences"][0]["name"] == name]
        return (
            bool(ready)
            and ready[0]["observedGeneration"] == manifest["metadata"]["generation"]
            and status["replicas"] == len(mine) == replicas
            and not any(pod["spec"].get("schedulingGates") for pod in mine)
            and self.get("configmaps", f"{name}-config").get("data", {}) == data
        )

    def asked(self, since: int = 0) -> list[Manifest]:
        """Requests of the operator to the API server in this namespace, or about the whole cluster."""
        events = list(self.plane.audit_events(user=USER))[since:]
        return [event for event in events if event["stage"] == "ResponseComplete"]

    def asked_so_far(self) -> int:
        """How much the operators of all sites have asked."""
        return len(list(self.plane.audit_events(user=USER)))

    def quiet(self, status_interval_seconds: float) -> bool:
        """Whether the operator asks nothing out of schedule for longer than a status may be held back."""
        since = self.asked_so_far()
        time.sleep(1.2 * status_interval_seconds)
        return unscheduled(self.asked(since)) == []

    def created_pods(self) -> list[str]:
        return [
            event["objectRef"].get("name") or event["requestURI"]
            for event in self.asked()
            if event["verb"] == "create"
            and resource_asked(event) == "pods"
            and event["objectRef"]["namespace"] == self.namespace
            and event["responseStatus"]["code"] == 201
        ]


def killed(operator: OperatorProcess) -> bool:
    """Whether it was ended by SIGKILL."""
    return operator.process.poll() == -signal.SIGKILL


# How often a minute may list the same resource (sweeps, watches that begin anew) and read the same secret
# (kept for a minute). The reconciles that these tests force do it far more often, if they do it at all.
SCHEDULED_AT_MOST = 5


def unscheduled(events: list[Manifest]) -> list[str]:
    """Requests of a minute that are neither a lease renewal nor a watch nor as rare as a sweep."""
    asked = [what_is_asked(event) for event in events]
    rare = {
        question
        for question, times in Counter(asked).items()
        if times <= SCHEDULED_AT_MOST and question.startswith(("list ", "get secrets "))
    }
    return [
        f"{question} ({event['requestURI']})"
        for question, event in zip(asked, events, strict=True)
        if event["verb"] != "watch" and resource_asked(event) != "leases" and question not in rare
    ]


def what_is_asked(event: Manifest) -> str:
    """The verb, the resource and, for one object, its name."""
    target = event.get("objectRef", {})
    name = target.get("name", "")
    return f"{event['verb']} {resource_asked(event)} {target.get('namespace', '')}/{name}"


def resource_asked(event: Manifest) -> str:
    """The resource in an audit event; none for discovery."""
    return str(event.get("objectRef", {}).get("resource", ""))


def reconciles(operator: OperatorProcess) -> float:
    """How many reconciles it has done."""
    status, text = operator.get("metrics", "/metrics")
    assert status == 200, text
    return sum(
        float(line.split()[-1])
        for line in text.splitlines()
        if line.startswith("flotilla_controller_reconcile_total{")
    )
