"""The Jobs of a build (plan, an Indexed Job for the shards, promote), their ConfigMap and their workspace.

A Job's template cannot be changed, so its name contains the id of what it runs, and it is created once. Pods
of a build have no Kubernetes token; they report with their termination messages. Only the plan step mounts
the model's files, for the tokenizer, and only the plan and the shards mount the documents.

A name can come back when the spec is changed back. The plan step gets the UID of its Job, so that it can tell
the files of an earlier Job with the same name from those of an earlier pod of its own Job.
"""

from collections.abc import Sequence

from flotilla_operator.api.parts import ResourceRequirements
from flotilla_operator.api.vector_index import VectorIndexSpec
from flotilla_operator.objects.owners import Owner
from flotilla_operator.objects.quantities import quantity
from flotilla_operator.objects.resources import Manifest
from flotilla_operator.workloads import objects
from flotilla_operator.workloads.images import Images
from flotilla_operator.workloads.labels import Child
from flotilla_operator.workloads.model_source import ClaimSource, HubSource, parse_source
from flotilla_operator.workloads.node_cache import hub_url
from flotilla_operator.workloads.pod_options import with_options
from flotilla_operator.workloads.pod_security import scratch
from flotilla_operator.workloads.vector_index.identity import (
    INDEX_TYPES,
    METRICS,
    EmbedderModel,
    alias_name,
    collection_name,
    collection_prefix,
    index_parameters,
)
from flotilla_operator.workloads.vector_index.milvus import milvus_connection
from flotilla_operator.workloads.vector_index.retriever import secret_environment
from flotilla_operator.workloads.vector_index.source import document_source
from flotilla_operator.workloads.vector_index.steps import (
    WantedBuild,
    job_name,
    step_annotations,
    step_labels,
)
from flotilla_runtime import contract
from flotilla_runtime.contract import BuildStep

COMPONENT = "build"
REQUESTS = {"cpu": "100m", "memory": "512Mi"}
MEMORY_LIMIT = "2Gi"
TRIES = 3
STOP_SECONDS = 10
JOB_UID = "JOB_UID"
JOB_UID_LABEL = "batch.kubernetes.io/controller-uid"  # set by the Job controller on every pod of a Job
HUB_ENDPOINT = "HF_ENDPOINT"  # the plan step fetches the tokenizer from the same hub as the engine its model


def builds(owner: Owner) -> Child:
    """All pods of all builds as one part."""
    return Child(owner=owner, component=COMPONENT, suffix="build")


def build_policy(owner: Owner) -> Manifest:
    """Nobody may connect to the pods of a build."""
    part = builds(owner)
    return objects.network_policy(part, selector=part.selector, ingress=[])


def workspace_name(owner: Owner, spec: VectorIndexSpec) -> str:
    """The name of the claim that the steps of a build share."""
    return spec.build.workspace.claim_name or _workspace(owner).name


def workspace_claim(owner: Owner, spec: VectorIndexSpec) -> Manifest | None:
    """The claim that the operator makes; None when the spec names one."""
    workspace = spec.build.workspace
    if workspace.claim_name is not None:
        return None
    return objects.persistent_volume_claim(
        _workspace(owner),
        size=str(workspace.size),
        storage_class=workspace.storage_class_name,
        owned=True,
    )


