"""The kind ModelReplicaSet: a model that is served by replicas behind a router."""

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from flotilla_operator.api.base import ApiModel, MapList, NotYet, NotYetReported, NotYetValues, Rule, rules
from flotilla_operator.api.parts import (
    CLAIM_FOLDER,
    NO_FOLDER_ABOVE,
    Annotations,
    ApiObject,
    Conditions,
    Count,
    Environment,
    ImageReference,
    LabelKey,
    Labels,
    LabelValue,
    LongText,
    ObjectName,
    ObjectRef,
    PartName,
    ResourceRequirements,
    SecretRef,
    ServiceOptions,
    ShortText,
    Status,
    Time,
    Tls,
    TokenSecretRef,
    Toleration,
    VolumeMounts,
    Volumes,
)
from flotilla_operator.api.pods import PodOptionsWithResources, PodRules

MODEL_NAME = r"^[A-Za-z0-9]([-A-Za-z0-9._:/]*[A-Za-z0-9])?$"
HUB_NAME = "[A-Za-z0-9_]([-A-Za-z0-9._]*[A-Za-z0-9_])?"  # the hub's own form, which excludes `.` and `..`
HUB_OR_CLAIM = f"self.matches('^hf://{HUB_NAME}/{HUB_NAME}$') || self.matches('{CLAIM_FOLDER}')"
SOURCE_FORM = f"{HUB_OR_CLAIM} || self.startsWith('image://')"
REMOVE_AUTOSCALING = "remove it, or remove spec.autoscaling and let your own autoscaler set spec.replicas"
RevisionText = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[-A-Za-z0-9._/]+$")]


class Task(StrEnum):
    """Task of a model."""

    GENERATE = "Generate"
    EMBED = "Embed"


class KvCacheDtype(StrEnum):
    """The number format of the KV cache."""

    AUTO = "Auto"
    FP8 = "FP8"
    FP8_E4M3 = "FP8E4M3"
    FP8_E5M2 = "FP8E5M2"


class SpeculativeMethod(StrEnum):
    """How speculative decoding proposes tokens."""

    N_GRAM = "NGram"
    DRAFT = "Draft"
    EAGLE = "Eagle"


class CacheMode(StrEnum):
    """Where fetched models are stored."""

    NONE = "None"
    CLAIM = "Claim"
    NODE = "Node"


class NodeProvisioningMode(StrEnum):
    """How a node autoscaler is asked for nodes."""

    NONE = "None"
    PLACEHOLDERS = "Placeholders"


class AutoscalingMode(StrEnum):
    """Whether the autoscaler sets the number of replicas or only reports it."""

    ACTIVE = "Active"
    ADVISORY = "Advisory"


class Model(ApiModel):
    """The model to serve."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                rule="!has(oldSelf.task) || (has(self.task) && self.task == oldSelf.task)",
                message="spec.model.task cannot be changed; create another ModelReplicaSet for the "
                "other task",
            ),
            Rule(
                rule="!self.source.startsWith('pvc://') || "
                "(!has(self.revision) && !has(self.tokenSecretRef))",
                message="spec.model.revision and spec.model.tokenSecretRef are for hf:// sources only; "
                "remove them",
            ),
        )
    )

    name: Annotated[str, Field(min_length=1, max_length=253, pattern=MODEL_NAME)]
    """Name of the model. Callers send it as `model` in their requests."""
    source: Annotated[
        str,
        Field(min_length=1, max_length=512),
        Rule(
            rule=SOURCE_FORM,
            message="spec.model.source must be hf://organisation/name or pvc://claim/folder",
        ),
        Rule(
            rule=NO_FOLDER_ABOVE,
            message="spec.model.source must not contain a folder named ..; write the path without it",
        ),
        NotYetValues(
            values=("image://",),
            rule="!self.startsWith('image://')",
            message="spec.model.source with image:// is not yet supported; use hf:// or pvc://",
            promise="Takes the model's files from an OCI image, which nodes store like any other image.",
        ),
    ]
    """Where the model's files come from: `hf://organisation/name` (a repository of the Hugging Face hub) or
    `pvc://claim/folder` (a folder of a PersistentVolumeClaim in the same namespace, which is only read). Not
    yet supported: `image://`."""
    revision: (
        Annotated[
            RevisionText,
            Rule(
                rule="!self.contains('..')",
                message="spec.model.revision must not contain ..; name a branch, a tag or a commit",
            ),
        ]
        | None
    ) = None
    """Branch, tag or commit on the hub, for hf:// sources. Absent: the head of the main branch at the time
    when a replica starts. Name a commit if all replicas must have the same files."""
    token_secret_ref: TokenSecretRef | None = None
    """Secret with a token of the hub, for gated and private models. Absent: no token is sent."""
    task: Task = Task.GENERATE
    """Generate: the model writes answers. Embed: the model turns texts into vectors. It cannot be changed."""


class Speculative(ApiModel):
    """Speculative decoding: a cheap method proposes tokens, and the model checks them in one step."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                rule="(self.method == 'NGram') != has(self.model)",
                message="spec.engine.speculative.model is required with method Draft or Eagle and not "
                "allowed with NGram; set or remove it, or change the method",
            )
        )
    )

    method: SpeculativeMethod
    """How tokens are proposed. NGram: looked up in the prompt. Draft: by a smaller model. Eagle: by a head
    that was trained for this model."""
    model: (
        Annotated[
            str,
            Field(min_length=1, max_length=512),
            Rule(
                rule=HUB_OR_CLAIM,
                message="spec.engine.speculative.model must be hf://organisation/name or pvc://claim/folder",
            ),
            Rule(
                rule=NO_FOLDER_ABOVE,
                message="spec.engine.speculative.model must not contain a folder named ..; write the path "
                "without it",
            ),
        ]
        | None
    ) = None
    """Where the files of the draft model or Eagle head come from: `hf://organisation/name` or
    `pvc://claim/folder`. Required with Draft and Eagle, not allowed with NGram."""
    num_tokens: Annotated[int, Field(ge=1, le=16)] = 4
    """How many tokens are proposed at a time."""


