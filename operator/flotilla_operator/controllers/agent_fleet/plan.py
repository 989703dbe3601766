"""The story of a fleet, from what was seen to what is done.

held?    deleted: nothing, its children go with it and a retained claim stays; paused: look on
redis    the password once, the claim, the server; with a Redis of the user's own, ours goes;
         a password that was lost is made anew once every pod with the old one is being replaced
gateway  always: tasks are taken in while models and indexes are still on their way
workers  once every model and index is known, as many as the tasks need
status   what all of this amounts to
"""

from collections.abc import Iterable
from datetime import datetime
from functools import partial

from flotilla_operator.api.agent_fleet import RedisMode
from flotilla_operator.api.common import DeletionPolicy
from flotilla_operator.cluster.caches import controller_uid
from flotilla_operator.cluster.resources import (
    DEPLOYMENTS,
    PERSISTENT_VOLUME_CLAIMS,
    SECRETS,
    STATEFUL_SETS,
    resource_of,
)
from flotilla_operator.cluster.writes import (
    Apply,
    Create,
    Delete,
    JsonPatch,
    Manifest,
    ObjectRef,
    Plan,
    Write,
)
from flotilla_operator.controllers.agent_fleet.seen import Observed
from flotilla_operator.controllers.agent_fleet.status import status_and_events
from flotilla_operator.controllers.conditions import timestamp
from flotilla_operator.workloads import agent_fleet as workloads
from flotilla_operator.workloads.labels import Owner
from flotilla_runtime import contract

ANNOTATION_PASSWORD_MADE = f"{contract.DOMAIN}/password-made"
LOOK_AGAIN_SCALING_SECONDS = 5.0
LOOK_AGAIN_MISSING_SECONDS = 10.0
LOOK_AGAIN_SETTLED_SECONDS = 30.0


def plan(observed: Observed, now: datetime) -> Plan:
    """The next step of a fleet."""
    if "deletionTimestamp" in observed.manifest["metadata"]:
        return Plan()
    status, events = status_and_events(observed, now)
    return Plan(
        writes=[] if observed.spec.paused else list(_writes(observed)),
        status=status,
        events=events,
        look_again_seconds=_look_again(observed),
    )


def _writes(observed: Observed) -> Iterable[Write]:
    owner, spec, images = observed.owner, observed.spec, observed.images
    new_password = []
    if observed.new_password is not None:
        new_password = [Create(manifest=workloads.password_secret(owner, observed.new_password))]
    first = new_password if observed.password_lost_at is None else []
    needs = frozenset(SECRETS.ref_to(one.manifest) for one in first)
    apply = partial(_apply, password_made=_password_made(observed), needs=needs)
    if spec.queue.redis.mode is RedisMode.MANAGED:
        yield from first
        yield from _claim(observed)
        yield from map(apply, workloads.redis_manifests(owner, spec.queue.redis, images))
    else:
        yield from _without_redis(observed)
    if not observed.problems.queue:
        yield from map(apply, workloads.gateway_manifests(owner, spec, observed.wiring, images))
    if observed.wiring.complete:
        replicas = observed.decision.wanted
        yield from map(apply, workloads.worker_manifests(owner, spec, observed.wiring, images, replicas))
    # Made last, so a crash before it finds the password missing again, and none after it an old Redis.
    if observed.password_lost_at is not None:
        yield from new_password


def _password_made(observed: Observed) -> str | None:
    """When the password was made that the pods have, if it is not the first one: Redis' own pods tell."""
    if observed.password_lost_at is not None:
        return timestamp(observed.password_lost_at)
    if observed.spec.queue.redis.mode is not RedisMode.MANAGED:
        return None
    live = observed.live.get((STATEFUL_SETS.kind, workloads.redis(observed.owner).name), {})
    template = (live.get("spec") or {}).get("template") or {}
    annotations = (template.get("metadata") or {}).get("annotations") or {}
    made: str | None = annotations.get(ANNOTATION_PASSWORD_MADE)
    return made


def _claim(observed: Observed) -> Iterable[Write]:
    """The claim; one whose deletion policy has changed first gets or loses its owner reference."""
    owner, redis = observed.owner, observed.spec.queue.redis
    retained = redis.deletion_policy is DeletionPolicy.RETAIN
    wanted = workloads.claim(owner, redis)
    live = observed.live.get((wanted["kind"], wanted["metadata"]["name"]))
    if live is not None and _is_of(live, owner) and (controller_uid(live) is None) is not retained:
        yield JsonPatch(
            ref=PERSISTENT_VOLUME_CLAIMS.ref_to(live),
            resource_version=live["metadata"]["resourceVersion"],
            operations=[
                {
                    "op": "add",
                    "path": "/metadata/ownerReferences",
                    "value": [] if retained else [owner.reference],
                }
            ],
        )
    else:
        yield Apply(manifest=wanted, retained=retained, field="spec.queue.redis.storage")


def _is_of(claim: Manifest, owner: Owner) -> bool:
    """Whether a claim is this fleet's, or was left for it by one of its name."""
    labels = claim["metadata"].get("labels") or {}
    named = (labels.get(contract.LABEL_OWNER_KIND), labels.get(contract.LABEL_OWNER_NAME))
    return named == (owner.kind, owner.name) and controller_uid(claim) in (None, owner.uid)


def _without_redis(observed: Observed) -> Iterable[Write]:
    """The managed Redis goes when the fleet has another; its claim is left to its deletion policy."""
    name = workloads.redis(observed.owner).name
    for (kind, found), manifest in observed.live.items():
        ours = found == name and controller_uid(manifest) == observed.owner.uid
        if ours and kind != PERSISTENT_VOLUME_CLAIMS.kind:
            yield Delete(ref=resource_of(manifest).ref_to(manifest), uid=manifest["metadata"]["uid"])


def _apply(manifest: Manifest, *, password_made: str | None, needs: frozenset[ObjectRef]) -> Write:
    """What speaks to Redis starts again when its password is another; the first one is no change, and without
    it nothing starts.
    """
    if manifest["kind"] not in (STATEFUL_SETS.kind, DEPLOYMENTS.kind):
        return Apply(manifest=manifest)
    if password_made is None:
        return Apply(manifest=manifest, needs=needs)
    template = manifest["spec"]["template"]
    metadata = template.get("metadata") or {}
    annotations = {**(metadata.get("annotations") or {}), ANNOTATION_PASSWORD_MADE: password_made}
    rolled = {**template, "metadata": {**metadata, "annotations": annotations}}
    return Apply(manifest={**manifest, "spec": {**manifest["spec"], "template": rolled}}, needs=needs)


def _look_again(observed: Observed) -> float:
    """Often enough to see a task come to a fleet without workers; more rarely where nothing can scale."""
    workers = observed.spec.workers
    if workers.min_replicas < workers.max_replicas and not observed.spec.paused:
        return LOOK_AGAIN_SCALING_SECONDS
    return LOOK_AGAIN_MISSING_SECONDS if observed.problems.any else LOOK_AGAIN_SETTLED_SECONDS
