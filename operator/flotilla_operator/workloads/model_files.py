"""The volumes with the files that an engine reads, and the container that fetches or checks these files.

Files on a claim are checked too, so that a wrong path gives a clear message in the pod's status and not a
stack trace of the engine. The engine's mounts are read-only, and the engine never connects to the hub.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from flotilla_operator.api.model_replica_set import CacheMode, ModelReplicaSetSpec
from flotilla_operator.objects.resources import Manifest
from flotilla_operator.workloads.engine_environment import merged_environment
from flotilla_operator.workloads.images import Images
from flotilla_operator.workloads.model_facts import facts_first
from flotilla_operator.workloads.model_source import (
    MODELS_DIRECTORY,
    ClaimSource,
    HubSource,
    adapter_of,
    claim_directory,
    guesser_of,
    model_of,
)
from flotilla_operator.workloads.node_cache import (
    FETCHERS_VARIABLES,
    folder_maker,
    hub_url,
    is_on_node,
    own_folder,
    plain_path,
)
from flotilla_operator.workloads.objects import container
from flotilla_operator.workloads.proxies import unless_set
from flotilla_runtime import contract

CACHE_VOLUME = "models"
FETCHER = "fetch-model"
HUB_CLIENT = "HF_"  # the variables of huggingface_hub begin so
VERIFIER = "verify-model"
# This container has ended when the engine starts, so its requests add nothing to the engine's. Without
# requests, a namespace with a quota on requests would refuse the pod.
RESOURCES = {"requests": {"cpu": "50m", "memory": "128Mi"}}


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedFiles:
    """A model or an adapter that the engine reads: its source, and the field that names it."""

    role: contract.FilesRole
    field: str
    source: HubSource | ClaimSource
    highest_rank: int | None = None


def wanted_files(spec: ModelReplicaSetSpec) -> tuple[WantedFiles, ...]:
    """All models and adapters that the engine reads, the set's model first."""
    wanted = [
        WantedFiles(role=contract.FilesRole.MODEL, field="spec.model.source", source=model_of(spec)),
    ]
    if (guesser := guesser_of(spec)) is not None:
        field = "spec.engine.speculative.model"
        wanted.append(WantedFiles(role=contract.FilesRole.GUESSER, field=field, source=guesser))
    wanted += [
        WantedFiles(
            role=contract.FilesRole.ADAPTER,
            field=f"spec.engine.adapters[{adapter.name}]",
            source=adapter_of(adapter),
            highest_rank=adapter.rank,
        )
        for adapter in spec.engine.adapters
    ]
    return tuple(wanted)


def model_containers(namespace: str, spec: ModelReplicaSetSpec, images: Images) -> list[Manifest]:
    """The init containers: those that read facts and fetch; before them, one that makes a node's folder."""
    fetching = facts_first(_model_container(namespace, spec, images))
    if keeps_on_node(spec):
        return [folder_maker(namespace, spec, images, CACHE_VOLUME), *fetching]
    return fetching


def _model_container(namespace: str, spec: ModelReplicaSetSpec, images: Images) -> Manifest:
    """The container that fetches files from a hub and checks files on claims.

    Of the engine's environment it gets what leads to the hub, and outside of a node's folder the settings of
    the hub's client. Others decide what runs, as `PYTHONPATH` and `LD_PRELOAD` with a claim: code that they
    bring would read the token, which not everybody who may make sets may read.
    """
    fetches = _fetches(spec)
    ours: list[Manifest] = []
    if fetches and spec.model.token_secret_ref is not None:
        secret = spec.model.token_secret_ref
        reference = {"secretKeyRef": {"name": secret.name, "key": secret.key}}
        ours.append({"name": contract.ENV_HUB_TOKEN, "valueFrom": reference})
    if fetches:
        proxies = images.proxies.variables(hub_url(spec))
        ours += unless_set(proxies, (variable.name for variable in spec.engine.env))
    variables = merged_environment(ours, spec)
    variables = [variable for variable in variables if _is_for_the_fetcher(variable["name"], spec)]
    mounts = _mounts(namespace, spec, fills_the_cache=True)
    return container(
        FETCHER if fetches else VERIFIER,
        images.runtime,
        pull_policy=images.pull_policy,
        args=_arguments(wanted_files(spec)),
        env=variables,
        resources=RESOURCES,
        volumeMounts=[*mounts, {"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108
    )


def _is_for_the_fetcher(variable: str, spec: ModelReplicaSetSpec) -> bool:
    of_the_client = variable.startswith(HUB_CLIENT) and not keeps_on_node(spec)
    return variable in FETCHERS_VARIABLES or of_the_client


def model_mounts(namespace: str, spec: ModelReplicaSetSpec) -> list[Manifest]:
    """The engine's mounts, read-only."""
    return _mounts(namespace, spec, fills_the_cache=False)


def keeps_on_node(spec: ModelReplicaSetSpec) -> bool:
    """Whether pods of this spec have a folder of the node: files are fetched, and kept there."""
    return _fetches(spec) and is_on_node(spec)


def model_volumes(spec: ModelReplicaSetSpec) -> list[Manifest]:
    """The cache, if anything is fetched, and one volume for each claim.

    A claim that is also the cache is one volume, which is mounted twice.
    """
    volumes = [_cache_volume(spec)] if _fetches(spec) else []
    for claim, volume in _claim_volumes(spec).items():
        if volume != CACHE_VOLUME:
            reference = {"claimName": claim, "readOnly": True}
            volumes.append({"name": volume, "persistentVolumeClaim": reference})
    return volumes


def _fetches(spec: ModelReplicaSetSpec) -> bool:
    return any(isinstance(wanted.source, HubSource) for wanted in wanted_files(spec))


def _arguments(wanted: Sequence[WantedFiles]) -> list[str]:
    """The arguments of the model fetcher: options for the model, and JSON for everything else."""
    model, *others = wanted
    arguments = ["flotilla_runtime.models"]
    if isinstance(model.source, HubSource):
        arguments += ["--source", model.source.uri, "--to", model.source.path]
        arguments += ["--revision", model.source.revision] if model.source.revision else []
    else:
        arguments += ["--verify", model.source.path]
    for other in others:
        arguments += ["--also", _described(other).model_dump_json(by_alias=True, exclude_none=True)]
    return arguments


def _described(wanted: WantedFiles) -> contract.EngineFiles:
    hub = wanted.source if isinstance(wanted.source, HubSource) else None
    return contract.EngineFiles(
        role=wanted.role,
        field=wanted.field,
        folder=wanted.source.path,
        source=hub.uri if hub else None,
        revision=hub.revision if hub else None,
        highest_rank=wanted.highest_rank,
    )


def _mounts(namespace: str, spec: ModelReplicaSetSpec, *, fills_the_cache: bool) -> list[Manifest]:
    mounts: list[Manifest] = []
    if _fetches(spec):
        cache: Manifest = {"name": CACHE_VOLUME, "mountPath": MODELS_DIRECTORY}
        if is_on_node(spec):
            cache["subPath"] = own_folder(namespace, spec)
        mounts.append(cache if fills_the_cache else {**cache, "readOnly": True})
    return mounts + [
        {"name": volume, "mountPath": claim_directory(claim), "readOnly": True}
        for claim, volume in _claim_volumes(spec).items()
    ]


def _claim_volumes(spec: ModelReplicaSetSpec) -> dict[str, str]:
    """The claims with files, each with its volume's name, in the order of the spec."""
    claims = {w.source.claim: None for w in wanted_files(spec) if isinstance(w.source, ClaimSource)}
    cache = spec.model_cache.claim_name if _fetches(spec) else None
    return {claim: CACHE_VOLUME if claim == cache else f"files-{index}" for index, claim in enumerate(claims)}


def _cache_volume(spec: ModelReplicaSetSpec) -> Manifest:
    cache = spec.model_cache
    if cache.mode is CacheMode.CLAIM and cache.claim_name is not None:
        return {"name": CACHE_VOLUME, "persistentVolumeClaim": {"claimName": cache.claim_name}}
    if is_on_node(spec):
        path = plain_path(cache.path) or cache.path
        return {"name": CACHE_VOLUME, "hostPath": {"path": path, "type": "DirectoryOrCreate"}}
    return {"name": CACHE_VOLUME, "emptyDir": {}}
