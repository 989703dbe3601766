"""The resources that this operator reads or writes, by the names that the API server uses.

Resources that are not in this table are neither watched nor written, so a test can check the chart's role
against it.
"""

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

Manifest = dict[str, Any]


class Key(NamedTuple):
    """Identifies one object of one of our kinds; the queue holds keys."""

    kind: str
    namespace: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectRef:
    """A reference to an object: `group` is empty for core/v1, `plural` is the name in the path (`pods`)."""

    group: str
    version: str
    plural: str
    namespace: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """A kind and where the API server serves it; `group` is empty for core/v1."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """The `apiVersion` in manifests: `v1`, `apps/v1`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(
        self, namespace: str | None = None, name: str | None = None, subresource: str | None = None
    ) -> str:
        """The URL path; without a namespace it covers all namespaces."""
        parts = ["/apis", self.group, self.version] if self.group else ["/api", self.version]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        parts += [part for part in (name, subresource) if part]
        return "/".join(parts)

    def ref(self, namespace: str, name: str) -> ObjectRef:
        """A reference to the object of this resource with that name, for a write."""
        return ObjectRef(
            group=self.group, version=self.version, plural=self.plural, namespace=namespace, name=name
        )

    def ref_to(self, manifest: Manifest) -> ObjectRef:
        """A reference to the object that a manifest describes, for a write."""
        metadata = manifest["metadata"]
        return self.ref(metadata.get("namespace", ""), metadata["name"])


class Reference(NamedTuple):
    """An object that another one refers to without owning it."""

    resource: Resource
    namespace: str
    name: str


FLOTILLA_GROUP: Final = "flotilla.dev"
FLOTILLA_VERSION: Final = "v1alpha1"


def _ours(kind: str, plural: str) -> Resource:
    return Resource(group=FLOTILLA_GROUP, version=FLOTILLA_VERSION, plural=plural, kind=kind)


def _core(kind: str, plural: str, *, namespaced: bool = True) -> Resource:
    return Resource(group="", version="v1", plural=plural, kind=kind, namespaced=namespaced)


def _in_group(group: str, kind: str, plural: str, *, namespaced: bool = True) -> Resource:
    return Resource(group=group, version="v1", plural=plural, kind=kind, namespaced=namespaced)


MODEL_REPLICA_SETS: Final = _ours("ModelReplicaSet", "modelreplicasets")
VECTOR_INDEXES: Final = _ours("VectorIndex", "vectorindexes")
AGENT_FLEETS: Final = _ours("AgentFleet", "agentfleets")

PODS: Final = _core("Pod", "pods")
SERVICES: Final = _core("Service", "services")
CONFIG_MAPS: Final = _core("ConfigMap", "configmaps")
SECRETS: Final = _core("Secret", "secrets")
PERSISTENT_VOLUME_CLAIMS: Final = _core("PersistentVolumeClaim", "persistentvolumeclaims")
SERVICE_ACCOUNTS: Final = _core("ServiceAccount", "serviceaccounts")
NODES: Final = _core("Node", "nodes", namespaced=False)
NAMESPACES: Final = _core("Namespace", "namespaces", namespaced=False)
DEPLOYMENTS: Final = _in_group("apps", "Deployment", "deployments")
STATEFUL_SETS: Final = _in_group("apps", "StatefulSet", "statefulsets")
CONTROLLER_REVISIONS: Final = _in_group("apps", "ControllerRevision", "controllerrevisions")
JOBS: Final = _in_group("batch", "Job", "jobs")
POD_DISRUPTION_BUDGETS: Final = _in_group("policy", "PodDisruptionBudget", "poddisruptionbudgets")
NETWORK_POLICIES: Final = _in_group("networking.k8s.io", "NetworkPolicy", "networkpolicies")
ROLES: Final = _in_group("rbac.authorization.k8s.io", "Role", "roles")
ROLE_BINDINGS: Final = _in_group("rbac.authorization.k8s.io", "RoleBinding", "rolebindings")
PRIORITY_CLASSES: Final = _in_group("scheduling.k8s.io", "PriorityClass", "priorityclasses", namespaced=False)
RUNTIME_CLASSES: Final = _in_group("node.k8s.io", "RuntimeClass", "runtimeclasses", namespaced=False)
DEVICES_GROUP: Final = "resource.k8s.io"
RESOURCE_SLICES: Final = _in_group(DEVICES_GROUP, "ResourceSlice", "resourceslices", namespaced=False)
DEVICE_CLASSES: Final = _in_group(DEVICES_GROUP, "DeviceClass", "deviceclasses", namespaced=False)
RESOURCE_CLAIMS: Final = _in_group(DEVICES_GROUP, "ResourceClaim", "resourceclaims")
RESOURCE_CLAIM_TEMPLATES: Final = _in_group(DEVICES_GROUP, "ResourceClaimTemplate", "resourceclaimtemplates")
LEASES: Final = _in_group("coordination.k8s.io", "Lease", "leases")
EVENTS: Final = _in_group("events.k8s.io", "Event", "events")

CLUSTER_ROLE_BINDINGS: Final = _in_group(
    "rbac.authorization.k8s.io", "ClusterRoleBinding", "clusterrolebindings", namespaced=False
)
# Not in the table: the operator has no right to them. Only the clean-up after an uninstall deletes its own.
CLUSTER_ROLES: Final = _in_group("rbac.authorization.k8s.io", "ClusterRole", "clusterroles", namespaced=False)

OUR_KINDS: Final = (MODEL_REPLICA_SETS, VECTOR_INDEXES, AGENT_FLEETS)

ALL: Final = (
    *OUR_KINDS,
    PODS,
    SERVICES,
    CONFIG_MAPS,
    SECRETS,
    PERSISTENT_VOLUME_CLAIMS,
    SERVICE_ACCOUNTS,
    NODES,
    NAMESPACES,
    DEPLOYMENTS,
    STATEFUL_SETS,
    CONTROLLER_REVISIONS,
    JOBS,
    POD_DISRUPTION_BUDGETS,
    NETWORK_POLICIES,
    ROLES,
    ROLE_BINDINGS,
    CLUSTER_ROLE_BINDINGS,
    PRIORITY_CLASSES,
    RUNTIME_CLASSES,
    RESOURCE_SLICES,
    DEVICE_CLASSES,
    RESOURCE_CLAIMS,
    RESOURCE_CLAIM_TEMPLATES,
    LEASES,
    EVENTS,
)

NEVER_WATCHED: Final = frozenset({SECRETS, EVENTS, LEASES})
# Kubernetes before 1.34 does not serve these; their stores are then empty.
NOT_ALWAYS_SERVED: Final = frozenset(
    {RESOURCE_SLICES, DEVICE_CLASSES, RESOURCE_CLAIMS, RESOURCE_CLAIM_TEMPLATES}
)

_BY_KIND: Final = {(resource.api_version, resource.kind): resource for resource in ALL}
_BY_PLURAL: Final = {(resource.group, resource.version, resource.plural): resource for resource in ALL}


def resource_of(manifest: Manifest) -> Resource:
    """The resource of a manifest's apiVersion and kind; an unknown one is a bug of ours."""
    return _BY_KIND[manifest["apiVersion"], manifest["kind"]]


def resource_at(ref: ObjectRef) -> Resource:
    """The resource of a reference."""
    return _BY_PLURAL[ref.group, ref.version, ref.plural]


def key_of(resource: Resource, manifest: Manifest) -> Key:
    """The queue's key for an object of one of our kinds."""
    metadata = manifest["metadata"]
    return Key(resource.kind, metadata.get("namespace", ""), metadata["name"])
