"""Milvus Lite: one pod with one claim, to which only builds and the retriever may connect.

Milvus Lite has no users, so a network policy is its only protection. The claim is made by the operator and
not by a template of the StatefulSet, so that the operator decides whether it is retained.
"""

from flotilla_operator.api.parts import DeletionPolicy
from flotilla_operator.api.vector_index import MilvusMode, VectorIndexSpec
from flotilla_operator.objects.owners import Owner
from flotilla_operator.objects.resources import Manifest
from flotilla_operator.workloads import objects
from flotilla_operator.workloads.images import Images
from flotilla_operator.workloads.ingress import from_pods
from flotilla_operator.workloads.labels import Child
from flotilla_operator.workloads.pod_options import with_options
from flotilla_operator.workloads.pod_security import scratch
from flotilla_runtime import contract

COMPONENT = "milvus"
DATA_DIRECTORY = "/data"
RESOURCES = {"requests": {"cpu": "100m", "memory": "512Mi"}}
STOP_SECONDS = 30


def milvus(owner: Owner) -> Child:
    """Milvus Lite's objects: `NAME-milvus`."""
    return Child(owner=owner, component=COMPONENT, suffix="milvus")


def lacks_milvus_image(spec: VectorIndexSpec, images: Images) -> bool:
    """Whether Milvus Lite is wanted, and neither the spec nor the chart names its image."""
    return spec.milvus.mode is MilvusMode.LITE and not (spec.milvus.image or images.milvus)


def milvus_connection(owner: Owner, spec: VectorIndexSpec) -> contract.MilvusConnection:
    """The address of Milvus for builds and the retriever."""
    if spec.milvus.mode is MilvusMode.EXTERNAL and spec.milvus.uri is not None:
        return contract.MilvusConnection(uri=spec.milvus.uri, database=spec.milvus.database)
    host = f"{milvus(owner).name}.{owner.namespace}.svc"
    return contract.MilvusConnection(uri=f"http://{host}:{contract.PORT_MILVUS}")


def milvus_claim(owner: Owner, spec: VectorIndexSpec) -> Manifest:
    """The claim with the index's data; with Retain it has no owner and is recognised by its labels."""
    return objects.persistent_volume_claim(
        milvus(owner),
        size=str(spec.milvus.storage.size),
        storage_class=spec.milvus.storage.storage_class_name,
        owned=spec.retention.deletion_policy is DeletionPolicy.DELETE,
    )


def milvus_objects(
    owner: Owner, spec: VectorIndexSpec, images: Images, clients: list[Child]
) -> list[Manifest]:
    """Service, network policy and StatefulSet; `clients` are the parts that may connect."""
    part = milvus(owner)
    port = objects.Port(name="grpc", number=contract.PORT_MILVUS)
    return [
        objects.service(part, selector=part.selector, ports=[port]),
        objects.network_policy(
            part,
            selector=part.selector,
            ingress=[from_pods(*(client.selector for client in clients), ports=(contract.PORT_MILVUS,))],
            may_connect=False,
        ),
        _stateful_set(part, spec, images),
    ]


def _stateful_set(part: Child, spec: VectorIndexSpec, images: Images) -> Manifest:
    volumes, mounts = scratch({"tmp": "/tmp"})  # noqa: S108 (an emptyDir)
    pod = objects.PodParts(
        containers=[_container(spec, images, mounts)],
        volumes=[{"name": "data", "persistentVolumeClaim": {"claimName": part.name}}, *volumes],
        termination_grace_seconds=STOP_SECONDS,
        image_pull_secrets=images.pull_secrets,
    )
    template = {"metadata": {"labels": part.labels}, "spec": objects.pod_spec(pod)}
    return with_options(objects.single_stateful_set(part, template), spec.milvus.pod)


def _container(spec: VectorIndexSpec, images: Images, mounts: list[Manifest]) -> Manifest:
    probe = {"tcpSocket": {"port": "grpc"}, "periodSeconds": 5, "timeoutSeconds": 5}
    return objects.container(
        COMPONENT,
        spec.milvus.image or images.milvus,
        pull_policy=images.pull_policy,
        command=["milvus-lite", "server", "--data-dir", DATA_DIRECTORY],
        # "[::]" accepts both families; on a machine without IPv6, gRPC falls back to IPv4 by itself.
        args=["--host", "[::]", "--port", str(contract.PORT_MILVUS)],
        ports=[{"name": "grpc", "containerPort": contract.PORT_MILVUS, "protocol": "TCP"}],
        resources=RESOURCES,
        startupProbe={**probe, "failureThreshold": 60},
        readinessProbe={**probe, "failureThreshold": 2},
        livenessProbe={**probe, "periodSeconds": 20, "failureThreshold": 3},
        volumeMounts=[{"name": "data", "mountPath": DATA_DIRECTORY}, *mounts],
    )
