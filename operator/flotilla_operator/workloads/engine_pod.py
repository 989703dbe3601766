"""An engine pod: one stage of one replica, as the API server gets it.

Pods are created once and replaced, never edited, so everything that tells replicas apart and may be decided
late (the server's id in the routers) is an annotation. The template's hash covers what the user wrote and
nothing of ours: a new release of the operator changes how new pods look and restarts none.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flotilla_operator.api.model_replica_set import CacheMode, ModelReplicaSetSpec
from flotilla_operator.placement.quantities import CPU, quantity
from flotilla_operator.workloads import model_source
from flotilla_operator.workloads.engine_arguments import engine_arguments
from flotilla_operator.workloads.engine_checks import ENV_DRAIN_DEADLINE, ENV_SERVED_MODEL, lifecycle, probes
from flotilla_operator.workloads.engine_key import engine_key_variable
from flotilla_operator.workloads.images import Images
from flotilla_operator.workloads.labels import Child, Manifest, Owner
from flotilla_operator.workloads.model_facts import facts_first
from flotilla_operator.workloads.objects import PodParts, container, pod_spec
from flotilla_operator.workloads.pinning import pinned
from flotilla_operator.workloads.pod_security import scratch
from flotilla_runtime import contract

COMPONENT = "engine"
LEADER_STAGE = "0"
CONTAINER = "engine"
STOP_SECONDS = 30  # what an engine gets to end after its drain
START_WITHIN_SECONDS = 1800  # loading 140 GB of weights from a cold disk takes about twenty minutes
# What fetches or checks the model has ended when the engine starts, so this adds nothing to what the engine
# asks for; without it, a namespace with a quota on requests refuses the pod.
MODEL_RESOURCES = {"requests": {"cpu": "50m", "memory": "128Mi"}}
ROOT_USER_ID = 0
HOME = "/home/flotilla"
SCRATCH = {"home": HOME, "tmp": "/tmp"}  # noqa: S108 (an emptyDir of the pod's own)
DO_NOT_DISRUPT = {
    "karpenter.sh/do-not-disrupt": "true",
    "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupIdentity:
    """What tells one group from the others; `node` is None where the scheduler chooses."""

    name: str
    server_id: int
    revision: str
    node: str | None


def engines(owner: Owner) -> Child:
    """The engine pods of a set as one part; its name is that of the headless service."""
    return Child(owner=owner, component=COMPONENT, suffix="engine")


def engine_selector(owner: Owner) -> dict[str, str]:
    """What finds the engine pods of a set that stand for its groups: the first stage of each."""
    return {**engines(owner).selector, contract.LABEL_STAGE: LEADER_STAGE}


def engine_pod(owner: Owner, spec: ModelReplicaSetSpec, identity: GroupIdentity, images: Images) -> Manifest:
    """The pod of a group of one stage."""
    source = model_source.parse_source(spec.model.source, spec.model.revision)
    scratch_volumes, scratch_mounts = scratch(SCRATCH)
    parts = PodParts(
        containers=[_engine(owner, spec, source, images, scratch_mounts)],
        init_containers=facts_first(_model_container(spec, source, images)),
        volumes=[
            *scratch_volumes,
            {"name": "shm", "emptyDir": {"medium": "Memory"}},
            _models_volume(spec, source),
            *spec.pod.volumes,
        ],
        service_account=spec.pod.service_account_name,
        termination_grace_seconds=spec.drain.deadline_seconds + STOP_SECONDS,
        image_pull_secrets=(
            *images.pull_secrets,
            *(secret.name for secret in spec.pod.image_pull_secrets),
        ),
    )
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": _metadata(owner, spec, identity),
        "spec": {**pod_spec(parts), **_scheduling(owner, spec, identity)},
    }


def engine_requests(spec: ModelReplicaSetSpec) -> dict[str, Any]:
    """The resources of the engine's container: the user's, and one device for each of the tensor's parts."""
    resources: dict[str, Any] = {
        kind: dict(values) for kind, values in spec.engine.resources.manifest().items() if values
    }
    if spec.accelerator is not None and spec.accelerator.resource is not None:
        limits = resources.setdefault("limits", {})
        limits[spec.accelerator.resource] = str(spec.parallelism.tensor)
    return resources


def _metadata(owner: Owner, spec: ModelReplicaSetSpec, identity: GroupIdentity) -> Manifest:
    part = engines(owner)
    return {
        **part.metadata(),
        "name": identity.name,
        "labels": {
            **spec.pod.labels,
            **part.labels,
            contract.LABEL_GROUP: identity.name,
            contract.LABEL_STAGE: LEADER_STAGE,
            contract.LABEL_REVISION: identity.revision,
        },
        "annotations": {
            **spec.pod.annotations,
            **DO_NOT_DISRUPT,
            contract.ANNOTATION_SERVER_ID: str(identity.server_id),
        },
    }


def _scheduling(owner: Owner, spec: ModelReplicaSetSpec, identity: GroupIdentity) -> Manifest:
    wishes: Manifest = {"hostname": identity.name, "subdomain": engines(owner).name}
    if spec.placement.node_selector:
        wishes["nodeSelector"] = dict(spec.placement.node_selector)
    if spec.placement.tolerations:
        wishes["tolerations"] = [toleration.manifest() for toleration in spec.placement.tolerations]
    if spec.placement.priority_class_name is not None:
        wishes["priorityClassName"] = spec.placement.priority_class_name
    if identity.node is not None:
        wishes["affinity"] = pinned(None, identity.node)
    return wishes


