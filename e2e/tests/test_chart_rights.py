"""Holds the chart's rights for the operator against the audit log of a real API server.

The operator runs as the chart's service account and leads the three kinds through their lives. KWOK plays the
kubelet: pods run and jobs end, though nothing is in them, so builds begin anew. Nothing it asks may be
refused, and a right that it never uses must be one of the few that are listed here with their reason.
"""

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from flotilla_operator.objects.resources import (
    AGENT_FLEETS,
    DEPLOYMENTS,
    JOBS,
    LEASES,
    MODEL_REPLICA_SETS,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    RESOURCE_CLAIM_TEMPLATES,
    STATEFUL_SETS,
    VECTOR_INDEXES,
    Resource,
)
from local_cluster.api_client import documents
from local_cluster.control_plane import ControlPlane
from local_cluster.kwok import create_nodes, gpu_node
from local_cluster.processes import free_port
from tests.support.chart import (
    CHART,
    IMAGES,
    NAMESPACE,
    RELEASE,
    ROOT,
    Manifest,
    helm,
    only,
    rendered,
    setting,
)
from tests.support.waiting import DEADLINE_SECONDS, eventually

pytestmark = [pytest.mark.apiserver, pytest.mark.xdist_group("chart rights"), pytest.mark.timeout(900)]

