"""What is done with an object whose namespace is being deleted: its pods go at once, without a drain.

Kubernetes deletes a namespace's pods first. Where one is left five seconds later, it looks again only after
half of the longest grace period among those left, which with the default drain is three minutes
(deleteAllContent and worker in Kubernetes' pkg/controller/namespace). Nothing new may be made there, and all
that a drain would save goes, too; so our pods get a second.
"""

from collections.abc import Iterable
from typing import Final

from flotilla_operator.cluster.caches import Caches
from flotilla_operator.cluster.ownership import LABEL_OWNER_KIND, LABEL_OWNER_NAME
from flotilla_operator.cluster.resources import NAMESPACES, PODS, Key, Resource, key_of
from flotilla_operator.cluster.writes import Delete, Manifest

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
    """The deletes of all pods that belong to the object, its own and its Deployments', unless they go at once
    already.
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