def build_config(
    owner: Owner, spec: VectorIndexSpec, embedder: EmbedderModel, build: WantedBuild
) -> contract.BuildConfig:
    """The configuration of the steps."""
    model = parse_source(embedder.spec.model.source, embedder.spec.model.revision)
    on_hub = isinstance(model, HubSource)
    return contract.BuildConfig(
        build=build.run,
        generation=build.generation,
        source=contract.SourceConfig(
            root=document_source(spec.source.path).root,
            uri=spec.source.path,
            include=spec.source.include,
            exclude=spec.source.exclude,
            max_document_mib=spec.processing.max_document_mib,
        ),
        chunking=contract.ChunkingConfig(
            chunk_tokens=spec.processing.chunk_tokens, overlap_tokens=spec.processing.overlap_tokens
        ),
        embedder=contract.Embedder(
            model_ref=embedder.name,
            url=embedder.url,
            model=embedder.spec.model.name,
            identity=embedder.identity,
            dimension=spec.embedding.dimension,
            batch_size=spec.embedding.batch_size,
            normalize=spec.embedding.normalize,
            tokenizer_repository=model.repository if isinstance(model, HubSource) else None,
            tokenizer_revision=embedder.spec.model.revision if on_hub else None,
        ),
        milvus=milvus_connection(owner, spec),
        collection=contract.CollectionConfig(
            name=collection_name(owner, build.generation),
            alias=alias_name(owner),
            prefix=collection_prefix(owner),
            index_type=INDEX_TYPES[spec.index.type],
            metric=METRICS[spec.index.metric],
            parameters=index_parameters(spec),
        ),
        shard_documents=spec.build.shard_documents,
        max_failed_percent=spec.build.max_failed_percent,
        require_count_parity=spec.gate.count_parity,
        keep_generations=spec.retention.generations,
        workspace=f"{contract.WORKSPACE_DIRECTORY}/{alias_name(owner)}",  # the claim may serve other indexes
    )


def build_config_map(
    owner: Owner, spec: VectorIndexSpec, embedder: EmbedderModel, build: WantedBuild
) -> Manifest:
    """The ConfigMap of one attempt. Each attempt has its own, so no pod reads that of another attempt."""
    text = objects.json_text(build_config(owner, spec, embedder, build).model_dump(mode="json"))
    manifest = objects.config_map(_of_run(owner, build), data={"config.json": text})
    manifest["metadata"]["labels"][contract.LABEL_BUILD] = build.run
    return manifest


def build_job(
    owner: Owner,
    spec: VectorIndexSpec,
    images: Images,
    embedder: EmbedderModel,
    build: WantedBuild,
    step: BuildStep,
    shards: int = 1,
) -> Manifest:
    """The Job of one step; `shards` is used only for the shards step."""
    labels = {**builds(owner).labels, **step_labels(step, build)}
    job: Manifest = {
        "backoffLimit": TRIES,
        "podFailurePolicy": {"rules": _failure_rules(step)},
        "template": {
            "metadata": {"labels": labels},
            "spec": _pod_spec(owner, spec, images, embedder, build, step),
        },
    }
    if step is BuildStep.SHARDS:
        del job["backoffLimit"]
        job |= {
            "completionMode": "Indexed",
            "completions": shards,
            "parallelism": min(spec.build.parallelism, shards),
            "backoffLimitPerIndex": TRIES,
        }
    manifest = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": job_name(owner, step, build),
            "namespace": owner.namespace,
            "labels": labels,
            "annotations": step_annotations(build),
            "ownerReferences": [owner.reference],
        },
        "spec": job,
    }
    return with_options(manifest, spec.build.pod)


def _workspace(owner: Owner) -> Child:
    return Child(owner=owner, component="workspace", suffix="workspace")


def _of_run(owner: Owner, build: WantedBuild) -> Child:
    return Child(owner=owner, component=COMPONENT, suffix=f"build-{build.run}")


def _failure_rules(step: BuildStep) -> list[Manifest]:
    """Do not retry failures that need a person, and do not count pods that the cluster disrupted."""
    exit_codes = {"containerName": str(step), "operator": "In", "values": [contract.EXIT_PERMANENT]}
    return [
        {"action": "FailJob", "onExitCodes": exit_codes},
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
    ]


