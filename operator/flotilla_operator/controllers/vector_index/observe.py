"""Gathers the facts about an index from the caches, and reads secrets by name. It decides nothing."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from flotilla_operator.api.parts import DeletionPolicy, TokenSecretRef
from flotilla_operator.api.vector_index import Milvus, MilvusMode, VectorIndex, VectorIndexSpec
from flotilla_operator.cluster.caches import Caches, controller_uid
from flotilla_operator.controllers.conditions import is_true
from flotilla_operator.controllers.controller import World
from flotilla_operator.controllers.images import images_of, proxies_of
from flotilla_operator.controllers.live_objects import LiveObject, live_object
from flotilla_operator.controllers.stored_status import without_status
from flotilla_operator.controllers.vector_index.access import SearchingFleet
from flotilla_operator.controllers.vector_index.cleanup import Cleanups, Remains
from flotilla_operator.controllers.vector_index.jobs import StepJob, pod_is_over, step_job
from flotilla_operator.controllers.vector_index.objects import claims_of, standing_objects
from flotilla_operator.controllers.vector_index.references import embedder_of, references_seen
from flotilla_operator.controllers.vector_index.remembered import remembered
from flotilla_operator.controllers.vector_index.seen import FINALIZER, Leaving, Observed
from flotilla_operator.controllers.vector_index.wakes import indexes_named
from flotilla_operator.objects.owners import Owner
from flotilla_operator.objects.resources import (
    AGENT_FLEETS,
    CONFIG_MAPS,
    DEPLOYMENTS,
    JOBS,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    VECTOR_INDEXES,
    Manifest,
    resource_of,
)
from flotilla_operator.telemetry.measurements import Target, first_known
from flotilla_operator.workloads.agent_fleet import workers
from flotilla_operator.workloads.vector_index.build import builds
from flotilla_operator.workloads.vector_index.identity import alias_name, collection_prefix
from flotilla_operator.workloads.vector_index.milvus import milvus_objects
from flotilla_operator.workloads.vector_index.retriever import retriever
from flotilla_operator.workloads.vector_index.retriever_key import retriever_key
from flotilla_runtime import contract
from flotilla_runtime.contract.failure_texts import what_failed


def parsed(manifest: Manifest) -> VectorIndexSpec:
    """The spec. The reconcile loop turns a validation error into a condition."""
    return VectorIndex.model_validate(without_status(manifest)).spec


async def observe(manifest: Manifest, world: World, cleanups: Cleanups, now: datetime) -> Observed | Leaving:
    """Everything that a decision about this index needs."""
    owner = Owner.of(VECTOR_INDEXES.kind, manifest)
    cleanups.keep_only(world.caches.store(VECTOR_INDEXES).uids())
    if "deletionTimestamp" in manifest["metadata"]:
        return await _leaving(manifest, owner, world, cleanups, now)
    cleanups.forget(owner.uid)
    return await _observed(manifest, owner, world)


async def _observed(manifest: Manifest, owner: Owner, world: World) -> Observed:
    spec = parsed(manifest)
    seen = await references_seen(owner, spec, world)
    caches, images = world.caches, images_of(world.config)
    embedder = embedder_of(owner, spec, caches)
    targets = _targets(owner, caches)
    before, key_found = remembered(manifest), await _key_found(owner, spec, world)
    parts = [*standing_objects(owner, spec, images, embedder), *claims_of(owner, spec)]
    return Observed(
        manifest=manifest,
        owner=owner,
        spec=spec,
        images=images,
        remembered=before,
        embedder=embedder,
        missing=seen.missing,
        secret_versions=seen.secret_versions,
        live={(live.kind, live.name): live for live in _live(parts, owner, caches)},
        lite=_live(milvus_objects(owner, spec, images, clients=[]), owner, caches),
        jobs=_jobs(owner, caches),
        build_config_maps=_build_config_maps(owner, caches),
        live_build_pods=_live_build_pods(owner, caches),
        key_found=key_found,
        fleets=[] if before.required_keys else _fleets(owner, caches),
        shared_workspace=_shared_workspace(owner, spec, caches),
        retriever_status=first_known(world.measurements.answers(targets, contract.RetrieverStatus)),
        targets=targets,
    )


async def _key_found(owner: Owner, spec: VectorIndexSpec, world: World) -> bool | None:
    if spec.retriever.auth_secret_ref is not None:
        return None
    return await world.own_secret(owner.namespace, retriever_key(owner).name, owner.uid) is not None


async def _leaving(
    manifest: Manifest, owner: Owner, world: World, cleanups: Cleanups, now: datetime
) -> Leaving:
    """An index that is being deleted. When its remains cannot be read, it is looked at again."""
    held = FINALIZER in (manifest["metadata"].get("finalizers") or ())
    if not held:
        cleanups.forget(owner.uid)
    remains, unreadable = None, ""
    try:
        remains = await _remains(manifest, owner, world) if held else None
    except Exception as error:
        unreadable = f"the collections were not removed ({what_failed(error)}); drop them by hand"
    return Leaving(
        manifest=manifest,
        owner=owner,
        remembered=remembered(manifest),
        looked_at_since=cleanups.first_look(owner.uid, now) if held else now,
        held=held,
        deletes=_deletes(manifest),
        remains=remains,
        unreadable=unreadable,
        cleanup=cleanups.state(owner.uid),
    )


def _deletes(manifest: Manifest) -> bool:
    retention = _mapping(_mapping(manifest.get("spec")).get("retention"))
    return retention.get("deletionPolicy") == DeletionPolicy.DELETE


class NotSentError(Exception):
    """The token of Milvus may not be sent there."""


async def _remains(manifest: Manifest, owner: Owner, world: World) -> Remains | None:
    """Where the collections are. It reads only the fields it needs: the rest may be invalid."""
    there = _mapping(_mapping(manifest.get("spec")).get("milvus"))
    if there.get("mode") != MilvusMode.EXTERNAL or "uri" not in there:
        return None
    named = there.get("tokenSecretRef")
    token = TokenSecretRef.model_validate(named) if named is not None else None
    secret = await world.secret(owner.namespace, token.name) if token is not None else None
    if secret is not None and (why := world.why_not_sent(secret, there["uri"])) is not None:
        raise NotSentError(f"spec.milvus.tokenSecretRef: the Secret {secret.name!r} is not sent: {why}")
    content = secret.data.get(token.key) if secret is not None and token is not None else None
    where = "spec.milvus.tokenSecretRef: the token"
    return Remains(
        uri=str(there["uri"]),
        database=str(there.get("database", Milvus.model_fields["database"].default)),
        token=None if content is None else contract.secret_value(content, where),
        alias=alias_name(owner),
        prefix=collection_prefix(owner),
        index_uid=owner.uid,
        proxy=proxies_of(world.config).of(str(there["uri"])),
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _live(named: Iterable[Manifest], owner: Owner, caches: Caches) -> list[LiveObject]:
    """The objects in the cluster that have these names, whoever owns them."""
    found = (caches.get(resource_of(one), owner.namespace, one["metadata"]["name"]) for one in named)
    return [live_object(manifest) for manifest in found if manifest is not None]


def _jobs(owner: Owner, caches: Caches) -> list[StepJob]:
    found = [
        step_job(owner, job, pods, [node for pod in pods if (node := _silent_node(pod, caches))])
        for job in caches.owned(JOBS, owner.uid)
        if "deletionTimestamp" not in job["metadata"]
        for pods in [caches.owned(PODS, job["metadata"]["uid"])]
    ]
    return [job for job in found if job is not None]


def _silent_node(pod: Manifest, caches: Caches) -> str | None:
    """The pod's node, if its kubelet does not report."""
    name = (pod.get("spec") or {}).get("nodeName")
    node = caches.get(NODES, "", name) if name else None
    return name if node is not None and not is_true(node, "Ready") else None


