"""Builders for the Kubernetes objects that several kinds make; they contain no decisions.

Manifests are complete, because server-side apply removes fields that are left out, and deterministic: equal
input gives equal bytes. Services prefer dual stack. The pod templates of Deployments have the hash of the
configuration that they read, so the pods are replaced when the ConfigMap changes, and only then.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel

from flotilla_operator.objects.hashes import stable_hash
from flotilla_operator.objects.resources import Manifest
from flotilla_operator.workloads.labels import Child
from flotilla_operator.workloads.pod_security import container_security_context, pod_security_context
from flotilla_runtime import contract


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """A named TCP port; `target` defaults to the port of the same name in the pod."""

    name: str
    number: int
    target: str | int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PodParts:
    """The parts of a pod that differ between our pods."""

    containers: Sequence[Manifest]
    init_containers: Sequence[Manifest] = ()
    volumes: Sequence[Manifest] = ()
    service_account: str | None = None
    mounts_token: bool = True  # of the service account, at the place where clients of Kubernetes look for it
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    termination_grace_seconds: int = 30
    image_pull_secrets: Sequence[str] = ()


def container(
    name: str,
    image: str,
    *,
    pull_policy: str = "IfNotPresent",
    **fields: Any,
) -> Manifest:
    """A container with restricted pod security; fields that are None or empty are left out."""
    kept = {key: value for key, value in fields.items() if value not in (None, [], {}, ())}
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": pull_policy,
        "securityContext": container_security_context(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        **kept,
    }


def config_volume(config_map: str) -> tuple[Manifest, Manifest]:
    """The volume and the mount for a component's configuration at `contract.CONFIG_DIRECTORY`."""
    return (
        {"name": "config", "configMap": {"name": config_map}},
        {"name": "config", "mountPath": contract.CONFIG_DIRECTORY, "readOnly": True},
    )


def pod_spec(parts: PodParts) -> Manifest:
    """The pod's spec. A token is mounted only with a service account, because only such pods call the API."""
    mounts_token = parts.service_account is not None and parts.mounts_token
    spec: Manifest = {
        "securityContext": pod_security_context(),
        "automountServiceAccountToken": mounts_token,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": parts.termination_grace_seconds,
        "containers": list(parts.containers),
    }
    if parts.init_containers:
        spec["initContainers"] = list(parts.init_containers)
    if parts.volumes:
        spec["volumes"] = list(parts.volumes)
    if parts.service_account is not None:
        spec["serviceAccountName"] = parts.service_account
    if parts.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in parts.image_pull_secrets]
    return spec


def deployment(
    child: Child, *, replicas: int, parts: PodParts, strategy: Manifest | None = None, spread: bool = True
) -> Manifest:
    """A Deployment; with `spread` the scheduler puts its pods on different nodes if it can."""
    spec = pod_spec(parts)
    if spread:
        spec["topologySpreadConstraints"] = [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": child.selector},
            }
        ]
    template: Manifest = {"metadata": {"labels": {**parts.labels, **child.labels}}, "spec": spec}
    if parts.annotations:
        template["metadata"]["annotations"] = dict(parts.annotations)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": child.metadata(),
        "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": 2,
            "selector": {"matchLabels": child.selector},
            "strategy": strategy
            or {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": template,
        },
    }


def service(
    child: Child,
    *,
    selector: Mapping[str, str],
    ports: Sequence[Port],
    type_: str = "ClusterIP",
    annotations: Mapping[str, str] | None = None,
) -> Manifest:
    """A Service for IPv4 and IPv6 where the cluster has both."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": child.metadata(annotations=annotations),
        "spec": {
            "type": str(type_),
            "ipFamilyPolicy": "PreferDualStack",
            "selector": dict(selector),
            "ports": [
                {
                    "name": port.name,
                    "port": port.number,
                    "targetPort": port.name if port.target is None else port.target,
                    "protocol": "TCP",
                }
                for port in ports
            ],
        },
    }


def headless_service(
    child: Child, *, selector: Mapping[str, str], ports: Sequence[Port], publish_not_ready: bool = False
) -> Manifest:
    """A headless Service, which gives DNS names to pods and has no address of its own."""
    manifest = service(child, selector=selector, ports=ports)
    manifest["spec"]["clusterIP"] = "None"
    if publish_not_ready:
        manifest["spec"]["publishNotReadyAddresses"] = True
    return manifest


def config_map(child: Child, *, data: Mapping[str, str]) -> Manifest:
    """A ConfigMap."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": child.metadata(), "data": dict(data)}


