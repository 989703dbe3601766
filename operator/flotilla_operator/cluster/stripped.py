"""Strip objects before they are cached: our own kinds and their children stay whole, others keep little.

Everybody who may create pods or ConfigMaps in the cluster would otherwise decide how much memory the operator
needs. Of a stranger's object the name, the UID and the owners are kept, since its name may be one that we
need; of a pod, also what it holds of its node; of a ClusterRoleBinding with our labels, also whom it binds.
Objects that only administrators create are kept whole.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from flotilla_operator.cluster.last_words import without_last_words
from flotilla_operator.objects import deletion_cost
from flotilla_operator.objects.resources import (
    CLUSTER_ROLE_BINDINGS,
    DEVICE_CLASSES,
    FLOTILLA_GROUP,
    NAMESPACES,
    NODES,
    OUR_KINDS,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    PRIORITY_CLASSES,
    RESOURCE_CLAIMS,
    RESOURCE_SLICES,
    RUNTIME_CLASSES,
    Manifest,
    Resource,
)
from flotilla_runtime.contract import (
    LABEL_BUILD,
    LABEL_COMPONENT,
    LABEL_GENERATION,
    LABEL_GROUP,
    LABEL_INDEX_KEYS,
    LABEL_INSTANCE,
    LABEL_MANAGED_BY,
    LABEL_NAME,
    LABEL_OWNER_KIND,
    LABEL_OWNER_NAME,
    LABEL_REVISION,
    LABEL_STAGE,
    LABEL_STEP,
)

PREFIX: Final = f"{FLOTILLA_GROUP}/"
WHOLE: Final = frozenset(
    {
        NAMESPACES,
        PERSISTENT_VOLUME_CLAIMS,
        PRIORITY_CLASSES,
        RUNTIME_CLASSES,
        RESOURCE_SLICES,
        DEVICE_CLASSES,
    }
)
METADATA: Final = (
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "ownerReferences",
)
LABELS: Final = (
    LABEL_MANAGED_BY,
    LABEL_NAME,
    LABEL_INSTANCE,
    LABEL_COMPONENT,
    LABEL_OWNER_KIND,
    LABEL_OWNER_NAME,
    LABEL_GROUP,
    LABEL_STAGE,
    LABEL_REVISION,
    LABEL_GENERATION,
    LABEL_STEP,
    LABEL_BUILD,
    LABEL_INDEX_KEYS,
)
CONTAINER: Final = ("name", "resources", "restartPolicy")
POD_SPEC: Final = ("nodeName", "overhead", "resources", "resourceClaims")
POD_STATUS: Final = ("phase", "podIP", "resourceClaimStatuses")
REQUIRED: Final = "requiredDuringSchedulingIgnoredDuringExecution"


def stripped(resource: Resource, manifest: Manifest, *, quiet: bool = False) -> Manifest:
    """The object as the caches keep it. The given one is not used any more; its parts may be.

    `quiet` leaves out what containers of our pods said as they ended.
    """
    manifest["metadata"].pop("managedFields", None)
    if quiet and resource == PODS:
        manifest = without_last_words(manifest)
    if resource in OUR_KINDS:
        return {**manifest, "metadata": _with_our_annotations(manifest["metadata"])}
    if resource in WHOLE or _is_a_child(manifest):
        return manifest
    if resource == NODES:
        status = {**(manifest.get("status") or {})}
        status.pop("images", None)
        return {**manifest, "status": status}
    kept = PARTS.get(resource, _nothing)
    identity = _only(manifest, ("apiVersion", "kind"))
    return {**identity, "metadata": _stranger(manifest["metadata"]), **kept(manifest)}


def _is_a_child(manifest: Manifest) -> bool:
    """Whether one of our kinds controls it."""
    references = manifest["metadata"].get("ownerReferences") or ()
    return any(
        one.get("controller") and str(one.get("apiVersion")).startswith(f"{FLOTILLA_GROUP}/")
        for one in references
    )


def _stranger(metadata: Manifest) -> Manifest:
    kept = _only(metadata, METADATA)
    if labels := _only(metadata.get("labels") or {}, LABELS):
        kept["labels"] = labels
    cost = (metadata.get("annotations") or {}).get(deletion_cost.ANNOTATION)
    if LABEL_OWNER_NAME in labels and cost is not None:
        kept["annotations"] = {deletion_cost.ANNOTATION: cost[: deletion_cost.LENGTH]}
    return kept


def _with_our_annotations(metadata: Manifest) -> Manifest:
    """The metadata, without the annotations of other tools."""
    annotations = metadata.get("annotations") or {}
    ours = {name: value for name, value in annotations.items() if name.startswith(PREFIX)}
    return {**metadata, "annotations": ours}


def _nothing(_: Manifest) -> Manifest:
    return {}


def _pod(pod: Manifest) -> Manifest:
    """Keep the fields of a pod that placement reads, and for pods with our labels the whole status."""
    spec, status = pod.get("spec") or {}, pod.get("status") or {}
    kept = _only(spec, POD_SPEC)
    for part in ("containers", "initContainers"):
        if part in spec:
            kept[part] = [_only(container, CONTAINER) for container in spec[part]]
    if (pinning := _pinning(spec)) is not None:
        kept["affinity"] = {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": pinning}}}
    is_ours = LABEL_OWNER_NAME in (pod["metadata"].get("labels") or {})
    return {"spec": kept, "status": status if is_ours else _only(status, POD_STATUS)}


def _pinning(spec: Manifest) -> list[Manifest] | None:
    """The terms of the required node affinity, without their expressions; None if they name no node."""
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    terms = (affinity.get(REQUIRED) or {}).get("nodeSelectorTerms") or ()
    named = [_only(term, ("matchFields",)) for term in terms]
    return named if any(named) else None


def _claim(claim: Manifest) -> Manifest:
    return _only(claim, ("status",))


def _binding(binding: Manifest) -> Manifest:
    """Whom a binding with our labels gives which role, since nothing else shows that somebody changed it."""
    is_ours = LABEL_OWNER_NAME in (binding["metadata"].get("labels") or {})
    return _only(binding, ("roleRef", "subjects")) if is_ours else {}


def _only(fields: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: fields[name] for name in names if name in fields}


PARTS: Final[Mapping[Resource, Callable[[Manifest], Manifest]]] = {
    PODS: _pod,
    RESOURCE_CLAIMS: _claim,
    CLUSTER_ROLE_BINDINGS: _binding,
}