class Adapter(ApiModel):
    """A LoRA adapter that is served beside the model."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                rule="!self.source.startsWith('pvc://') || !has(self.revision)",
                message="spec.engine.adapters[].revision is for hf:// sources only; remove it",
            )
        )
    )

    name: PartName
    """Name of the adapter. Callers send it as `model` in their requests. It must differ from
    `spec.model.name`."""
    source: Annotated[
        str,
        Field(min_length=1, max_length=512),
        Rule(
            rule=HUB_OR_CLAIM,
            message="spec.engine.adapters[].source must be hf://organisation/name or pvc://claim/folder",
        ),
        Rule(
            rule=NO_FOLDER_ABOVE,
            message="spec.engine.adapters[].source must not contain a folder named ..; write the path "
            "without it",
        ),
    ]
    """Where the adapter's files come from: `hf://organisation/name` or `pvc://claim/folder`. They must be in
    the format of the PEFT library."""
    revision: (
        Annotated[
            RevisionText,
            Rule(
                rule="!self.contains('..')",
                message="spec.engine.adapters[].revision must not contain ..; name a branch, a tag or a "
                "commit",
            ),
        ]
        | None
    ) = None
    """Branch, tag or commit on the hub, for hf:// sources. Absent: the head of the main branch at the time
    when a replica starts."""
    rank: Annotated[int, Field(ge=1, le=512)] = 16
    """Rank of the adapter (`r` in its `adapter_config.json`) or a higher number. The highest rank in the list
    decides how much memory the engine reserves for adapters."""


class Engine(ApiModel):
    """The settings of the vLLM engine in each replica."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                rule="self.chunkedPrefill || has(self.maxModelLen) || self.maxNumSeqs * "
                "(has(self.speculative) && has(self.adapters) ? 1 + self.speculative.numTokens : 1) <= 2048",
                message="spec.engine.chunkedPrefill false needs spec.engine.maxModelLen if "
                "spec.engine.maxNumSeqs is above 2048 (with both speculative and adapters: if maxNumSeqs "
                "times (1 + numTokens) is above 2048); set maxModelLen, or lower maxNumSeqs",
            ),
            Rule(
                rule="!has(self.speculative) || !has(self.maxModelLen) || "
                "self.maxModelLen > self.speculative.numTokens",
                message="spec.engine.maxModelLen must be more than spec.engine.speculative.numTokens; raise "
                "maxModelLen, or lower numTokens",
            ),
            Rule(
                rule="!has(self.extraArgs) || !self.extraArgs.exists(argument, "
                "argument.startsWith('--api-key') || argument.startsWith('--api_key'))",
                message="spec.engine.extraArgs must not contain --api-key, because the engines would then "
                "refuse the key that the routers send; to ask callers for keys, set "
                "spec.router.authSecretRef",
            ),
            Rule(
                rule="!has(self.extraArgs) || !self.extraArgs.exists(argument, "
                "argument == '--model' || argument.startsWith('--model='))",
                message="spec.engine.extraArgs must not contain --model; set spec.model.source instead",
            ),
        )
    )

    image: ImageReference | None = None
    """Container image of the engine. Its entrypoint must be `vllm serve`, as in vLLM's own images. Absent:
    the chart's `images.engine`, or its `images.engineCPU` for a set without `spec.accelerator`."""
    max_model_len: Annotated[int, Field(ge=16, le=10_000_000)] | None = None
    """Longest sequence, in tokens: a prompt and its answer together. Absent: the model's own maximum."""
    max_num_seqs: Annotated[int, Field(ge=1, le=4096)] = 48
    """How many sequences one replica computes at the same time. The router sends a replica up to 10 % more
    requests, so that the next one is there when a sequence ends."""
    kv_cache_dtype: KvCacheDtype = KvCacheDtype.AUTO
    """Number format of the KV cache. Auto: the model's own. FP8: 8 bits, which halves the memory of a
    sequence compared with 16 bits. FP8E4M3 and FP8E5M2 name the 8-bit format; FP8E5M2 has a wider range and
    fewer digits, and does not work on AMD accelerators."""
    prefix_caching: bool = True
    """Whether the KV cache of prompts is kept, so that a later request with the same beginning does not
    compute it again."""
    chunked_prefill: bool = True
    """Whether long prompts are computed in parts, so that they do not delay the answers of other requests."""
    speculative: Speculative | None = None
    """Speculative decoding: a cheap method proposes several tokens, and the model checks all of them in one
    step. Absent: off."""
    kv_offload_gib: Annotated[float, Field(ge=0, le=100_000)] = Field(default=0, alias="kvOffloadGiB")
    """Memory of the node that holds the KV cache of idle sessions (conversations), in GiB, for all
    accelerators of one pod together. 0 turns it off. The pod's memory limit must leave room for it."""
    adapters: Annotated[tuple[Adapter, ...], MapList("name"), Field(max_length=64)] = ()
    """LoRA adapters that are served beside the model. Callers choose one by sending its name as `model`."""
    extra_args: Annotated[tuple[LongText, ...], Field(max_length=64)] = ()
    """Additional arguments of `vllm serve`. They come last, so they override those that Flotilla sets."""
    env: Environment = ()
    """Environment variables (core/v1) of the engine. The container that fetches the model gets of them
    proxies, paths of authorities, and those whose names begin with `HF_`."""
    resources: ResourceRequirements = ResourceRequirements()
    """Resource requests and limits (core/v1) of the engine's container. Flotilla adds the accelerators.
    Absent: only the accelerators are requested."""


class Parallelism(ApiModel):
    """How one replica divides the model among accelerators and pods."""

    tensor: Annotated[int, Field(ge=1, le=16)] = 1
    """Tensor parallelism: how many accelerators of one node compute each layer together. It must divide the
    number of the model's attention heads. It must also divide the number of its key-value heads, or be a
    multiple of it."""
    pipeline: Annotated[int, Field(ge=1, le=16)] = 1
    """Pipeline parallelism: into how many stages the model's layers are divided. A stage is a pod with
    `tensor` accelerators on one node. The pods of a replica are a group: they start and end together. With
    `spec.accelerator`, they are also placed together or not at all."""


class DeviceClass(ApiModel):
    """Accelerators that Dynamic Resource Allocation assigns."""

    name: ObjectName
    """Name of the DeviceClass."""
    attributes: Annotated[dict[LabelKey, LabelValue], Field(max_length=32)] = Field(default_factory=dict)
    """Attributes that a device must have, by name: `domain/name`, or `name` for an attribute of the class's
    driver. `true`, `false` and whole numbers are compared as booleans and numbers, other values as
    strings."""


