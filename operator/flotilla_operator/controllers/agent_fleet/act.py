"""Turns a decision about a fleet into writes, in the order in which they are needed.

redis     the first passwords, the claim and the server. With a Redis of the user's, the managed one goes
gateway   its objects, and what lets it have tokens reviewed
executors before the workers that ask them: as many pods as are wanted, and the end of those that nobody
          needs
workers   the costs of deleting their pods, where there are to be fewer; their objects, as many pods as are
          wanted. The settings of an older revision are nowhere but in its own objects, so these are only
          scaled and deleted
password  passwords that replace lost ones, after everything that had the lost ones
"""

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from flotilla_operator.api.fleet_queue import RedisMode
from flotilla_operator.api.parts import DeletionPolicy
from flotilla_operator.api.pods import PodOptions
from flotilla_operator.cluster.writes import Acts, Apply, Create, Delete, JsonPatch, Write
from flotilla_operator.controllers.agent_fleet.bindings import LiveBinding
from flotilla_operator.controllers.agent_fleet.decide import Decision, PartReason
from flotilla_operator.controllers.agent_fleet.executors import executors_to_delete
from flotilla_operator.controllers.agent_fleet.password import PasswordReason, with_password_made
from flotilla_operator.controllers.agent_fleet.rollout import RevisionWorkers
from flotilla_operator.controllers.agent_fleet.seen import Observed, RedisSecret
from flotilla_operator.controllers.claims import ClaimReason
from flotilla_operator.controllers.live_objects import LiveObject
from flotilla_operator.controllers.rendered import Rendered, rendered
from flotilla_operator.objects import deletion_cost
from flotilla_operator.objects.owners import Owner
from flotilla_operator.objects.resources import (
    DEPLOYMENTS,
    PERSISTENT_VOLUME_CLAIMS,
    SECRETS,
    STATEFUL_SETS,
    Manifest,
    ObjectRef,
)
from flotilla_operator.workloads import agent_fleet as workloads
from flotilla_operator.workloads.agent_fleet.worker_pods import costs_to_write
from flotilla_operator.workloads.pod_options import field_refused

PASSWORD_BYTES = 32


def new_password() -> str:
    """A password that nobody can guess."""
    return secrets.token_urlsafe(PASSWORD_BYTES)


def act(observed: Observed, decision: Decision | None, make_password: Callable[[], str]) -> Acts:
    """The writes that lead to what is wanted of a fleet."""
    if decision is None:
        return Acts()
    return Acts(
        writes=[] if decision.paused else list(_writes(observed, decision, make_password)),
        look_again_seconds=decision.look_again_seconds,
    )


def _writes(observed: Observed, decision: Decision, make_password: Callable[[], str]) -> Iterable[Write]:
    owner, spec, images, wiring = observed.owner, observed.spec, observed.images, observed.wiring
    passwords = [Create(manifest=_secret(owner, one, make_password)) for one in decision.password.made]
    first = passwords if decision.password.reason is PasswordReason.FIRST else []
    needs = frozenset(SECRETS.ref_to(one.manifest) for one in first)
    apply = partial(_apply, password_made=decision.password.recorded, needs=needs)
    if spec.queue.redis.mode is RedisMode.MANAGED:
        yield from first
        yield _claim(observed, decision.claim)
        pod = spec.queue.redis.pod
        digests = {
            **observed.redis_digests,
            **{
                user: digest
                for one in passwords
                for user, digest in workloads.digests_of_made(one.manifest).items()
            },
        }
        yield from (apply(one, "spec.queue.redis.pod", pod) for one in _redis(observed, decision, digests))
    else:
        yield from _without_redis(observed)
    if decision.gateway is PartReason.WRITTEN:
        revision = decision.rollout.revision
        objects = rendered(
            lambda images: workloads.gateway_manifests(owner, spec, wiring, images, revision), images
        )
        yield from _review_binding(observed)
        yield from (apply(one, "spec.gateway.pod", spec.gateway.pod) for one in objects)
    yield from _executors(observed, decision, apply)
    yield from _deletion_costs(observed, decision)
    if decision.workers is PartReason.WRITTEN:
        replicas, adopted = decision.worker_pods.newest.wanted, decision.rollout.adopted
        objects = rendered(
            lambda images: workloads.worker_manifests(owner, spec, wiring, images, replicas, adopted), images
        )
        yield from (apply(one, "spec.workers.pod", spec.workers.pod) for one in objects)
    yield from _older_revisions(decision)
    # Created last. After a crash before this write the password is still missing, so the restarts are decided
    # again; after this write no pod with the old password is left out.
    if decision.password.reason is PasswordReason.LOST:
        yield from passwords


def _secret(owner: Owner, secret: RedisSecret, make_password: Callable[[], str]) -> Manifest:
    match secret:
        case RedisSecret.PASSWORD:
            return workloads.password_secret(owner, make_password())
        case RedisSecret.USERS:
            return workloads.users_secret(owner, {user: make_password() for user in workloads.REDIS_USERS})
        case RedisSecret.EXECUTOR:
            return workloads.executor_secret(owner, make_password())


def _redis(observed: Observed, decision: Decision, digests: Mapping[str, str]) -> list[Rendered]:
    owner, spec = observed.owner, observed.spec.queue.redis
    has_executors = RedisSecret.EXECUTOR in observed.secrets_needed
    objects = rendered(
        lambda images: workloads.redis_manifests(
            owner, spec, images, digests=digests, has_executors=has_executors
        ),
        observed.images,
    )
    if decision.redis is PartReason.WRITTEN:
        return objects
    return [one for one in objects if one.manifest["kind"] != STATEFUL_SETS.kind]


def _claim(observed: Observed, reason: ClaimReason) -> Write:
    """Apply the claim. After a change of the deletion policy it first gets or loses its owner reference."""
    owner, redis = observed.owner, observed.spec.queue.redis
    wanted = workloads.claim(owner, redis)
    live = observed.part(wanted["kind"], wanted["metadata"]["name"])
    if reason is ClaimReason.APPLIED or live is None:
        retained = redis.deletion_policy is DeletionPolicy.RETAIN
        return Apply(manifest=wanted, retained=retained, field="spec.queue.redis.storage")
    references = [owner.reference] if reason is ClaimReason.ADOPTED else []
    return JsonPatch(
        ref=live.ref,
        resource_version=live.resource_version,
        operations=[{"op": "add", "path": "/metadata/ownerReferences", "value": references}],
    )


def _without_redis(observed: Observed) -> Iterable[Write]:
    """Delete the managed Redis when the fleet uses an external one; its claim follows the deletion policy."""
    name = workloads.redis(observed.owner).name
    for live in observed.live.values():
        ours = live.name == name and live.controller_uid == observed.owner.uid
        if ours and live.kind != PERSISTENT_VOLUME_CLAIMS.kind:
            yield Delete(ref=live.ref, uid=live.uid)


def _review_binding(observed: Observed) -> Iterable[Write]:
    """Bind the role of gateways that have tokens reviewed. Other gateways are bound to nothing."""
    owner, live = observed.owner, observed.binding
    if not workloads.asks_for_reviews(observed.spec):
        yield from bindings_to_delete(owner.namespace, owner.name, live)
    elif observed.namespace_uid is not None:
        wanted = workloads.review_binding(owner, observed.images.gateway_role, observed.namespace_uid)
        if live is None or not _is_ours(owner.namespace, owner.name, live):
            yield Create(manifest=wanted, retained=True)
        elif not live.binds_as(wanted):
            # It may not be edited. Its end wakes the fleet, and the next reconcile makes it anew.
            yield from bindings_to_delete(owner.namespace, owner.name, live)


def bindings_to_delete(namespace: str, name: str, live: LiveBinding | None) -> Sequence[Delete]:
    """The end of a binding: its fleet needs none or is gone, or somebody changed it."""
    if live is None or not _is_ours(namespace, name, live):
        return ()
    return (Delete(ref=live.live.ref, uid=live.live.uid),)


