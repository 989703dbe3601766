"""Deletes the pods of an object whose namespace is being deleted: at once, without a drain.

Kubernetes deletes a namespace's pods first. If one is left five seconds later, it checks again only after
half of the longest remaining grace period, which is three minutes with the default drain (deleteAllContent
and worker in Kubernetes' pkg/controller/namespace). A drain would save nothing: no new object can be made in
the namespace, and everything in it goes. So the operator deletes its pods with a grace period of one second.
"""

from collections.abc import Iterable
from typing import Final

from flotilla_operator.cluster.caches import Caches
from flotilla_operator.cluster.writes import Delete
from flotilla_operator.objects.resources import NAMESPACES, PODS, Key, Manifest, Resource, key_of
from flotilla_runtime.contract import LABEL_OWNER_KIND, LABEL_OWNER_NAME

GRACE_SECONDS: Final = 1


def namespace_leaves(caches: Caches, namespace: str) -> bool:
    """Whether the namespace is being deleted."""
    found = caches.get(NAMESPACES, "", namespace)
    return found is not None and "deletionTimestamp" in found["metadata"]


def keys_in(caches: Caches, namespace: Manifest, kinds: Iterable[Resource]) -> Iterable[Key]:
    """The objects of these kinds in a namespace that is being deleted; none while it stays."""
    if "deletionTimestamp" not in namespace["metadata"]:
        return
    for resource in kinds:
        for manifest in caches.listed(resource, namespace["metadata"]["name"]):
            yield key_of(resource, manifest)


def without_a_drain(caches: Caches, key: Key, uid: str) -> list[Delete]:
    """Deletes for all pods of the object and of its Deployments, StatefulSets and Jobs.

    A pod that is already being deleted within a second is left out.
    """
    grandchildren = [
        pod
        for pod in caches.by_label(PODS, LABEL_OWNER_NAME, key.name)
        if pod["metadata"]["namespace"] == key.namespace
        and pod["metadata"]["labels"].get(LABEL_OWNER_KIND) == key.kind
    ]
    pods = {pod["metadata"]["uid"]: pod for pod in (*caches.owned(PODS, uid), *grandchildren)}
    return [
        Delete(ref=PODS.ref_to(pod), uid=pod_uid, grace_period_seconds=GRACE_SECONDS)
        for pod_uid, pod in pods.items()
        if pod["metadata"].get("deletionGracePeriodSeconds", GRACE_SECONDS + 1) > GRACE_SECONDS
    ]