def _build_config_maps(owner: Owner, caches: Caches) -> list[LiveObject]:
    owned = (live_object(config_map) for config_map in caches.owned(CONFIG_MAPS, owner.uid))
    return [config_map for config_map in owned if contract.LABEL_BUILD in config_map.labels]


def _live_build_pods(owner: Owner, caches: Caches) -> dict[str, str]:
    return {
        pod["metadata"]["name"]: pod["metadata"]["labels"].get(contract.LABEL_BUILD, "")
        for pod in _pods_of(caches, owner, builds(owner).selector)
        if not pod_is_over(pod)
    }


def _pods_of(caches: Caches, owner: Owner, selector: Mapping[str, str]) -> list[Manifest]:
    return [
        pod
        for pod in caches.by_label(PODS, contract.LABEL_OWNER_NAME, owner.name)
        if pod["metadata"]["namespace"] == owner.namespace
        and selector.items() <= (pod["metadata"].get("labels") or {}).items()
    ]


def _fleets(owner: Owner, caches: Caches) -> list[SearchingFleet]:
    """The fleets that name the index, and what their workers send."""
    fleets = caches.store(AGENT_FLEETS).in_namespace(owner.namespace)
    return [_searching(fleet, caches) for fleet in fleets if owner.name in indexes_named(fleet)]


def _searching(manifest: Manifest, caches: Caches) -> SearchingFleet:
    fleet = Owner.of(AGENT_FLEETS.kind, manifest)
    selector = workers(fleet).selector
    templates = [
        deployment["spec"]["template"]
        for deployment in caches.by_label(DEPLOYMENTS, contract.LABEL_OWNER_NAME, fleet.name)
        if controller_uid(deployment) == fleet.uid
        and selector.items() <= (deployment["metadata"].get("labels") or {}).items()
    ]
    pods = _pods_of(caches, fleet, selector)
    return SearchingFleet(
        name=fleet.name,
        template_sends=all(map(_sends_keys, templates)) if templates else None,
        pods_without=sum(not _sends_keys(pod) and not pod_is_over(pod) for pod in pods),
    )


def _sends_keys(pod: Manifest) -> bool:
    """Whether a worker, or what workers are made from, sends a key with each search."""
    labels = (pod.get("metadata") or {}).get("labels") or {}
    return bool(labels.get(contract.LABEL_INDEX_KEYS) == contract.INDEX_KEYS_SENT)


def _shared_workspace(owner: Owner, spec: VectorIndexSpec, caches: Caches) -> bool:
    """Whether several nodes can write to the workspace at the same time."""
    name = spec.build.workspace.claim_name
    claim = caches.get(PERSISTENT_VOLUME_CLAIMS, owner.namespace, name) if name is not None else None
    return claim is not None and "ReadWriteMany" in (claim["spec"].get("accessModes") or ())


def _targets(owner: Owner, caches: Caches) -> list[Target]:
    """The status address of each retriever pod."""
    targets = []
    for pod in _pods_of(caches, owner, retriever(owner).selector):
        ip = (pod.get("status") or {}).get("podIP")
        if ip:
            url = f"http://{contract.url_host(ip)}:{contract.PORT_RETRIEVER}/v1/status"
            targets.append(Target(key=pod["metadata"]["uid"], url=url))
    return targets
