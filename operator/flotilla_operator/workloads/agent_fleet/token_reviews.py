"""Objects that let a gateway of the mode Kubernetes have the API server check its callers' tokens.

It has a service account of its own and a token of it, and a ClusterRoleBinding to the one ClusterRole of the
chart that allows TokenReviews and SubjectAccessReviews, and nothing else. Both reviews belong to no
namespace, so a RoleBinding would not do.

A binding belongs to no namespace either, so a fleet cannot own it. Its name tells its fleet, by which the
operator deletes it once the fleet has gone. It is owned by the fleet's namespace, and so goes with that also
while no operator runs.
"""

from typing import Final

from flotilla_operator.api.agent_fleet import AgentFleetSpec, AuthMode
from flotilla_operator.objects.owners import Owner
from flotilla_operator.objects.resources import AGENT_FLEETS, Key, Manifest
from flotilla_operator.workloads import objects
from flotilla_operator.workloads.agent_fleet.parts import gateway
from flotilla_runtime import contract

TOKEN_SECONDS: Final = 3600  # the kubelet replaces the token before
SEPARATOR: Final = ":"  # no name of a role, a namespace or a fleet has it
PARTS: Final = 3  # of a binding's name: the role, the namespace and the fleet


def asks_for_reviews(spec: AgentFleetSpec) -> bool:
    """Whether the fleet's gateways have the API server check tokens."""
    return spec.gateway.auth.mode is AuthMode.KUBERNETES


def review_manifests(owner: Owner, spec: AgentFleetSpec) -> list[Manifest]:
    """The service account of the gateways, where they need one."""
    return [objects.service_account(gateway(owner))] if asks_for_reviews(spec) else []


def review_access(*, has_token: bool) -> tuple[list[Manifest], list[Manifest]]:
    """The volumes and mounts with the API server's authority and the gateway's own token.

    Gateways of before have no token: they ask with that of their caller.
    """
    volumes: list[Manifest] = [{"name": "cluster", "configMap": {"name": contract.CLUSTER_CA_CONFIG_MAP}}]
    mounts: list[Manifest] = [
        {"name": "cluster", "mountPath": contract.CLUSTER_CA_DIRECTORY, "readOnly": True}
    ]
    if has_token:
        token = {"path": contract.API_TOKEN_FILE, "expirationSeconds": TOKEN_SECONDS}
        volumes.append({"name": "api-token", "projected": {"sources": [{"serviceAccountToken": token}]}})
        mounts.append({"name": "api-token", "mountPath": contract.API_TOKEN_DIRECTORY, "readOnly": True})
    return volumes, mounts


def binding_name(namespace: str, name: str, role: str) -> str:
    """The name of a fleet's ClusterRoleBinding: `ROLE:NAMESPACE:NAME`."""
    return SEPARATOR.join((role, namespace, name))


def fleet_of_binding(metadata: Manifest) -> Key | None:
    """The fleet whose binding has this name and these labels; None where it is no such binding."""
    parts = metadata["name"].split(SEPARATOR)
    labels = metadata.get("labels") or {}
    if len(parts) != PARTS or labels.get(contract.LABEL_OWNER_NAME) != parts[2]:
        return None
    return Key(AGENT_FLEETS.kind, *parts[1:])


def binding_labels(namespace: str, name: str) -> dict[str, str]:
    """The labels by which a binding is ours. Argo CD takes what has the label of an instance for its own."""
    labels = gateway(Owner(kind=AGENT_FLEETS.kind, namespace=namespace, name=name, uid="")).labels
    return {label: value for label, value in labels.items() if label != contract.LABEL_INSTANCE}


def review_binding(owner: Owner, role: str, namespace_uid: str) -> Manifest:
    """The binding by which the fleet's gateways may ask for reviews."""
    namespace = {"apiVersion": "v1", "kind": "Namespace", "name": owner.namespace, "uid": namespace_uid}
    subject = {"kind": "ServiceAccount", "name": gateway(owner).name, "namespace": owner.namespace}
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {
            "name": binding_name(owner.namespace, owner.name, role),
            "labels": binding_labels(owner.namespace, owner.name),
            "ownerReferences": [namespace],
        },
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [subject],
    }
