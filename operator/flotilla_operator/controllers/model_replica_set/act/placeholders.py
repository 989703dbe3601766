"""The writes for placeholders, which ask a node autoscaler for nodes."""

from collections.abc import Sequence
from datetime import datetime

from flotilla_operator.cluster.writes import Create, Delete, Write
from flotilla_operator.controllers.model_replica_set.seen import Situation
from flotilla_operator.objects.hashes import stable_hash
from flotilla_operator.objects.resources import PODS
from flotilla_operator.replicas.asking import Asking
from flotilla_operator.replicas.intent import IntendedSet
from flotilla_operator.replicas.provisioning import PlaceholderId
from flotilla_operator.workloads.placeholder import Dress, placeholder_pod, placeholders

NAME_LENGTH = 8


def placeholder_writes(asking: Asking | None, situation: Situation, now: datetime) -> Sequence[Write]:
    """Delete placeholders, then create others."""
    if asking is None:
        return ()
    me = situation.me
    removed = [
        Delete(ref=PODS.ref(me.owner.namespace, one.name), uid=one.uid, grace_period_seconds=0)
        for one in asking.provisioning.remove
    ]
    if asking.shape is None:
        return removed
    dress = Dress(
        images=situation.rendering.images,
        priority_class=situation.rendering.placeholder_priority_class,
        labels=me.spec.pod.labels,
        pull_secrets=[secret.name for secret in me.spec.pod.image_pull_secrets],
    )
    created = [
        Create(manifest=placeholder_pod(me.owner, _name(me, place, now), place, asking.shape, dress))
        for place in asking.provisioning.create
    ]
    return [*removed, *created]


def _name(me: IntendedSet, place: PlaceholderId, now: datetime) -> str:
    """A name that no recent placeholder had: one may still be terminating when the next is created."""
    suffix = stable_hash([me.owner.uid, now.isoformat(), place.slot, place.stage], length=NAME_LENGTH)
    return f"{placeholders(me.owner).name}-{suffix}"