ACCOUNT = f"system:serviceaccount:{NAMESPACE}:{RELEASE}-operator"
GROUPS = ["system:serviceaccounts", f"system:serviceaccounts:{NAMESPACE}", "system:authenticated"]
GATEWAY_ROLE = f"{NAMESPACE}-{RELEASE}-operator-gateway"
VOLUMES = 12
WORKERS = "flotilla.dev/owner=assistant,app.kubernetes.io/component=worker"
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
metadata: {name: $node}
spec:
  driver: gpu.example
  nodeName: $node
  pool: {name: $node, generation: 1, resourceSliceCount: 1}
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
    # A dry run before a roll-back.
    Right("flotilla.dev", "modelreplicasets", "create"),
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
    Right("rbac.authorization.k8s.io", "clusterrolebindings", "get"),
    # Asked by the API server itself, when a binding is created.
    Right("rbac.authorization.k8s.io", "clusterroles", "bind"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A control plane with the chart's rights."""

    plane: ControlPlane
    team: str
    chart: list[Manifest]
    asked_before: int

    def apply(self, *arguments: str, manifests: Sequence[Manifest] = ()) -> None:
        """Manifests, or what kubectl's arguments name."""
        source = arguments or ("--filename=-",)
        text = yaml.safe_dump_all(manifests) if manifests else None
        self.plane.kubectl("apply", *source, f"--namespace={self.team}", manifest=text)

    def get(self, resource: Resource, name: str) -> Manifest:
        return self.plane.client.get(resource.path(self.team, name))

    def change(self, resource: Resource, name: str, spec: Manifest) -> None:
        self.plane.client.merge(resource.path(self.team, name), {"spec": spec})

    def names(self, resource: Resource, selector: str = "") -> set[str]:
        listed = self.plane.client.get(f"{resource.path(self.team)}?labelSelector={selector}")
        return {item["metadata"]["name"] for item in listed["items"]}

    def asked(self) -> list[dict[str, Any]]:
        """Requests with their answers; a watch counts from its start, for its end may not be logged yet."""
        events = list(self.plane.audit_events(user=ACCOUNT))[self.asked_before :]
        return [event for event in events if "objectRef" in event and is_answered(event)]


def is_answered(event: dict[str, Any]) -> bool:
    return bool(event["stage"] == "ResponseComplete" or event["verb"] == "watch")


@pytest.fixture(params=[pytest.param(False, id="all namespaces"), pytest.param(True, id="one namespace")])
def site(request: pytest.FixtureRequest, chart_plane: ControlPlane) -> Site:
    """A team's namespace, nodes and room for claims, and the chart with its rights.

    The chart's pods do nothing under KWOK, so no operator is at work yet. What another team has made before
    stays, and the release is upgraded.
    """
    client = chart_plane.client
    team = f"team-{secrets.token_hex(4)}"
    for name in (NAMESPACE, team):
        if not client.exists(f"/api/v1/namespaces/{name}"):
            client.create("/api/v1/namespaces", restricted_namespace(name))
    create_nodes(client, [gpu_node(f"gpu-{team}", labels={"node-pool": "gpu"})])
    for index in range(VOLUMES):
        client.create("/api/v1/persistentvolumes", volume(f"{team}-{index}"))
    values = {"operator.watchNamespaces": json.dumps([team] if request.param else [])}
    place = (f"--namespace={NAMESPACE}", f"--kubeconfig={chart_plane.kubeconfig}")
    helm("upgrade", "--install", RELEASE, str(CHART), *place, *setting({**IMAGES, **values}))
    client.delete(LEASES.path(NAMESPACE, "flotilla-operator"))  # or its creation would not be seen
    return Site(
        plane=chart_plane, team=team, chart=rendered(values), asked_before=asked_by_operators(chart_plane)
    )


def restricted_namespace(name: str) -> Manifest:
    metadata = {"name": name, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}


def asked_by_operators(plane: ControlPlane) -> int:
    return len(list(plane.audit_events(user=ACCOUNT)))


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
    """Rights in the operator's own roles."""
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
    """Requests as rights. A server-side apply of something new also needs the right to create it."""
    found = set()
    for event in events:
        target = event["objectRef"]
        resource = "/".join(part for part in (target["resource"], target.get("subresource")) if part)
        right = Right(target.get("apiGroup", ""), resource, event["verb"])
        found.add(right)
        if event["verb"] == "patch" and event["responseStatus"]["code"] == 201:
            found.add(right._replace(verb="create"))
    return found


def begin(site: Site) -> None:
    """Everything that the examples refer to, and the examples, until their pods run."""
    entries = {"openai": "apiKey", "redis": "url", "callers": "ann", "hf": "token", "llama-callers": "ann"}
    made = [secret(name, entry) for name, entry in entries.items()]
    site.apply(manifests=[*made, claim("models"), claim("documents")])
    site.apply(*(f"--filename={ROOT}/examples/{name}.yaml" for name in EXAMPLES))
    eventually(lambda: len(site.names(JOBS)) >= 2, what="a build of each index")
    eventually(
        lambda: site.names(DEPLOYMENTS, WORKERS),
        what="the fleet's workers",
    )
    eventually(lambda: status_of(site, "llama-70b").get("readyReplicas") == 2, what="replicas on GPUs")
    site.apply(manifests=documents(ON_DEVICES.replace("$node", f"gpu-{site.team}")))
    eventually(lambda: site.names(RESOURCE_CLAIM_TEMPLATES), what="a claim template")


def status_of(site: Site, name: str) -> Manifest:
    return site.get(MODEL_REPLICA_SETS, name).get("status") or {}


def change(site: Site) -> None:
    """Objects of the tests that take things away or hand them over."""
    site.change(MODEL_REPLICA_SETS, "llama-70b", {"replicas": 0, "drain": {"deadlineSeconds": 1}})
    site.change(AGENT_FLEETS, "assistant", {"queue": {"redis": {"deletionPolicy": "Retain"}}})
    eventually(lambda: not owners(site, PERSISTENT_VOLUME_CLAIMS, "assistant-redis"), what="a claim set free")
    workers = site.names(DEPLOYMENTS, WORKERS)
    revised = {"agent": {"prompt": "Answer otherwise."}, "update": {"deadlineSeconds": 0}}
    site.change(AGENT_FLEETS, "assistant", revised)
    eventually(lambda: not workers & site.names(DEPLOYMENTS, WORKERS), what="workers of another revision")
    redis = {"mode": "External", "urlSecretRef": {"name": "redis"}}
    site.change(AGENT_FLEETS, "assistant", {"queue": {"redis": redis}})
    eventually(lambda: "assistant-redis" not in site.names(STATEFUL_SETS), what="the managed Redis gone")
    templates = site.names(RESOURCE_CLAIM_TEMPLATES)
    site.change(MODEL_REPLICA_SETS, "on-devices", {"parallelism": {"tensor": 2}})
    eventually(
        lambda: not templates & site.names(RESOURCE_CLAIM_TEMPLATES), what="the old claim template gone"
    )
    jobs = site.names(JOBS)
    site.change(VECTOR_INDEXES, "manual", {"processing": {"chunkTokens": 128}})
    eventually(
        lambda: not jobs & {name for name in site.names(JOBS) if "manual" in name}, what="another build"
    )
    milvus = {"mode": "External", "uri": "http://127.0.0.1:9", "storage": None}
    site.change(VECTOR_INDEXES, "manual", {"milvus": milvus, "retention": {"deletionPolicy": "Delete"}})
    eventually(lambda: site.get(VECTOR_INDEXES, "manual")["metadata"].get("finalizers"), what="a finalizer")
    binding = f"{GATEWAY_ROLE}:{site.team}:assistant"
    eventually(lambda: binding in bindings(site), what="a binding of the gateways")
    site.change(AGENT_FLEETS, "assistant", {"gateway": {"auth": {"mode": "None"}}})
    eventually(lambda: binding not in bindings(site), what="the binding gone")
    engines = "flotilla.dev/owner=llama-70b,app.kubernetes.io/component=engine"
    eventually(lambda: not site.names(PODS, engines), what="no pod")


def bindings(site: Site) -> set[str]:
    listed = site.plane.client.get("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings")
    return {item["metadata"]["name"] for item in listed["items"]}


def owners(site: Site, resource: Resource, name: str) -> list[Manifest]:
    found: list[Manifest] = site.get(resource, name)["metadata"].get("ownerReferences") or []
    return found


def secret(name: str, entry: str) -> Manifest:
    kind = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}}
    return {**kind, "stringData": {entry: "redis://r.example:6379"}}