def _engine(
    owner: Owner,
    spec: ModelReplicaSetSpec,
    source: model_source.HubSource | model_source.ClaimSource,
    images: Images,
    scratch_mounts: Sequence[Manifest],
) -> Manifest:
    return container(
        CONTAINER,
        spec.engine.image or (images.engine_cpu if spec.accelerator is None else images.engine),
        pull_policy=images.pull_policy,
        args=engine_arguments(spec, source.path),
        env=_environment(owner, spec),
        ports=[{"name": "http", "containerPort": contract.PORT_ENGINE, "protocol": "TCP"}],
        resources=engine_requests(spec),
        volumeMounts=[
            *scratch_mounts,
            {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108
            {"name": model_source.VOLUME, "mountPath": model_source.MODELS_DIRECTORY, "readOnly": True},
            *spec.pod.volume_mounts,
        ],
        lifecycle=lifecycle(),
        **probes(spec.model.task, start_within_seconds=START_WITHIN_SECONDS),
    )


def _environment(owner: Owner, spec: ModelReplicaSetSpec) -> list[Manifest]:
    """Ours, overridden by the user's where names are the same.

    `USER` because some libraries ask for the user's name and a numeric user has no entry in the image.
    """
    ours = {
        "HOME": HOME,
        "USER": "flotilla",
        "XDG_CACHE_HOME": f"{HOME}/.cache",
        "HF_HOME": f"{HOME}/.cache/huggingface",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        ENV_SERVED_MODEL: spec.model.name,
        ENV_DRAIN_DEADLINE: str(spec.drain.deadline_seconds),
        **_cpu_environment(spec),
    }
    variables: list[Manifest] = [{"name": name, "value": value} for name, value in ours.items()]
    return merged_environment([*variables, engine_key_variable(owner)], spec)


def merged_environment(ours: Sequence[Manifest], spec: ModelReplicaSetSpec) -> list[Manifest]:
    """Environment variables with the user's last, each name once."""
    theirs = [variable.manifest() for variable in spec.engine.env]
    names = {variable["name"] for variable in theirs}
    return [*(variable for variable in ours if variable["name"] not in names), *theirs]


def _cpu_environment(spec: ModelReplicaSetSpec) -> dict[str, str]:
    """On CPUs: engines that bind threads to cores would all choose the same ones, so none binds.

    A limit says how many threads are of use; a request says nothing about what an engine may use.
    """
    if spec.accelerator is not None:
        return {}
    environment = {"VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    limit = engine_requests(spec).get("limits", {}).get(CPU)
    if limit is not None:
        environment["OMP_NUM_THREADS"] = str(max(1, math.ceil(quantity(limit))))
    return environment


def _model_container(
    spec: ModelReplicaSetSpec, source: model_source.HubSource | model_source.ClaimSource, images: Images
) -> Manifest:
    """Fetches the model, or checks the one on the claim; proxies and mirrors reach it through the
    engine's env.
    """
    fetches = isinstance(source, model_source.HubSource)
    ours: list[Manifest] = []
    if fetches and spec.model.token_secret_ref is not None:
        secret = spec.model.token_secret_ref
        reference = {"secretKeyRef": {"name": secret.name, "key": secret.key}}
        ours.append({"name": contract.ENV_HUB_TOKEN, "valueFrom": reference})
    mount: Manifest = {"name": model_source.VOLUME, "mountPath": model_source.MODELS_DIRECTORY}
    if not fetches:
        mount["readOnly"] = True
    manifest = container(
        model_source.FETCHER if fetches else model_source.VERIFIER,
        images.runtime,
        pull_policy=images.pull_policy,
        args=model_source.init_arguments(source),
        env=merged_environment(ours, spec),
        resources=MODEL_RESOURCES,
        volumeMounts=[mount, {"name": "tmp", "mountPath": SCRATCH["tmp"]}],
    )
    if fetches and spec.model_cache.mode is CacheMode.NODE:
        # The kubelet makes the folder for root; without capabilities root can do no more than own it.
        manifest["securityContext"] = {
            **manifest["securityContext"],
            "runAsUser": ROOT_USER_ID,
            "runAsNonRoot": False,
        }
    return manifest


def claim_volumes(spec: ModelReplicaSetSpec) -> list[Manifest]:
    """The volumes of an engine pod that may stand in one zone alone."""
    source = model_source.parse_source(spec.model.source, spec.model.revision)
    volumes = [_models_volume(spec, source), *spec.pod.volumes]
    return [volume for volume in volumes if "persistentVolumeClaim" in volume]


def _models_volume(
    spec: ModelReplicaSetSpec, source: model_source.HubSource | model_source.ClaimSource
) -> Manifest:
    if isinstance(source, model_source.ClaimSource):
        return model_source.claim_volume(source.claim, read_only=True)
    cache = spec.model_cache
    if cache.mode is CacheMode.CLAIM and cache.claim_name is not None:
        return model_source.claim_volume(cache.claim_name, read_only=False)
    if cache.mode is CacheMode.NODE:
        return {
            "name": model_source.VOLUME,
            "hostPath": {"path": cache.path, "type": "DirectoryOrCreate"},
        }
    return {"name": model_source.VOLUME, "emptyDir": {}}
