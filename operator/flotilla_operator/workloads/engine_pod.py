"""Makes an engine pod: one stage of one replica.

Pods are created once and replaced, never edited. What differs between replicas and is decided late, such as
the server's id in the routers, is an annotation. The revision's hash covers only what the user wrote: a new
release of the operator changes new pods and restarts none.
"""

from collections.abc import Sequence
from typing import Any

from flotilla_operator.api.model_replica_set import ModelReplicaSetSpec
from flotilla_operator.objects.owners import Owner
from flotilla_operator.objects.resources import Manifest
from flotilla_operator.objects.times import timestamp
from flotilla_operator.replicas.group import STOP_SECONDS, GroupIdentity
from flotilla_operator.replicas.trouble import ENGINE, START_WITHIN_SECONDS
from flotilla_operator.workloads import model_files, model_source
from flotilla_operator.workloads.devices import CLAIM, claims_of_pod, device_annotation, device_ask
from flotilla_operator.workloads.engine_arguments import engine_arguments
from flotilla_operator.workloads.engine_checks import lifecycle, probes
from flotilla_operator.workloads.engine_environment import HOME, engine_environment
from flotilla_operator.workloads.engine_guard import ANNOTATION, TEXT, guard_mount, guard_volume
from flotilla_operator.workloads.gate import gates
from flotilla_operator.workloads.images import Images
from flotilla_operator.workloads.labels import Child
from flotilla_operator.workloads.objects import PodParts, container, pod_spec
from flotilla_operator.workloads.pinning import pinned
from flotilla_operator.workloads.pod_security import scratch
from flotilla_operator.workloads.stages import Stage
from flotilla_operator.workloads.tolerations import tolerations_of
from flotilla_runtime import contract

COMPONENT = "engine"
LEADER_STAGE = "0"
CONTAINER = ENGINE
SCRATCH = {"home": HOME, "tmp": "/tmp"}  # noqa: S108 (an emptyDir of the pod's own)
DO_NOT_DISRUPT = {
    "karpenter.sh/do-not-disrupt": "true",
    "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
}


def engines(owner: Owner) -> Child:
    """All engine pods of a set as one part; it names the objects that serve all of them."""
    return Child(owner=owner, component=COMPONENT, suffix="engine")


def engine_selector(owner: Owner) -> dict[str, str]:
    """The selector of the leader pods of a set, one for each group."""
    return {**engines(owner).selector, contract.LABEL_STAGE: LEADER_STAGE}


def stages_of(spec: ModelReplicaSetSpec) -> int:
    """The number of pods of a group."""
    return spec.parallelism.pipeline


def stage_of(owner: Owner, spec: ModelReplicaSetSpec, group: str, number: int) -> Stage:
    """One stage of a group."""
    return Stage(
        group=group,
        number=number,
        count=stages_of(spec),
        service=engines(owner).name,
        namespace=owner.namespace,
    )


def engine_pods(
    owner: Owner, spec: ModelReplicaSetSpec, identity: GroupIdentity, images: Images
) -> list[Manifest]:
    """The pods of a group, the leader first."""
    return [engine_pod(owner, spec, identity, images, number) for number in range(stages_of(spec))]


def engine_pod(
    owner: Owner, spec: ModelReplicaSetSpec, identity: GroupIdentity, images: Images, number: int = 0
) -> Manifest:
    """The pod of one stage of a group."""
    stage = stage_of(owner, spec, identity.name, number)
    scratch_volumes, scratch_mounts = scratch(SCRATCH)
    parts = PodParts(
        containers=[_engine(owner, spec, images, stage, scratch_mounts)],
        init_containers=model_files.model_containers(owner.namespace, spec, images),
        volumes=[
            *scratch_volumes,
            {"name": "shm", "emptyDir": {"medium": "Memory"}},
            guard_volume(),
            *model_files.model_volumes(spec),
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
        "metadata": _metadata(owner, spec, identity, stage),
        "spec": {
            **pod_spec(parts),
            **_scheduling(spec, images, identity, stage),
            **claims_of_pod(owner, spec, identity.revision),
        },
    }


def engine_requests(spec: ModelReplicaSetSpec) -> dict[str, Any]:
    """The resources of the engine's container: the user's, and one accelerator per tensor parallel rank."""
    resources: dict[str, Any] = {
        kind: dict(values) for kind, values in spec.engine.resources.manifest().items() if values
    }
    if spec.accelerator is not None and spec.accelerator.resource is not None:
        limits = resources.setdefault("limits", {})
        limits[spec.accelerator.resource] = str(spec.parallelism.tensor)
    if device_ask(spec) is not None:
        resources["claims"] = [{"name": CLAIM}]
    return resources


def _metadata(owner: Owner, spec: ModelReplicaSetSpec, identity: GroupIdentity, stage: Stage) -> Manifest:
    part = engines(owner)
    stages = {contract.ANNOTATION_STAGES: str(stage.count)} if stage.count > 1 else {}
    since = identity.waiting_since
    age = {contract.ANNOTATION_WAITING_SINCE: timestamp(since)} if since is not None else {}
    return {
        **part.metadata(),
        "name": stage.pod_name,
        "labels": {
            **spec.pod.labels,
            **part.labels,
            contract.LABEL_GROUP: identity.name,
            contract.LABEL_STAGE: str(stage.number),
            contract.LABEL_REVISION: identity.revision,
        },
        "annotations": {
            **spec.pod.annotations,
            **DO_NOT_DISRUPT,
            **device_annotation(spec),
            contract.ANNOTATION_SERVER_ID: str(identity.server_id),
            ANNOTATION: TEXT,
            **stages,
            **age,
        },
    }


def _scheduling(spec: ModelReplicaSetSpec, images: Images, identity: GroupIdentity, stage: Stage) -> Manifest:
    wishes: Manifest = {}
    if spec.placement.node_selector:
        wishes["nodeSelector"] = dict(spec.placement.node_selector)
    if tolerations := tolerations_of(spec, images):
        wishes["tolerations"] = tolerations
    if spec.placement.priority_class_name is not None:
        wishes["priorityClassName"] = spec.placement.priority_class_name
    if spec.pod.runtime_class_name is not None:
        wishes["runtimeClassName"] = spec.pod.runtime_class_name
    if identity.nodes:
        wishes["affinity"] = pinned(None, identity.nodes[stage.number])
    if stage.count > 1:
        wishes |= {"hostname": stage.pod_name, "subdomain": stage.service}
    if not stage.comes_last:
        wishes["schedulingGates"] = gates()
    return wishes


def _engine(
    owner: Owner,
    spec: ModelReplicaSetSpec,
    images: Images,
    stage: Stage,
    scratch_mounts: Sequence[Manifest],
) -> Manifest:
    return container(
        CONTAINER,
        spec.engine.image or (images.engine_cpu if spec.accelerator is None else images.engine),
        pull_policy=images.pull_policy,
        args=engine_arguments(spec, model_source.model_of(spec).path, stage),
        env=engine_environment(owner, spec, stage),
        ports=[{"name": "http", "containerPort": contract.PORT_ENGINE, "protocol": "TCP"}],
        resources=engine_requests(spec),
        volumeMounts=[
            *scratch_mounts,
            {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108
            guard_mount(),
            *model_files.model_mounts(owner.namespace, spec),
            *spec.pod.volume_mounts,
        ],
        lifecycle=lifecycle(None if stage.leads else stage.leader_address),
        **(probes(spec.model.task, start_within_seconds=START_WITHIN_SECONDS) if stage.leads else {}),
    )


def claim_volumes(spec: ModelReplicaSetSpec) -> list[Manifest]:
    """The volumes of an engine pod that may exist in only one zone."""
    volumes = [*model_files.model_volumes(spec), *spec.pod.volumes]
    return [volume for volume in volumes if "persistentVolumeClaim" in volume]