def json_text(value: Any) -> str:
    """The text of a configuration file; keys are sorted, so that equal configurations give equal bytes."""
    return json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False) + "\n"


def config_file(config: BaseModel) -> dict[str, str]:
    """The data of a component's ConfigMap, without settings that have their default.

    So a release that adds a setting restarts no pods, and pods of an older image get no unknown keys.
    """
    return {"config.json": json_text(config.model_dump(mode="json", exclude_defaults=True))}


def config_hash_annotation(
    data: Mapping[str, str], secret_versions: Mapping[str, str] = MappingProxyType({})
) -> dict[str, str]:
    """The annotation that replaces a Deployment's pods when something changes that they read only at start:
    configuration files, and entries of secrets in their environment.
    """
    secrets = {"secrets": dict(secret_versions)} if secret_versions else {}
    return {contract.ANNOTATION_CONFIG_HASH: stable_hash({**data, **secrets})}


def service_account(child: Child) -> Manifest:
    """A ServiceAccount whose token is mounted only in pods that ask for it."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": child.metadata(),
        "automountServiceAccountToken": False,
    }


def role(child: Child, *, rules: Sequence[Manifest]) -> Manifest:
    """A Role in the owner's namespace."""
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": child.metadata(),
        "rules": list(rules),
    }


def role_binding(child: Child) -> Manifest:
    """A RoleBinding of the Role with the child's name to the ServiceAccount with the child's name."""
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": child.metadata(),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": child.name},
        "subjects": [{"kind": "ServiceAccount", "name": child.name, "namespace": child.owner.namespace}],
    }


def pod_disruption_budget(child: Child, *, selector: Mapping[str, str], min_available: int) -> Manifest:
    """A PodDisruptionBudget.

    `minAvailable` is a number, because Kubernetes would compute a percentage from the custom resource's
    scale, which does not count pods. Pods that are not ready can always be evicted; otherwise a broken pod
    would block the drain of its node forever.
    """
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": child.metadata(),
        "spec": {
            "minAvailable": min_available,
            "selector": {"matchLabels": dict(selector)},
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }


def network_policy(
    child: Child, *, selector: Mapping[str, str], ingress: Sequence[Manifest], may_connect: bool = True
) -> Manifest:
    """Build a NetworkPolicy for the selected pods; peers and ports as in networking.k8s.io/v1.

    Unless they `may_connect`, the pods may open no connection themselves, not even to look up a name.
    """
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": child.metadata(),
        "spec": {
            "podSelector": {"matchLabels": dict(selector)},
            "policyTypes": ["Ingress"] if may_connect else ["Ingress", "Egress"],
            "ingress": list(ingress),
            **({} if may_connect else {"egress": []}),
        },
    }


def persistent_volume_claim(
    child: Child, *, size: str, storage_class: str | None, access_mode: str = "ReadWriteOnce", owned: bool
) -> Manifest:
    """A claim; a retained one (`owned=False`) has no owner reference and is recognised by its labels.

    No claim has the label by which Argo CD may track objects, because each may be retained one day. Argo CD
    would take a claim with this label and no owner for a part of the Application of that name, and prune it.
    """
    metadata = child.metadata(owned=owned)
    del metadata["labels"][contract.LABEL_INSTANCE]
    spec: Manifest = {"accessModes": [access_mode], "resources": {"requests": {"storage": size}}}
    if storage_class is not None:
        spec["storageClassName"] = storage_class
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata,
        "spec": spec,
    }


def single_stateful_set(part: Child, template: Manifest) -> Manifest:
    """A StatefulSet with one pod.

    Pods are managed in parallel. With ordered management, a pod that never becomes ready would block the
    rollout of a corrected template.
    """
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": part.metadata(),
        "spec": {
            "replicas": 1,
            "revisionHistoryLimit": 2,
            "podManagementPolicy": "Parallel",
            "serviceName": part.name,
            "selector": {"matchLabels": part.selector},
            "template": template,
        },
    }