def _pod_spec(
    owner: Owner,
    spec: VectorIndexSpec,
    images: Images,
    embedder: EmbedderModel,
    build: WantedBuild,
    step: BuildStep,
) -> Manifest:
    volumes, mounts = scratch({"tmp": "/tmp"})  # noqa: S108 (an emptyDir)
    config_volume, config_mount = objects.config_volume(_of_run(owner, build).name)
    volumes += [
        config_volume,
        {"name": "workspace", "persistentVolumeClaim": {"claimName": workspace_name(owner, spec)}},
    ]
    mounts += [config_mount, {"name": "workspace", "mountPath": contract.WORKSPACE_DIRECTORY}]
    args = ["flotilla_runtime.indexing", str(step)]
    if step is not BuildStep.PROMOTE:
        volumes.append(document_source(spec.source.path).volume)
        mounts.append({"name": "source", "mountPath": contract.SOURCE_DIRECTORY, "readOnly": True})
    if step is BuildStep.PROMOTE:
        args += ["--index-uid", owner.uid]
    environment = secret_environment(owner, spec, embedder.spec)
    if step is BuildStep.SHARDS:
        environment.append(_memory_limit())
    addresses = [milvus_connection(owner, spec).uri]
    if step is BuildStep.PLAN:
        environment += [_job_uid(), *_hub_environment(embedder)]
        args += ["--job", f"$({JOB_UID})"]
        model = parse_source(embedder.spec.model.source, embedder.spec.model.revision)
        if isinstance(model, ClaimSource):
            claim = {"claimName": model.claim, "readOnly": True}
            volumes.append({"name": "model", "persistentVolumeClaim": claim})
            mounts.append({"name": "model", "mountPath": contract.TOKENIZER_DIRECTORY, "readOnly": True})
            args += ["--tokenizer", f"{contract.TOKENIZER_DIRECTORY}/{model.folder}".rstrip("/")]
        else:
            addresses.append(hub_url(embedder.spec))
    container = objects.container(
        str(step),
        images.runtime,
        pull_policy=images.pull_policy,
        args=args,
        env=[*environment, *images.proxies.variables(*addresses)],
        resources=_resources(spec.build.resources),
        volumeMounts=mounts,
    )
    pod = objects.pod_spec(
        objects.PodParts(
            containers=[container],
            volumes=volumes,
            termination_grace_seconds=STOP_SECONDS,
            image_pull_secrets=images.pull_secrets,
        )
    )
    pod["restartPolicy"] = "Never"
    if not build.shared_workspace:
        pod["affinity"] = _same_node(builds(owner))
    return pod


def _resources(own: ResourceRequirements) -> Manifest:
    """Complete the user's resources with defaults: a document may not take a node's memory.

    Kubernetes requests what is limited, where nothing else is requested.
    """
    asked = own.manifest()
    limits = asked.get("limits") or {}
    defaults = {name: least for name, least in REQUESTS.items() if name not in limits}
    requests = {**defaults, **(asked.get("requests") or {})}
    if "memory" not in limits:
        limits = {**limits, "memory": max(MEMORY_LIMIT, requests["memory"], key=quantity)}
    return {"limits": limits, **({"requests": requests} if requests else {})}


def _job_uid() -> Manifest:
    field = {"apiVersion": "v1", "fieldPath": f"metadata.labels['{JOB_UID_LABEL}']"}
    return {"name": JOB_UID, "valueFrom": {"fieldRef": field}}


def _memory_limit() -> Manifest:
    """The container's memory limit in bytes; without one, what the node can allocate."""
    field = {"resource": "limits.memory", "divisor": "1"}
    return {"name": contract.ENV_MEMORY_LIMIT, "valueFrom": {"resourceFieldRef": field}}


def _hub_environment(embedder: EmbedderModel) -> Sequence[Manifest]:
    """The variables with which the plan step fetches the tokenizer as the engine fetches its model."""
    environment: list[Manifest] = [
        variable.manifest() for variable in embedder.spec.engine.env if variable.name == HUB_ENDPOINT
    ]
    token = embedder.spec.model.token_secret_ref
    if token is not None:
        reference = {"secretKeyRef": {"name": token.name, "key": token.key}}
        environment.append({"name": contract.ENV_HUB_TOKEN, "valueFrom": reference})
    return environment


def _same_node(part: Child) -> Manifest:
    """The affinity that keeps a build's pods on one node, for a claim to which only one node can write."""
    term = {"labelSelector": {"matchLabels": part.selector}, "topologyKey": "kubernetes.io/hostname"}
    return {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