class Accelerator(ApiModel):
    """The accelerators that replicas run on."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                rule="has(self.resource) != has(self.deviceClass)",
                message="spec.accelerator needs exactly one of resource and deviceClass; "
                "set one of them, or remove spec.accelerator to run on CPUs",
            )
        )
    )

    resource: Annotated[str, Field(min_length=1, max_length=253)] | None = None
    """Extended resource that a device plugin offers, for example `nvidia.com/gpu`. Exactly one of `resource`
    and `deviceClass` is required."""
    device_class: DeviceClass | None = None
    """DeviceClass, for accelerators that Dynamic Resource Allocation assigns (Kubernetes 1.34 or newer).
    Exactly one of `resource` and `deviceClass` is required."""
    products: Annotated[tuple[LabelValue, ...], Field(max_length=16)] = ()
    """Accelerator products that may be used, for example NVIDIA-H100-80GB-HBM3. They are compared with the
    node labels in the chart's `labels.gpuProducts`, by default `nvidia.com/gpu.product`,
    `amd.com/gpu.product-name` and `cloud.google.com/gke-accelerator`. Empty: every product."""
    memory_gib: Annotated[float, Field(gt=0, le=10_000)] | None = Field(default=None, alias="memoryGiB")
    """Memory of one accelerator, in GiB. With it Flotilla computes whether the model fits, and the condition
    SpecValid reports a model that does not. Absent: what the label `nvidia.com/gpu.memory` of the nodes
    says."""


class NodeProvisioning(ApiModel):
    """How a node autoscaler is asked for nodes for replicas that do not fit."""

    mode: NodeProvisioningMode = NodeProvisioningMode.NONE
    """None: no nodes are asked for. Placeholders: placeholder pods of low priority, which request the same
    resources as the replica, make the node autoscaler add nodes."""
    timeout_seconds: Annotated[int, Field(ge=60, le=86_400)] = 900
    """How long placeholder pods may exist for a replica that still does not fit, in seconds. After that they
    are deleted and created again later, after pauses that grow up to an hour."""


class Placement(ApiModel):
    """The nodes that replicas may and should run on."""

    pack_pipeline_within: LabelKey | None = None
    """Node label, for example of a rack, whose value should be the same for all stages of a replica. It has
    no effect without `spec.accelerator`. Absent: the narrowest topology level that has room is used."""
    spread_replicas_across: LabelKey | None = None
    """Node label, for example of a zone, over whose values replicas should be distributed evenly. It has no
    effect without `spec.accelerator`. Absent: they are not distributed."""
    required: bool = False
    """Whether `packPipelineWithin` and `spreadReplicasAcross` are required. If true, a replica waits until
    both can be met. If false, they are preferences. It has no effect without `spec.accelerator`."""
    node_selector: Labels = Field(default_factory=dict)
    """Labels that a node must have (core/v1)."""
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=32)] = ()
    """Taints that engine pods tolerate (core/v1). With `spec.accelerator` they also tolerate NoSchedule
    taints with the name of its `resource`, and those in the chart's `placement.tolerations`."""
    priority_class_name: ObjectName | None = None
    """PriorityClass of engine pods. Waiting replicas of higher priority are placed first. Absent: the
    cluster's default priority."""
    node_provisioning: NodeProvisioning | None = None
    """How a node autoscaler is asked for nodes for replicas that do not fit. It has no effect without
    `spec.accelerator`. Absent: it is not asked."""


class Slo(ApiModel):
    """The service level objective (SLO) of the model."""

    ttft_seconds: Annotated[float, Field(gt=0, le=3600)] | None = None
    """Longest time to first token, in seconds. It is measured from when a replica gets the request until it
    sends the headers of its answer, which for a stream may be before the first token. Time in the router's
    queue does not count. Absent: not part of the SLO."""
    tpot_seconds: Annotated[
        Annotated[float, Field(gt=0, le=60)] | None, NotYet("use ttftSeconds and e2eSeconds")
    ] = None
    """Longest time per output token after the first, in seconds."""
    e2e_seconds: Annotated[float, Field(gt=0, le=86_400)] | None = None
    """Longest time from the arrival of a request at the router until the last byte of its answer, in seconds.
    Time in the router's queue counts. Absent: not part of the SLO."""
    attainment: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Share of answers, from 0 to 1, that must meet the times above. An answer with a 5xx status does not
    meet them."""
    window_seconds: Annotated[
        Annotated[int, Field(ge=10, le=86_400)] | None,
        NotYet("remove it, attainment is computed over half an hour"),
    ] = None
    """Period over which attainment is computed, in seconds."""


class QueueDepth(ApiModel):
    """Scaling by the number of waiting requests."""

    waiting_per_replica: Annotated[float, Field(gt=0, le=10_000)] = 4
    """How many requests may wait for each replica before replicas are added."""
    max_wait_seconds: Annotated[float, Field(gt=0, le=3600)] = 2
    """How long a request may wait before replicas are added, in seconds."""


class Goodput(ApiModel):
    """Scaling by the share of answers that meet `spec.slo`."""


class ScaleUp(ApiModel):
    """How fast replicas are added."""

    max_step: Annotated[int, Field(ge=1, le=1000)] = 8
    """How many replicas may be added at a time."""


class ScaleDown(ApiModel):
    """How fast replicas are removed."""

    quiet_seconds: Annotated[int, Field(ge=0, le=86_400)] = 300
    """How long fewer replicas must have been enough before one is removed, in seconds."""
    max_step: Annotated[int, Field(ge=1, le=1000)] = 1
    """How many replicas may be removed at a time."""


class Autoscaling(ApiModel):
    """Automatic control of the number of replicas."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                rule="self.minReplicas <= self.maxReplicas",
                message="spec.autoscaling.minReplicas must not be greater than spec.autoscaling.maxReplicas; "
                "lower minReplicas, or raise maxReplicas",
            ),
            Rule(
                rule="self.minReplicas == 0",
                message="spec.autoscaling.minReplicas must be 0, because other values are not yet supported; "
                "set it to 0 (without it, it is 1), or remove spec.autoscaling and set spec.replicas",
            ),
            Rule(
                rule="!has(self.scaleToZeroAfterSeconds) || self.minReplicas == 0",
                message="spec.autoscaling.scaleToZeroAfterSeconds needs spec.autoscaling.minReplicas 0; set "
                "minReplicas to 0, or remove scaleToZeroAfterSeconds",
            ),
        )
    )

    min_replicas: Annotated[int, Field(ge=0, le=1000)] = 1
    """Lowest number of replicas. Set it to 0: this release refuses every other value, also the default. With
    0, the routers hold requests while there is no replica, and the first request makes Flotilla start one."""
    max_replicas: Annotated[int, Field(ge=1, le=1000)]
    """Highest number of replicas. This release never runs more than one."""
    queue_depth: Annotated[QueueDepth | None, NotYet(REMOVE_AUTOSCALING)] = None
    """Adds and removes replicas by the number of waiting requests."""
    goodput: Annotated[Goodput | None, NotYet(REMOVE_AUTOSCALING)] = None
    """Adds and removes replicas so that `spec.slo` is met."""
    scale_up: Annotated[ScaleUp | None, NotYet()] = None
    """How fast replicas are added."""
    scale_down: Annotated[ScaleDown | None, NotYet()] = None
    """How fast replicas are removed."""
    scale_to_zero_after_seconds: Annotated[int, Field(ge=1, le=604_800)] | None = None
    """How long all routers must have had no request before the replica is removed, in seconds. A replica also
    stays for this time after it became ready. Absent: a replica that was started is not removed."""
    mode: Annotated[AutoscalingMode | None, NotYet()] = None
    """Whether the autoscaler sets the number of replicas (Active) or only reports it (Advisory)."""