def _is_ours(namespace: str, name: str, live: LiveBinding) -> bool:
    return workloads.binding_labels(namespace, name).items() <= live.live.labels.items()


def _deletion_costs(observed: Observed, decision: Decision) -> Iterable[Write]:
    """Before there are fewer workers: how many tasks each one holds, so that those with fewer go first."""
    if observed.figures is None:
        return
    held = observed.figures.workers
    yield from _costs(decision.worker_pods.by_revision, observed.workers, held)
    if (executors := decision.worker_pods.executors) is not None:
        held = observed.figures.tool_requests.executors
        yield from _costs(executors.by_revision, observed.executors, held)


def _costs(
    shares: Iterable[tuple[str, int]], pods: Mapping[str, RevisionWorkers], held: Mapping[str, int]
) -> Iterable[Write]:
    path = f"/metadata/annotations/{deletion_cost.ANNOTATION.replace('/', '~1')}"
    for revision, wanted in shares:
        workers = pods.get(revision)
        if workers is None or not 0 < wanted < workers.deployment.replicas:
            continue
        for pod, cost in costs_to_write(workers.pods, held):
            operations = [{"op": "add", "path": path, "value": cost}]
            yield JsonPatch(ref=pod.ref, uid=pod.uid, operations=operations)


def _executors(
    observed: Observed, decision: Decision, apply: Callable[[Rendered, str, PodOptions], Write]
) -> Iterable[Write]:
    """The executors of the revision in force, the number of older ones, and the end of what nobody needs."""
    owner, spec, wiring = observed.owner, observed.spec, observed.wiring
    wanted = decision.worker_pods.executors
    if decision.workers is PartReason.WRITTEN and workloads.has_executors(spec) and wanted is not None:
        assert spec.tool_executors is not None
        replicas, options = wanted.newest.wanted, spec.tool_executors.pod
        objects = rendered(
            lambda images: workloads.executor_manifests(owner, spec, wiring, images, replicas),
            observed.images,
        )
        yield from (apply(one, "spec.toolExecutors.pod", options) for one in objects)
    rollout, executors = decision.rollout, observed.executors
    for one in executors_to_delete(spec, observed.figures, rollout, executors):
        yield from _end_of(one)
    for revision, number in {} if wanted is None else wanted.older.items():
        yield from _scaled(executors[revision].deployment, number)


def _end_of(one: RevisionWorkers) -> Iterable[Write]:
    yield Delete(ref=one.deployment.ref, uid=one.deployment.uid)
    if one.config_map is not None:
        yield Delete(ref=one.config_map.ref, uid=one.config_map.uid)


def _scaled(deployment: LiveObject, wanted: int) -> Iterable[Write]:
    if wanted != deployment.replicas:
        operations = [{"op": "replace", "path": "/spec/replicas", "value": wanted}]
        yield JsonPatch(ref=deployment.ref, uid=deployment.uid, operations=operations)


def _older_revisions(decision: Decision) -> Iterable[Write]:
    """The number of each older revision's workers, and the end of those that are needed no more."""
    for one in decision.rollout.older:
        deployment = one.workers.deployment
        wanted = decision.worker_pods.older.get(one.revision)
        if one.goes:
            yield from _end_of(one.workers)
        elif wanted is not None:
            yield from _scaled(deployment, wanted)


def _apply(
    one: Rendered,
    path: str,
    options: PodOptions,
    *,
    password_made: str | None,
    needs: frozenset[ObjectRef],
) -> Write:
    """Restart what connects to Redis when the password has changed.

    The first password restarts nothing, but no pod may start before the Secret exists (`needs`).
    """
    if one.manifest["kind"] not in (STATEFUL_SETS.kind, DEPLOYMENTS.kind):
        return Apply(manifest=one.manifest)
    workload = one.changed(lambda manifest: with_password_made(manifest, password_made))
    return Apply(
        manifest=workload.manifest,
        parts=workload.parts,
        field=field_refused(workload.manifest, path, options),
        needs=needs,
    )
