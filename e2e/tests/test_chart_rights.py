"""What the operator may do and what it does: the chart's rights against the audit log of a real API server.

The operator runs as the chart's service account and leads the three kinds through their lives. KWOK plays the
kubelet: pods run and jobs end, though nothing is in them, so builds begin anew. Nothing it asks may be
refused, and a right that it never uses must be one of the few that are listed here with their reason.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from local_cluster.control_plane import ControlPlane, Options
from local_cluster.kwok import create_nodes, gpu_node
from local_cluster.processes import free_port
from tests.support.chart import CHART, NAMESPACE, RELEASE, ROOT, Manifest, helm, only, rendered, setting
from tests.support.waiting import DEADLINE_SECONDS, eventually

pytestmark = [pytest.mark.apiserver, pytest.mark.timeout(900)]

TEAM = "team"
ACCOUNT = f"system:serviceaccount:{NAMESPACE}:{RELEASE}-operator"
GROUPS = ["system:serviceaccounts", f"system:serviceaccounts:{NAMESPACE}", "system:authenticated"]
VOLUMES = 12
EXAMPLES = ("agentfleet", "agentfleet-external", "vectorindex-configmap", "modelreplicaset-gpu")

ON_DEVICES = """
apiVersion: resource.k8s.io/v1
kind: DeviceClass
metadata: {name: gpu}
spec:
  selectors: [{cel: {expression: "device.driver == 'gpu.example'"}}]
---
apiVersion: resource.k8s.io/v1
kind: ResourceSlice
metadata: {name: gpu-0}
spec:
  driver: gpu.example
  nodeName: gpu-0
  pool: {name: gpu-0, generation: 1, resourceSliceCount: 1}
  devices: [{name: a}, {name: b}, {name: c}, {name: d}]
---
apiVersion: flotilla.dev/v1alpha1
kind: ModelReplicaSet
metadata: {name: on-devices}
spec:
  model: {name: llama, source: "hf://meta/llama"}
  accelerator: {deviceClass: {name: gpu}}
  drain: {deadlineSeconds: 1}
"""


class Right(NamedTuple):
    """One thing that can be asked of an API server."""

    group: str
    resource: str
    verb: str


UNUSED_HERE = {
    # Asked by the admission plugin OwnerReferencesPermissionEnforcement, which OpenShift turns on.
    Right("flotilla.dev", "modelreplicasets/finalizers", "update"),
    Right("flotilla.dev", "vectorindexes/finalizers", "update"),
    Right("flotilla.dev", "agentfleets/finalizers", "update"),
    Right("", "persistentvolumeclaims", "delete"),
    # What is created by POST is read when another one of its name was in the way.
    Right("", "pods", "get"),
    Right("batch", "jobs", "get"),
    Right("apps", "controllerrevisions", "get"),
    # A revision's record goes when a later one has proved good.
    Right("apps", "controllerrevisions", "delete"),
    Right("resource.k8s.io", "resourceclaimtemplates", "get"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A control plane with the chart's rights."""

    plane: ControlPlane
    chart: list[Manifest]

    def kubectl(self, *arguments: str, manifest: str | None = None) -> str:
        return self.plane.kubectl(*arguments, f"--namespace={TEAM}", manifest=manifest)

    def shown(self, name: str, path: str) -> str:
        return self.kubectl("get", name, f"--output=jsonpath={{{path}}}")

    def patch(self, kind: str, name: str, patch: dict[str, Any]) -> None:
        self.kubectl("patch", kind, name, "--type=merge", f"--patch={json.dumps({'spec': patch})}")

    def names(self, kind: str) -> set[str]:
        return {line.partition("/")[2] for line in self.kubectl("get", kind, "--output=name").split()}

    def asked(self) -> list[dict[str, Any]]:
        """Requests with their answers; a watch counts from its start, for its end may not be logged yet."""
        events = self.plane.audit_events(user=ACCOUNT)
        return [event for event in events if "objectRef" in event and is_answered(event)]


def is_answered(event: dict[str, Any]) -> bool:
    return bool(event["stage"] == "ResponseComplete" or event["verb"] == "watch")


def until(condition: Callable[[], Any], what: str) -> None:
    condition.__doc__ = what
    eventually(condition)


@pytest.fixture(scope="module", params=["[]", f'["{TEAM}"]'], ids=["all namespaces", "one namespace"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Nodes, room for claims, the chart. Its pods do nothing under KWOK, so no operator is at work yet."""
    options = Options(controller_manager=True, scheduler=True, kwok=True)
    with ControlPlane(tmp_path_factory.mktemp("rights-plane"), options) as plane:
        create_nodes(plane.client, [gpu_node("gpu-0", labels={"node-pool": "gpu"})])
        for index in range(VOLUMES):
            plane.client.create("/api/v1/persistentvolumes", volume(f"volume-{index}"))
        for name in (NAMESPACE, TEAM):
            metadata = {"name": name, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}
            namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}
            plane.client.create("/api/v1/namespaces", namespace)
        values = {"operator.watchNamespaces": request.param}
        place = (f"--namespace={NAMESPACE}", f"--kubeconfig={plane.kubeconfig}")
        helm("install", RELEASE, str(CHART), *place, *setting(values))
        yield Site(plane=plane, chart=rendered(values))


@contextmanager
def operator(site: Site, folder: Path) -> Iterator[None]:
    """The operator's process with the chart's own configuration."""
    config = json.loads(only(site.chart, "ConfigMap")["data"]["config.json"])
    ports = {"healthPort": free_port(), "metricsPort": free_port()}
    (folder / "config.json").write_text(json.dumps({**config, **ports}))
    kubeconfig = site.plane.kubeconfig_for(ACCOUNT, groups=GROUPS)
    arguments = [f"--config={folder / 'config.json'}", f"--kubeconfig={kubeconfig}"]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT / "operator"), str(ROOT / "runtime")]),
        "POD_NAMESPACE": NAMESPACE,
        "POD_NAME": "operator-0",
    }
    with (folder / "operator.log").open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "flotilla_operator.controllers", *arguments],
            env=environment,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
        try:
            yield
        finally:
            process.terminate()
            process.wait(timeout=DEADLINE_SECONDS)


def volume(name: str) -> Manifest:
    """Room for a claim of any size that the examples ask for."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "20Gi"},
            "accessModes": ["ReadWriteOnce", "ReadWriteMany"],
            "hostPath": {"path": f"/tmp/{name}"},
        },
    }


def granted(manifests: list[Manifest]) -> set[Right]:
    """What the operator's own roles allow."""
    bound = {
        binding["roleRef"]["name"]
        for binding in manifests
        if binding["kind"] in ("RoleBinding", "ClusterRoleBinding")
        and binding["subjects"][0]["name"] == f"{RELEASE}-operator"
    }
    return {
        Right(group, resource, verb)
        for role in manifests
        if role["kind"] in ("Role", "ClusterRole") and role["metadata"]["name"] in bound
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def used(events: list[dict[str, Any]]) -> set[Right]:
    """What was asked. A server-side apply of something new also needs the right to create it."""
    found = set()
    for event in events:
        target = event["objectRef"]
        resource = "/".join(part for part in (target["resource"], target.get("subresource")) if part)
        right = Right(target.get("apiGroup", ""), resource, event["verb"])
        found.add(right)
        if event["verb"] == "patch" and event["responseStatus"]["code"] == 201:
            found.add(right._replace(verb="create"))
    return found


@pytest.fixture(scope="module")
def lived(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """The three kinds from first to last. The operator has ended, so its watches stand in the log too."""
    with operator(site, tmp_path_factory.mktemp("rights-operator")):
        begin(site)
        change(site)
    return site


def begin(site: Site) -> None:
    """Everything that the examples refer to, and the examples, until their pods run."""
    for name, entry in (("openai", "apiKey"), ("redis", "url"), ("callers", "ann"), ("hf", "token")):
        site.kubectl("create", "secret", "generic", name, f"--from-literal={entry}=redis://r.example:6379")
    site.kubectl("create", "secret", "generic", "llama-callers", "--from-literal=ann=key")
    for name in ("models", "documents"):
        site.kubectl("apply", "--filename=-", manifest=claim(name))
    for name in EXAMPLES:
        site.kubectl("apply", f"--filename={ROOT}/examples/{name}.yaml")
    until(lambda: len(site.names("jobs")) >= 2, "a build of each index")
    until(lambda: "assistant-worker" in site.names("deployments"), "the fleet's workers")
    until(lambda: site.shown("mrs/llama-70b", ".status.readyReplicas") == "2", "replicas on GPUs")
    site.kubectl("apply", "--filename=-", manifest=ON_DEVICES)
    until(lambda: site.names("resourceclaimtemplates"), "a claim template")


def change(site: Site) -> None:
    """What takes things away or hands them over."""
    site.patch("mrs", "llama-70b", {"replicas": 0, "drain": {"deadlineSeconds": 1}})
    site.patch("agentfleet", "assistant", {"queue": {"redis": {"deletionPolicy": "Retain"}}})
    until(lambda: not site.shown("pvc/assistant-redis", ".metadata.ownerReferences"), "a claim set free")
    redis = {"mode": "External", "urlSecretRef": {"name": "redis"}}
    site.patch("agentfleet", "assistant", {"queue": {"redis": redis}})
    until(lambda: "assistant-redis" not in site.names("statefulsets"), "the managed Redis gone")
    templates = site.names("resourceclaimtemplates")
    site.patch("mrs", "on-devices", {"parallelism": {"tensor": 2}})
    until(lambda: not templates & site.names("resourceclaimtemplates"), "the old claim template gone")
    jobs = site.names("jobs")
    site.patch("vectorindex", "manual", {"processing": {"chunkTokens": 128}})
    until(lambda: not jobs & {name for name in site.names("jobs") if "manual" in name}, "another build")
    milvus = {"mode": "External", "uri": "http://127.0.0.1:9", "storage": None}
    site.patch("vectorindex", "manual", {"milvus": milvus, "retention": {"deletionPolicy": "Delete"}})
    until(lambda: site.shown("vi/manual", ".metadata.finalizers"), "a finalizer")
    pods = "llama-70b,app.kubernetes.io/component=engine"
    until(lambda: not site.kubectl("get", "pods", "-l", f"flotilla.dev/owner={pods}", "-o", "name"), "no pod")


def claim(name: str) -> str:
    spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    kind = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}}
    return yaml.safe_dump({**kind, "spec": spec})


def test_nothing_that_the_operator_asks_is_refused(lived: Site) -> None:
    refused = [
        f"{event['verb']} {event['requestURI']}"
        for event in lived.asked()
        if event["responseStatus"]["code"] in (401, 403)
    ]
    assert refused == []


def test_every_right_is_used_or_listed_with_its_reason(lived: Site) -> None:
    may, did = granted(lived.chart), used(lived.asked())
    assert sorted(did - may) == []
    assert sorted(may - did - UNUSED_HERE) == []
    assert sorted(UNUSED_HERE - may) == []