class Router(ApiModel):
    """The HAProxy pods in front of the replicas."""

    replicas: Annotated[int, Field(ge=1, le=50)] = 2
    """How many router pods run."""
    load_factor: Annotated[float, Field(gt=1, le=10)] = 1.25
    """Limit of a replica's load, as a multiple of the mean load of all replicas. Above it, requests of the
    replica's sessions go to another replica. A replica that runs less than half of the requests that it may
    run keeps its sessions."""
    queue_timeout_seconds: Annotated[int, Field(ge=1, le=3600)] = 60
    """How long a request may wait for a replica, in seconds. After that it is answered with 503 and
    Retry-After."""
    request_timeout_seconds: Annotated[int, Field(ge=1, le=86_400)] = 600
    """How long a replica may send nothing while it works on a request, in seconds. After that the router ends
    the request, with status 504 if the answer has not begun."""
    max_queue: Annotated[int, Field(ge=1, le=1_000_000)] = 1000
    """How many requests may wait in all routers together. Further requests are answered with 429 and
    Retry-After."""
    max_request_mib: Annotated[int, Field(ge=1, le=1024)] = 16
    """Largest body of a request, in MiB. A larger one is answered with 413."""
    auth_secret_ref: SecretRef | None = None
    """Secret with the keys of callers: the name of each entry is a caller, its value is the bearer token of
    that caller. An AgentFleet needs an entry `agentfleet-NAME` there, and a VectorIndex `vectorindex-NAME`. A
    change takes effect without a restart. Absent: everybody who reaches the service may call."""
    tls: Tls | None = None
    """Certificate with which the service speaks HTTPS (TLS 1.2 or newer) instead of HTTP. AgentFleets and
    VectorIndexes then call the plain-HTTP service `NAME-model-internal`. Absent: HTTP."""
    service: ServiceOptions = ServiceOptions()
    """Options of the service `NAME-model`, at which callers reach the model."""
    pod: Annotated[PodOptionsWithResources, PodRules("spec.router.pod", ("VLLM_API_KEY",))] = (
        PodOptionsWithResources()
    )
    """Options of the router pods, whose first container is HAProxy. A change replaces them one after
    another; each waits for its requests."""


class Drain(ApiModel):
    """How a replica is removed."""

    deadline_seconds: Annotated[int, Field(ge=0, le=86_400)] = 300
    """How long the requests of a draining replica may still run, in seconds. After that its pods are deleted
    even if requests are left."""


class Update(ApiModel):
    """How replicas are replaced."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                rule="self.maxSurge + self.maxUnavailable > 0",
                message="spec.update.maxSurge and spec.update.maxUnavailable must not both be 0, because no "
                "replica could be replaced; raise one of them",
            )
        )
    )

    max_surge: Annotated[int, Field(ge=0, le=100)] = 1
    """How many more replicas than desired may exist while replicas are replaced. Draining replicas count."""
    max_unavailable: Annotated[int, Field(ge=0, le=100)] = 0
    """How many fewer replicas than desired may be ready while replicas are replaced."""
    progress_deadline_seconds: Annotated[int, Field(ge=60, le=86_400)] = 1800
    """How long an update may make no progress before it fails, in seconds. Progress is a new replica that
    becomes ready or an old one that leaves. Time does not count while the update waits for room, an old
    replica drains, the desired number of replicas is 0 or the set is paused. With
    `autoscaling.scaleToZeroAfterSeconds`, a replica that is not ready is removed when the routers have had no
    request for the longer of the two times."""
    rollback: bool = True
    """Whether a failed update goes back to the last good revision. An update fails when it makes no progress.
    It can also fail once the new revision has given 50 answers. With `slo`, it fails if these answers miss
    `slo.attainment`, and either the old revision met it, or the new one's share of 5xx is more than 5
    percentage points higher. Without `slo`, it fails if more than 5 % of them are 5xx. When every replica is
    of the new revision, that revision is on trial: it can still fail until it has given 50 more answers, for
    half an hour at most."""


class Traffic(ApiModel):
    """Properties of the requests that callers send."""

    shared_prefix_tokens: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Length of the text that all prompts begin with, in tokens, for example a system prompt and descriptions
    of tools. `status.capacity.sequencesPerReplicaSharingPrefix` is computed with it. Absent: not known."""


class DisaggregatedPool(ApiModel):
    """The replicas of one phase."""

    replicas: Annotated[int, Field(ge=1, le=1000)] = 1
    """How many replicas run."""
    parallelism: Parallelism = Parallelism()
    """How one replica divides the model among accelerators and pods."""


class Disaggregation(ApiModel):
    """Separate replicas for prefill and decode."""

    prefill: DisaggregatedPool
    """Replicas that compute prompts."""
    decode: DisaggregatedPool
    """Replicas that compute answers."""


class ModelCache(ApiModel):
    """Where models that are fetched from the hub are stored."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                rule="(self.mode == 'Claim') == has(self.claimName)",
                message="spec.modelCache.claimName is required with spec.modelCache.mode Claim and not "
                "allowed with other modes; set claimName with mode Claim, and remove it with any other mode",
            )
        )
    )

    mode: CacheMode = CacheMode.NONE
    """None: every replica fetches the model for itself. Claim: replicas share the PersistentVolumeClaim
    `claimName`. Node: replicas on the same node share a part of the node's folder `path`, which is that of
    their namespace and hub; the chart's `modelCache.nodePaths` must list the path, and the namespace must
    admit pods of the pod security level `privileged`."""
    claim_name: ObjectName | None = None
    """Name of the claim. Required with mode Claim. With replicas on several nodes its access mode must be
    ReadWriteMany."""
    path: Annotated[str, Field(max_length=512, pattern=r"^/[^\s]*$")] = "/var/lib/flotilla/models"
    """Folder of the node, for mode Node, as the chart's `modelCache.nodePaths` lists it."""


class EnginePodOptions(ApiModel):
    """Additional settings of engine pods."""

    labels: Labels = Field(default_factory=dict)
    """Additional labels. Flotilla's own labels override them."""
    annotations: Annotations = Field(default_factory=dict)
    """Additional annotations. Flotilla's own annotations override them."""
    service_account_name: ObjectName | None = None
    """ServiceAccount of the pods, whose token is mounted into them. Absent: no token is mounted."""
    runtime_class_name: ObjectName | None = None
    """RuntimeClass of the pods, for example of a sandbox. Placement does not read its `scheduling` and
    `overhead`: repeat its node selector in `spec.placement.nodeSelector`. Absent: the cluster's default
    runtime."""
    image_pull_secrets: Annotated[tuple[ObjectRef, ...], MapList("name"), Field(max_length=16)] = ()
    """Secrets with credentials of image registries (core/v1), in addition to the chart's."""
    volumes: Volumes = ()
    """Additional volumes (core/v1), passed on unchanged."""
    volume_mounts: VolumeMounts = ()
    """Where the engine's container mounts volumes (core/v1), passed on unchanged."""


class Pricing(ApiModel):
    """Prices, from which costs are computed."""

    gpu_hour_usd: Annotated[Annotated[float, Field(ge=0, le=10_000)] | None, NotYet()] = None
    """Price of one accelerator for an hour, in USD."""
    input_per_million_usd: Annotated[float, Field(ge=0, le=100_000)] | None = None
    """Price of a million tokens of prompts, in USD. Agent fleets count with it. Absent: unknown."""
    output_per_million_usd: Annotated[float, Field(ge=0, le=100_000)] | None = None
    """Price of a million tokens of answers, in USD. Agent fleets count with it. Absent: unknown."""


class ModelReplicaSetSpec(ApiModel):
    """Desired state of a set."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                rule="!has(self.autoscaling) || !has(self.autoscaling.goodput) || has(self.slo)",
                message="spec.autoscaling.goodput needs spec.slo; set spec.slo",
            ),
            Rule(
                rule="!has(self.engine.adapters) || "
                "!self.engine.adapters.exists(adapter, adapter.name == self.model.name)",
                message="spec.engine.adapters[].name must differ from spec.model.name, because callers send "
                "either as `model`; rename the adapter",
            ),
            Rule(
                rule="!has(self.router.authSecretRef) || !has(self.engine.env) || "
                "!self.engine.env.exists(variable, variable.name == 'VLLM_API_KEY')",
                message="spec.engine.env must not contain VLLM_API_KEY while spec.router.authSecretRef is "
                "set, because the engines would refuse the keys of those callers; remove VLLM_API_KEY, or "
                "remove authSecretRef (callers then send the engines' key)",
            ),
            Rule(
                rule="!has(self.engine.kvOffloadGiB) || self.engine.kvOffloadGiB == 0.0 || "
                "has(self.accelerator)",
                message="spec.engine.kvOffloadGiB needs spec.accelerator, because it moves the KV cache from "
                "accelerators to the node's memory; remove kvOffloadGiB, or set spec.accelerator",
            ),
            Rule(
                rule="!has(self.model.task) || self.model.task != 'Embed' || !has(self.engine.speculative)",
                message="spec.engine.speculative is for task Generate only; remove it",
            ),
            Rule(
                rule="!has(self.model.task) || self.model.task != 'Embed' || !has(self.engine.kvOffloadGiB) "
                "|| self.engine.kvOffloadGiB == 0.0",
                message="spec.engine.kvOffloadGiB is for task Generate only; remove it",
            ),
            Rule(
                rule="!has(self.accelerator) || !has(self.accelerator.deviceClass) || "
                "!has(self.placement.nodeProvisioning) || "
                "self.placement.nodeProvisioning.mode != 'Placeholders'",
                message="spec.placement.nodeProvisioning.mode Placeholders does not work with "
                "spec.accelerator.deviceClass; set mode None, or use spec.accelerator.resource",
            ),
            Rule(
                rule="!has(self.accelerator) || !has(self.accelerator.resource) || "
                "self.accelerator.resource != 'amd.com/gpu' || !has(self.engine.kvCacheDtype) || "
                "self.engine.kvCacheDtype != 'FP8E5M2'",
                message="spec.engine.kvCacheDtype FP8E5M2 does not work on AMD accelerators; use FP8",
            ),
            Rule(
                rule="!has(self.traffic) || !has(self.traffic.sharedPrefixTokens) || "
                "!has(self.engine.maxModelLen) || self.traffic.sharedPrefixTokens < self.engine.maxModelLen",
                message="spec.traffic.sharedPrefixTokens must be less than spec.engine.maxModelLen; lower "
                "sharedPrefixTokens, or raise maxModelLen",
            ),
            Rule(
                rule="!has(self.traffic) || !has(self.traffic.sharedPrefixTokens) || "
                "!has(self.engine.prefixCaching) || self.engine.prefixCaching",
                message="spec.traffic.sharedPrefixTokens needs spec.engine.prefixCaching true; remove "
                "sharedPrefixTokens, or set prefixCaching to true",
            ),
            Rule(
                rule="!has(self.traffic) || !has(self.traffic.sharedPrefixTokens) || "
                "!has(self.model.task) || self.model.task != 'Embed'",
                message="spec.traffic.sharedPrefixTokens is for task Generate only; remove it",
            ),
        )
    )

    model: Model
    """The model to serve."""
    engine: Engine = Engine()
    """Settings of the vLLM engine in each replica."""
    parallelism: Parallelism = Parallelism()
    """How one replica divides the model among accelerators and pods."""
    accelerator: Accelerator | None = None
    """The accelerators that replicas run on. Absent: replicas run on CPUs."""
    placement: Placement = Placement()
    """The nodes that replicas may and should run on."""
    replicas: Annotated[int, Field(ge=0, le=1000)] = 1
    """How many replicas run. `kubectl scale` and your own autoscalers, such as an HPA, set this field too. It
    is ignored while `autoscaling` is set."""
    traffic: Traffic = Traffic()
    """Properties of the requests that callers send. Flotilla only computes figures with them; a change
    replaces no replica."""
    slo: Slo | None = None
    """The service level objective (SLO): the times that answers must meet, and the share of answers that must
    meet them. An update is rolled back when the new revision misses the SLO and the old one met it. Absent:
    answers are only checked for 5xx statuses."""
    autoscaling: Autoscaling | None = None
    """Controls the number of replicas instead of `replicas`. This release only starts a replica when a
    request arrives and none runs, and removes it when it is no longer used. Absent: `replicas` counts."""
    router: Router = Router()
    """The HAProxy pods in front of the replicas. They send the requests of a session (one conversation) to
    the same replica, because that replica holds the session's KV cache."""
    drain: Drain = Drain()
    """How a replica is removed. It drains first: the routers send it no new requests, and it finishes those
    that it has. Then its pods are deleted."""
    update: Update = Update()
    """How replicas are replaced, and how many at a time, when the spec changes or their node is cordoned. A
    change of what engine pods are made from, such as model, engine or parallelism, makes a new revision of
    the set."""
    disaggregation: Annotated[Disaggregation | None, NotYet()] = None
    """Runs prefill (computing prompts) and decode (computing answers) on separate replicas."""
    model_cache: ModelCache = ModelCache()
    """Where models that are fetched from the hub are stored. A model on a claim (`pvc://`) is not fetched."""
    pod: EnginePodOptions = EnginePodOptions()
    """Additional settings of engine pods."""
    pricing: Pricing | None = None
    """Prices of the model, from which the costs of tasks are computed. A change replaces no replica. Absent:
    unknown."""
    paused: bool = False
    """While true, the operator changes nothing of this set and only updates its status, with two exceptions.
    It deletes placeholder pods. And it deletes the pods of a replica that has not got all of its nodes:
    immediately if a scheduling gate still holds pods back, otherwise after the chart's
    `placement.bindTimeoutSeconds`."""


class GroupStatus(ApiModel):
    """One replica."""

    name: ShortText
    """Name of the replica. It is the name of its leader, the pod of the first stage."""
    phase: ShortText
    """Waiting: it has no pods yet. Gated: some of its pods are held back from the scheduler until all exist.
    Binding: its pods are being assigned to nodes. Loading: it fetches and loads the model. Ready: it serves.
    Draining: it gets no new requests and finishes those that it has."""
    nodes: Annotated[tuple[ShortText, ...], Field(max_length=16)] = ()
    """Nodes of its stages, in the order of the stages."""
    domain: LongText | None = None
    """Narrowest topology domain that contains all of its nodes, as LABEL=NAME. For a topology level, NAME
    begins with the names of the wider levels, for example zone-a/rack-1. Absent for a replica of one
    stage."""
    revision: ShortText | None = None
    """Revision of the set that its pods were made from. `status.rollout` says what a revision is."""
    since_time: Time | None = None
    """When this phase began."""


class WaitingStatus(ApiModel):
    """Replicas that have waited since the same time."""

    since_time: Time
    """When they began to wait."""
    replicas: Count
    """How many replicas have waited since then."""


class GroupCounts(ApiModel):
    """The number of replicas in each phase."""

    waiting: Count = 0
    """Replicas in phase Waiting: they have no pods yet."""
    gated: Count = 0
    """Replicas in phase Gated: some of their pods are held back from the scheduler until all exist."""
    binding: Count = 0
    """Replicas in phase Binding: their pods are being assigned to nodes."""
    loading: Count = 0
    """Replicas in phase Loading: they fetch and load the model."""
    ready: Count = 0
    """Replicas in phase Ready: they serve."""
    draining: Count = 0
    """Replicas in phase Draining: they get no new requests and finish those that they have."""


class BlockedNodes(ApiModel):
    """Nodes that cannot take a replica, for the same reason."""

    reason: ShortText
    """Why these nodes cannot take the replica, for example InsufficientGPUs."""
    nodes: Count
    """How many nodes cannot take the replica for this reason."""


class NodeProvisioningStatus(ApiModel):
    """Placeholder pods, which make a node autoscaler add nodes."""

    placeholders: Count = 0
    """How many placeholder pods exist."""
    bound: Count = 0
    """How many of the placeholder pods are on a node."""
    timeouts: Count = 0
    """How many attempts in a row ended after `spec.placement.nodeProvisioning.timeoutSeconds` without room
    for a replica."""
    last_timeout: LongText | None = None
    """Reason why the last attempt ended without room for a replica."""
    retry_time: Time | None = None
    """When the next attempt begins."""


class PlacementMove(ApiModel):
    """The move of one replica to other nodes."""

    group: ShortText
    """Replica that moves. It is replaced by a new replica on other nodes."""
    from_nodes: Annotated[tuple[ShortText, ...], Field(max_length=16)] = ()
    """Nodes that the replica leaves, in the order of its stages."""
    to_nodes: Annotated[tuple[ShortText, ...], Field(max_length=16)] = ()
    """Nodes of the new replica, in the order of its stages."""
    step: Count = 0
    """Number of the step that the move belongs to. The moves of one step only help together."""
    gain: float = 0
    """How much all moves of the step together raise the score."""
    accelerators_restarted: Count = 0
    """How many accelerators load the model again because of this move."""
    sessions_lost: Count | None = None
    """How many sessions of the last ten minutes lose the replica that holds their KV cache. Absent when the
    routers do not report it."""
    phase: ShortText
    """Proposed: not begun. Moving: being carried out. Done: carried out."""
    drains_first: bool = False
    """Whether the replica drains before the new one starts. It does when there is no room for both, or
    `spec.update.maxSurge` is 0, and another replica serves meanwhile. If none does, the phase is Stopped."""


class RebalanceStatus(ApiModel):
    """The answer to the annotation `flotilla.dev/rebalance`."""

    asked: ShortText
    """Value of the annotation that this answers. Each new value is answered once."""
    phase: ShortText
    """Waiting: some replica is not ready, an update or scaling is in progress, or something that the spec
    names does not exist. Shown: `moves` lists the moves. Moving: the moves are being carried out. Done: all
    moves are carried out. Stopped: the remaining moves were given up. Refused: the annotation's value is
    wrong, or the set has no accelerators."""
    message: LongText | None = None
    """The phase as a sentence, with its cause."""
    planned_time: Time | None = None
    """When the moves were computed."""


class ScoreParts(ApiModel):
    """The parts of the placement score."""

    packing: float | None = None
    """How close together the stages of a replica are, from 0 to 1: 1 on one node or one fast interconnect.
    Absent when every replica has one stage."""
    fragmentation: float | None = None
    """Share of accelerators in use by any pod, from 0 to 1, on the nodes that hold replicas of this set. 1
    means that none of their accelerators is unused."""
    spread: float | None = None
    """How evenly replicas are distributed over the values of `spec.placement.spreadReplicasAcross`, from 0 to
    1: 1 is even. Absent without that field."""


class PlacementStatus(ApiModel):
    """How replicas are placed on nodes."""

    score: float | None = None
    """How well replicas are placed, from 0 to 1: the weighted mean of the parts in `scoreParts` that are
    known. Packing has weight 4, fragmentation 2 and spread 1."""
    score_parts: ScoreParts | None = None
    """The parts of the score. 1 is best, and a part that does not apply is absent."""
    blocked: Annotated[tuple[BlockedNodes, ...], MapList("reason"), Field(max_length=16)] = ()
    """Why nodes cannot take the replica that has waited longest: how many nodes, by reason."""
    message: LongText | None = None
    """The contents of `blocked` as a sentence."""
    node_provisioning: NodeProvisioningStatus | None = None
    """Placeholder pods, which make a node autoscaler add nodes. Absent while there are none and none timed
    out."""
    rebalance: RebalanceStatus | None = None
    """Answer to the annotation `flotilla.dev/rebalance`, which asks for moves that would raise the score:
    `show` lists them in `moves`, `apply` also carries them out. A colon and any text may follow, as in
    `show:2`, which makes a new value, so that the same can be asked again. Absent without the annotation."""
    moves: Annotated[tuple[PlacementMove, ...], MapList("group"), Field(max_length=64)] = ()
    """Moves of replicas to other nodes that would raise the score, in the order in which they are carried
    out. Empty unless the annotation `flotilla.dev/rebalance` asks for them."""


class ModelSize(ApiModel):
    """Figures of the model, read from its own files."""

    source: Annotated[str, Field(max_length=512)]
    """`spec.model.source` that these figures are of."""
    revision: Annotated[str, Field(max_length=128)] | None = None
    """`spec.model.revision` that these figures are of."""
    weight_bytes: int
    """Size of the loaded weights, in bytes, on all accelerators of a replica together."""
    weights_from: ShortText
    """Where `weightBytes` comes from. Files: the sizes of the weight files. Config: an estimate from the
    model's config.json, within 2 % up to a billion parameters and within 0.1 % above, for the models that
    were tested."""
    table_bytes: int
    """Size of one embedding table, in bytes. It is part of the weights."""
    layers: int
    """Number of layers, with and without a KV cache."""
    attention_heads: int
    """Number of attention heads. `spec.parallelism.tensor` must divide it."""
    kv_heads: int
    """Number of key-value heads of a layer. It is 1 for latent attention and 0 for an encoder."""
    kv_numbers: int
    """How many numbers one layer stores in the KV cache for each token and key-value head."""
    full_layers: int
    """Number of layers whose KV cache holds every token of a sequence."""
    sliding_layers: int = 0
    """Number of layers whose KV cache holds the last `slidingWindow` tokens of a sequence."""
    sliding_window: int | None = None
    """How many tokens the sliding layers hold. Absent when there are none."""
    number_bytes: float
    """Size of one number in the KV cache, in bytes, if `spec.engine.kvCacheDtype` is Auto."""
    max_model_len: int | None = None
    """Longest sequence that the model was made for, in tokens."""


class Startup(ApiModel):
    """The start of one replica."""

    group: ShortText
    """Name of the replica."""
    revision: ShortText
    """Revision of the set that the replica was made from."""
    ready_time: Time
    """When the replica became ready."""
    seconds: float
    """Time from the creation of its leader pod until `readyTime`, in seconds."""


class AnswersStatus(ApiModel):
    """Counts of answers in the last half hour."""

    count: Count = 0
    """All answers."""
    failed: Count = 0
    """Answers with status 500 or above."""
    kept: Count = 0
    """Answers that met the times of `spec.slo` and did not fail."""


class RolloutStatus(ApiModel):
    """The state of the newest update."""

    revision: ShortText = ""
    """Revision that the spec asks for."""
    good_revision: ShortText | None = None
    """Last revision that passed its trial, or that every replica ran when the set could not go back to
    another one. A failed update goes back to it."""
    failed_revision: ShortText | None = None
    """Revision that failed. The last good one runs instead. Absent when none failed."""
    fault: ShortText | None = None
    """Why the newest revision failed. NotReady: its update made no progress for
    `spec.update.progressDeadlineSeconds`. MissesSLO: its answers miss `spec.slo`. FailedAnswers: too many of
    its answers were 5xx."""
    message: LongText | None = None
    """The fault as a sentence, with its figures."""
    ready_replicas: Count = 0
    """Ready replicas of the newest revision."""
    most_ready_replicas: Count = 0
    """Highest number of replicas of the newest revision that were ready at the same time. Only a higher
    number is progress; a replica that crashes and becomes ready again is not."""
    outdated_replicas: Count = 0
    """Replicas of other revisions that still exist."""
    progress_time: Time | None = None
    """When the update last made progress. If the clock was stopped since, this time is moved forward by the
    length of the stop, so that the stop does not count. Absent when no update is in progress."""
    trial_time: Time | None = None
    """When the trial of the newest revision began, moved forward like `progressTime` if the clock was stopped
    since. The trial begins when every replica is of that revision and ready. It ends after 50 answers, after
    half an hour, or after `spec.update.progressDeadlineSeconds`, whichever comes first. Absent when there is
    no trial."""
    clock_stopped_time: Time | None = None
    """When the clock of the update and its trial stopped. It stops while the set is paused, waits for room or
    drains an old replica, or while 0 replicas are desired. Absent while it runs, and when there is neither an
    update nor a trial."""
    answers: AnswersStatus | None = None
    """Answers of the newest revision in the last half hour, during its update and trial."""
    answers_before_trial: AnswersStatus | None = None
    """Those of `answers` that were given before the trial. They do not count towards its 50 answers."""
    rollback_pending: bool | None = None
    """Whether a roll-back waits for the API server. The last good spec is sent there as a dry run first, so
    that admission policies judge it as they would a new object. Absent when nothing waits."""
    rollback_refusal: LongText | None = None
    """Why the API server refuses the last good spec, in its words. It is asked again every five minutes."""
    rollback_refused_time: Time | None = None
    """When it refused it last."""
    old_answers: AnswersStatus | None = None
    """Answers of the old revision, as last known. Those of the newest revision are compared with them."""


class CapacityStatus(ApiModel):
    """Capacity of one replica, and the time that it takes to start."""

    kv_bytes_per_token: int | None = None
    """Size of one token in the KV cache, in bytes, on all accelerators of a replica together."""
    weights_gib: float | None = Field(default=None, alias="weightsGiB")
    """Size of the model's weights, in GiB, on all accelerators of a replica together."""
    accelerator_gib: float | None = Field(default=None, alias="acceleratorGiB")
    """Memory of one accelerator, in GiB, that the figures are computed with: `spec.accelerator.memoryGiB`, or
    what the nodes' label says."""
    sequence_tokens: int | None = None
    """Longest sequence, in tokens, that the figures are computed with: `spec.engine.maxModelLen`, or the
    model's own maximum."""
    sequences_per_replica: float | None = None
    """How many sequences of `sequenceTokens` fit into the KV cache of a replica at the same time if they
    share nothing."""
    sequences_per_replica_sharing_prefix: float | None = None
    """How many of these sequences fit if all begin with the same `spec.traffic.sharedPrefixTokens` tokens,
    which are stored once. Absent without that field."""
    rate_per_replica: Annotated[float | None, NotYetReported()] = None
    """Requests per second that one replica can answer within `spec.slo`."""
    startup_seconds: float | None = None
    """Time from the creation of a replica's leader pod until it is ready, in seconds: the median of
    `startups`."""
    startups: Annotated[tuple[Startup, ...], MapList("group"), Field(max_length=5)] = ()
    """The last five starts of replicas. A start in which a container was restarted is left out."""
    model: ModelSize | None = None
    """Figures of the model, read from its own files. They are kept for times when no replica runs."""


class BackoffStatus(ApiModel):
    """Failures of replicas, refusals of their pods by the API server, and the pause that follows."""

    failures: int
    """How many failures there were in a row. After the first one there is no pause. Later pauses grow from 10
    seconds to 5 minutes, or to 30 seconds if a quota or an admission plugin refuses the pods."""
    failed_time: Time
    """When the last failure happened."""
    until_time: Time
    """End of the pause: no replica is created before this time."""
    reason: ShortText | None = None
    """Kind of the last failure. GroupFailed: a replica stopped working. GroupIncomplete: pods of a replica
    are missing. Any other: why the API server refused its pods, for example QuotaExceeded."""
    message: LongText | None = None
    """Name of the replica that failed, and the cause."""


class RefusedPodsStatus(ApiModel):
    """Why the API server refused the pods that the set tried last."""

    reason: ShortText
    """Kind of the refusal, for example QuotaExceeded."""
    message: LongText | None = None
    """The answer of the API server."""
    counted: bool = False
    """Whether the pause in `backoff` already counts this refusal."""


class LoadStatus(ApiModel):
    """Requests and sessions of the set, as its routers report them."""

    waiting: int | None = None
    """Requests that wait in the routers for a replica. Those that wait inside an engine count as
    `running`."""
    running: int | None = None
    """Requests that replicas have, including those that wait inside an engine."""
    arrival_per_second: float | None = None
    """Requests per second, over the last minute, that need a replica. Requests that are held, or refused for
    lack of room or replicas, count. Requests with a wrong key, path or size do not. The value is updated only
    after a change of more than 10 %, or, at low rates, of more than random arrivals alone cause. Absent while
    a router does not report."""
    goodput_per_second: float | None = None
    """Answers per second, over the last minute, that met `spec.slo`. It is updated like `arrivalPerSecond`.
    Absent while a router does not report, or when `spec.slo` sets no time."""
    attainment: float | None = None
    """Share of the answers of the last half hour that met `spec.slo`, from 0 to 1. Absent when there was no
    answer, or `spec.slo` sets no time."""
    kv_usage: float | None = None
    """Share of the KV cache in use, from 0 to 1, accurate to within 0.05: the mean over ready replicas whose
    engines report it. Absent when fewer than half of them do."""
    sessions: int | None = None
    """Sessions (conversations) with a request in the last ten minutes, accurate to within 10 %. A session
    that came through several routers counts once for each."""


class ScalingDecision(ApiModel):
    """One decision of the autoscaler."""

    time: Time
    """When the autoscaler decided."""
    from_replicas: int = Field(alias="from")
    """Desired number of replicas before the decision."""
    to_replicas: int = Field(alias="to")
    """Desired number of replicas after the decision."""
    reason: LongText
    """Why: one of the words of `status.autoscaling.mode`, then the figures that it is based on."""


class AutoscalingStatus(ApiModel):
    """State of the autoscaler."""

    owner: ShortText | None = None
    """Component that sets the number of replicas. Flotilla: the operator does, by `spec.autoscaling`. There
    is no other value in this release."""
    mode: ShortText | None = None
    """Reason for the number of replicas that was decided last. Held: a request waits and no replica runs, so
    one is started. Busy: the routers have requests, so the replica stays. Quiet: they have had none, but not
    yet for `scaleToZeroAfterSeconds`, so it stays. Idle: they have had none for that long, so it is removed.
    Starting: the replica is not ready, or has not been ready for that long, so it stays. NoRequest: no
    replica runs and no request waits. NeverReady: the replica did not become ready in time, so it is removed.
    NeverToZero: `scaleToZeroAfterSeconds` is absent, so the replica stays. NoFigures: a router does not
    report, so nothing is changed."""
    last_decisions: Annotated[tuple[ScalingDecision, ...], Field(max_length=5)] = ()
    """The last five decisions that changed the number of replicas."""


class ModelReplicaSetStatus(Status):
    """State that the operator last saw."""

    conditions: Conditions = ()
    """State of the set, one condition for each aspect. SpecValid: everything that the spec names exists, and
    the model fits the accelerators. Placed: every replica has its nodes. RouterReady: a router pod is ready.
    Available: a replica serves, or the desired number is 0. Progressing: replicas are being added, replaced
    or moved. ScalingActive: autoscaling has the figures that it needs. Ready: SpecValid, Placed, RouterReady
    and Available are True, and every desired replica serves and is of the newest revision. Progressing and
    ScalingActive do not affect Ready, nor does SpecValid with the reason SharedPrefixIgnored. Reconciling:
    Ready is not True, and the operator expects it to become True without help. Stalled: Ready is not True,
    and a person must act."""
    replicas: int | None = None
    """Replicas that have pods and do not drain. A replica counts once, however many pods it has."""
    ready_replicas: int | None = None
    """Replicas that serve requests."""
    desired_replicas: int | None = None
    """Desired number of replicas: `spec.replicas`, or what autoscaling decided."""
    draining_replicas: int | None = None
    """Replicas that drain: they get no new requests and finish those that they have."""
    ready: ShortText | None = None
    """Ready and desired replicas as one text, for example 2/3, for the column READY."""
    selector: LongText | None = None
    """Label selector of the leader pods, of which each replica has one. The scale subresource needs it."""
    url: LongText | None = None
    """URL at which callers reach the model, ending in /v1. The paths of OpenAI's API follow it."""
    groups: Annotated[tuple[GroupStatus, ...], MapList("name"), Field(max_length=50)] = ()
    """The replicas, at most 50, those that are not ready first. A replica is a group of pods: one pod for
    each of its `spec.parallelism.pipeline` stages."""
    more_waiting: Annotated[tuple[WaitingStatus, ...], MapList("sinceTime"), Field(max_length=20)] = ()
    """Waiting replicas that `groups` has no room for, counted by the time when they began to wait. They keep
    their place in the queue. At most 20 entries; the last one also counts all younger replicas."""
    group_counts: GroupCounts | None = None
    """The number of replicas in each phase. `groups` explains the phases."""
    placement: PlacementStatus | None = None
    """How replicas are placed on nodes, and why some wait. Absent without `spec.accelerator`."""
    backoff: BackoffStatus | None = None
    """Failures of replicas, refusals of their pods by the API server, and the pause that follows, in which no
    replica is created. Absent when neither happened for ten minutes and every existing replica serves. After
    a refusal, it is also absent as soon as the spec changes."""
    refused_pods: RefusedPodsStatus | None = None
    """Why the API server refused the pods that the set tried last. Absent when it accepted them, and when no
    replica waits for its pods."""
    capacity: CapacityStatus | None = None
    """Capacity of one replica, and the time that it takes to start. Figures that are not known are absent.
    docs/capacity.md in Flotilla's repository explains the arithmetic."""
    load: LoadStatus | None = None
    """Requests and sessions of the set, as its routers report them. Absent when no router reports."""
    rollout: RolloutStatus | None = None
    """The state of the newest update. A revision is a hash over the fields of the spec that engine pods are
    made from; a change of one of them makes a new revision and starts an update."""
    autoscaling: AutoscalingStatus | None = None
    """State of the autoscaler. Absent without `spec.autoscaling`."""
    cost_per_hour_usd: Annotated[float | None, NotYetReported()] = None
    """Cost of all replicas for an hour, in USD."""


class ModelReplicaSet(ApiObject):
    """A language or embedding model that answers OpenAI's API at the URL in `status.url`. Flotilla runs vLLM
    replicas of the model on suitable nodes, behind a router that sends the requests of a session (one
    conversation) to the replica that holds its KV cache. A replica that is replaced or removed finishes its
    requests first, within a deadline."""

    spec: ModelReplicaSetSpec
    """Desired state: the model, its replicas and how they are run."""
    status: ModelReplicaSetStatus = ModelReplicaSetStatus()
    """State that the operator last saw: replicas, load, capacity and conditions. The operator writes it."""