def claim(name: str) -> Manifest:
    spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    kind = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}}
    return {**kind, "spec": spec}


@pytest.mark.holds("security.md", "The operator's rights are those that were reviewed, and each is used")
@pytest.mark.holds(
    "security.md",
    "What the operator's own user may write, and where; its whole life passes with these policies",
)
def test_nothing_is_refused_and_every_right_is_used_or_listed_with_its_reason(
    site: Site, tmp_path: Path
) -> None:
    """Of three kinds from first to last. The operator has ended, so its watches stand in the log too."""
    with operator(site, tmp_path):
        begin(site)
        change(site)
    asked = site.asked()
    refused = [
        f"{event['verb']} {event['requestURI']}"
        for event in asked
        if event["responseStatus"]["code"] in (401, 403)
    ]
    assert refused == []
    may, did = granted(site.chart), used(asked)
    assert sorted(did - may) == []
    assert sorted(may - did - UNUSED_HERE) == []
    assert sorted(UNUSED_HERE - may) == []


@pytest.mark.holds(
    "decisions/0022-tokens-for-one-fleet.md", "The operator may bind the gateways' role and no other"
)
@pytest.mark.attack("The operator's account binds another role to an account")
def test_the_operator_may_bind_the_role_of_gateways_and_no_other(site: Site) -> None:
    kubeconfig = f"--kubeconfig={site.plane.kubeconfig_for(ACCOUNT, groups=GROUPS)}"
    subject = f"--serviceaccount={site.team}:tried-gateway"

    def bound(role: str) -> str:
        name = f"{role}:{site.team}:tried"
        command = ("create", "clusterrolebinding", name, f"--clusterrole={role}", subject, kubeconfig)
        return site.plane.kubectl(*command, check=False)

    assert "created" in bound(GATEWAY_ROLE)
    for role in ("cluster-admin", "admin", "system:node", "system:kube-controller-manager"):
        assert "forbidden" in bound(role).lower()
        assert f"{role}:{site.team}:tried" not in bindings(site)
    site.plane.kubectl("delete", "clusterrolebinding", f"{GATEWAY_ROLE}:{site.team}:tried")
