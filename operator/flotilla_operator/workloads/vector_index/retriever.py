"""The retriever: a Deployment behind the Service `NAME-retriever`.

Its pods read the token of Milvus and the key of the embedder from environment variables, only at start, so a
new value of these secrets replaces the pods. The keys of callers, and whether searches without one are
answered, are in mounted files, which are read again when they change.
"""

from collections.abc import Mapping

from flotilla_operator.api.model_replica_set import ModelReplicaSetSpec
from flotilla_operator.api.vector_index import VectorIndexSpec
from flotilla_operator.objects.owners import Owner
from flotilla_operator.objects.resources import Manifest
from flotilla_operator.workloads import objects
from flotilla_operator.workloads.images import Images
from flotilla_operator.workloads.ingress import from_everybody
from flotilla_operator.workloads.labels import Child
from flotilla_operator.workloads.pod_options import with_memory_limit, with_options
from flotilla_operator.workloads.pod_security import scratch
from flotilla_operator.workloads.template_parts import TemplatePart
from flotilla_operator.workloads.vector_index.identity import EmbedderModel, alias_name
from flotilla_operator.workloads.vector_index.milvus import milvus_connection
from flotilla_operator.workloads.vector_index.retriever_key import retriever_key
from flotilla_runtime import contract

COMPONENT = "retriever"
RESOURCES = {"requests": {"cpu": "50m", "memory": "192Mi"}}
MEMORY = "768Mi"  # for as many connections as it holds
LEAVE_SECONDS = 5  # a terminating pod still answers for this time, because callers still send requests to it


def retriever(owner: Owner) -> Child:
    """The retriever's objects: `NAME-retriever`."""
    return Child(owner=owner, component=COMPONENT, suffix="retriever")


def retriever_url(owner: Owner) -> str:
    """The URL for queries."""
    return f"http://{retriever(owner).name}.{owner.namespace}.svc:{contract.PORT_RETRIEVER}/v1/retrieve"


def retriever_config(
    owner: Owner, spec: VectorIndexSpec, embedder: EmbedderModel | None
) -> contract.RetrieverConfig:
    """The configuration of the retriever, which reads from the live generation who embeds, and not where."""
    name = spec.embedding.model_ref.name
    plain, _ = contract.router_urls(name, owner.namespace)
    url = embedder.url if embedder is not None else plain
    return contract.RetrieverConfig(
        index=owner.name,
        namespace=owner.namespace,
        embedder=contract.EmbedderAddress(model_ref=name, url=url),
        milvus=milvus_connection(owner, spec),
        alias=alias_name(owner),
        top_k=spec.retriever.top_k,
        deadline_milliseconds=spec.retriever.deadline_milliseconds,
        caller_keys_directory=contract.CALLER_KEYS_DIRECTORY,
    )


def keys_secret(owner: Owner, spec: VectorIndexSpec) -> str:
    """The name of the secret with the keys of callers."""
    named = spec.retriever.auth_secret_ref
    return named.name if named is not None else retriever_key(owner).name


def retriever_objects(
    owner: Owner,
    spec: VectorIndexSpec,
    images: Images,
    embedder: EmbedderModel | None,
    secret_versions: Mapping[str, str],
    *,
    keyless: bool,
) -> list[Manifest]:
    """ConfigMap, Service, NetworkPolicy, PodDisruptionBudget, Deployment.

    `secret_versions` is by environment variable. `keyless` says that searches without a key are answered.
    """
    part = retriever(owner)
    data = objects.config_file(retriever_config(owner, spec, embedder))
    keyless_file = {contract.KEYLESS_FILE: contract.KEYLESS} if keyless else {}
    service = spec.retriever.service
    pod = _pod_parts(
        part,
        images,
        keys_secret(owner, spec),
        [
            *secret_environment(owner, spec, embedder.spec if embedder else None),
            *images.proxies.variables(milvus_connection(owner, spec).uri),
        ],
        objects.config_hash_annotation(data, secret_versions),
    )
    workload = with_options(
        objects.deployment(part, replicas=spec.retriever.replicas, parts=pod), spec.retriever.pod
    )
    return [
        objects.config_map(part, data={**data, **keyless_file}),
        objects.service(
            part,
            selector=part.selector,
            ports=[objects.Port(name="http", number=contract.PORT_RETRIEVER)],
            type_=service.type.value,
            annotations=service.annotations,
        ),
        objects.network_policy(
            part, selector=part.selector, ingress=[from_everybody(contract.PORT_RETRIEVER)]
        ),
        objects.pod_disruption_budget(
            part, selector=part.selector, min_available=max(0, spec.retriever.replicas - 1)
        ),
        with_memory_limit(workload, MEMORY) if TemplatePart.RETRIEVER_MEMORY in images.parts else workload,
    ]


def secret_environment(
    owner: Owner, spec: VectorIndexSpec, embedder: ModelReplicaSetSpec | None
) -> list[Manifest]:
    """The variables from secrets: Milvus' token, and the key of this index for the embedder's router."""
    environment = []
    token = spec.milvus.token_secret_ref
    if token is not None:
        environment.append(_from_secret(contract.ENV_MILVUS_TOKEN, token.name, token.key))
    keys = embedder.router.auth_secret_ref if embedder is not None else None
    if keys is not None:
        environment.append(_from_secret(contract.ENV_EMBEDDER_KEY, keys.name, caller_entry(owner)))
    return environment


def caller_entry(owner: Owner) -> str:
    """The entry of a router's secret of keys that belongs to this index."""
    return f"vectorindex-{owner.name}"


def _from_secret(variable: str, name: str, key: str) -> Manifest:
    return {"name": variable, "valueFrom": {"secretKeyRef": {"name": name, "key": key}}}


def _pod_parts(
    part: Child, images: Images, keys: str, environment: list[Manifest], annotations: dict[str, str]
) -> objects.PodParts:
    config_volume, config_mount = objects.config_volume(part.name)
    volumes, mounts = scratch({"tmp": "/tmp"})  # noqa: S108 (an emptyDir)
    keys_mount = {"name": "keys", "mountPath": contract.CALLER_KEYS_DIRECTORY, "readOnly": True}
    container = objects.container(
        COMPONENT,
        images.runtime,
        pull_policy=images.pull_policy,
        args=["flotilla_runtime.retrieval"],
        env=environment,
        ports=[{"name": "http", "containerPort": contract.PORT_RETRIEVER, "protocol": "TCP"}],
        resources=RESOURCES,
        startupProbe=_probe("/healthz", period_seconds=2, failures=60),
        readinessProbe=_probe("/readyz", period_seconds=2, failures=3),
        livenessProbe=_probe("/healthz", period_seconds=10, failures=3),
        lifecycle={"preStop": {"sleep": {"seconds": LEAVE_SECONDS}}},
        volumeMounts=[config_mount, keys_mount, *mounts],
    )
    return objects.PodParts(
        containers=[container],
        volumes=[config_volume, {"name": "keys", "secret": {"secretName": keys}}, *volumes],
        annotations=annotations,
        image_pull_secrets=images.pull_secrets,
    )


def _probe(path: str, *, period_seconds: int, failures: int) -> Manifest:
    return {
        "httpGet": {"path": path, "port": "http"},
        "periodSeconds": period_seconds,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }
