"""ModelReplicaSet: a model served by replicas behind a router."""

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from flotilla_operator.api.base import ApiModel, MapList, NotYet, NotYetValues, Rule, rules
from flotilla_operator.api.common import (
    CLAIM_FOLDER,
    NO_FOLDER_ABOVE,
    Annotations,
    ApiObject,
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

MODEL_NAME = r"^[A-Za-z0-9]([-A-Za-z0-9._:/]*[A-Za-z0-9])?$"
HUB_NAME = "[A-Za-z0-9_]([-A-Za-z0-9._]*[A-Za-z0-9_])?"  # as the hub has them: neither `.` nor `..` is one
HUB_OR_CLAIM = f"self.matches('^hf://{HUB_NAME}/{HUB_NAME}$') || self.matches('{CLAIM_FOLDER}')"
SOURCE_FORM = f"{HUB_OR_CLAIM} || self.startsWith('image://')"
RevisionText = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[-A-Za-z0-9._/]+$")]


class Task(StrEnum):
    """What a model does."""

    GENERATE = "Generate"
    EMBED = "Embed"


class KvCacheDtype(StrEnum):
    """The type of the numbers in the KV cache."""

    AUTO = "Auto"
    FP8 = "FP8"
    FP8_E4M3 = "FP8E4M3"
    FP8_E5M2 = "FP8E5M2"


class SpeculativeMethod(StrEnum):
    """Who proposes the tokens that the model then checks."""

    N_GRAM = "NGram"
    DRAFT = "Draft"
    EAGLE = "Eagle"


class CacheMode(StrEnum):
    """Where fetched models are kept."""

    NONE = "None"
    CLAIM = "Claim"
    NODE = "Node"


class NodeProvisioningMode(StrEnum):
    """How nodes are asked for."""

    NONE = "None"
    PLACEHOLDERS = "Placeholders"


class AutoscalingMode(StrEnum):
    """Whether the autoscaler acts or only says what it would do."""

    ACTIVE = "Active"
    ADVISORY = "Advisory"


class Model(ApiModel):
    """What is served."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                rule="!has(oldSelf.task) || (has(self.task) && self.task == oldSelf.task)",
                message="spec.model.task cannot be changed; make another ModelReplicaSet for the other task",
            ),
            Rule(
                rule="!self.source.startsWith('pvc://') || "
                "(!has(self.revision) && !has(self.tokenSecretRef))",
                message="spec.model.revision and tokenSecretRef are for hf:// sources; remove them, since "
                "files on a claim are taken as they are",
            ),
        )
    )

    name: Annotated[str, Field(min_length=1, max_length=253, pattern=MODEL_NAME)]
    """The name that callers send as `model`."""
    source: Annotated[
        str,
        Field(min_length=1, max_length=512),
        Rule(
            rule=SOURCE_FORM,
            message="spec.model.source must be hf://organisation/name or pvc://claim/folder",
        ),
        Rule(
            rule=NO_FOLDER_ABOVE,
            message="spec.model.source must not lead upwards; name the folder without ..",
        ),
        NotYetValues(
            values=("image://",),
            rule="!self.startsWith('image://')",
            message="spec.model.source image:// is not acted on by this release of Flotilla; "
            "use hf:// or pvc://",
            promise="mounts a model from an OCI image, so that nodes keep it like any other image",
        ),
    ]
    """Where the model's files come from: `hf://organisation/name` (the Hugging Face hub) or `pvc://claim/folder`
    (a claim in the same namespace, read-only)."""
    revision: (
        Annotated[
            RevisionText,
            Rule(
                rule="!self.contains('..')",
                message="spec.model.revision must not hold ..; name a branch, a tag or a commit",
            ),
        ]
        | None
    ) = None
    """Branch, tag or commit on the hub. Name a commit where replicas must not differ; absent: the newest
    of the hub's main branch when a replica starts."""
    token_secret_ref: TokenSecretRef | None = None
    """A token of the hub, for gated and private models. The default key is `token`."""
    task: Task = Task.GENERATE
    """Generate or Embed. It cannot be changed."""


class Speculative(ApiModel):
    """Speculative decoding: cheap guesses, checked by the model in one step."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                rule="(self.method == 'NGram') != has(self.model)",
                message="spec.engine.speculative.model is the source of what guesses: methods Draft and "
                "Eagle need it, and NGram, which looks in the prompt, takes none",
            )
        )
    )

    method: SpeculativeMethod
    """NGram looks the guess up in the prompt, Draft asks a small model, Eagle a trained head."""
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
                message="spec.engine.speculative.model must not lead upwards; name the folder without ..",
            ),
        ]
        | None
    ) = None
    """Source of the draft model or the head, `hf://organisation/name` or `pvc://claim/folder`; NGram needs
    none."""
    num_tokens: Annotated[int, Field(ge=1, le=16)] = 4
    """How many tokens are guessed at a time."""


class Adapter(ApiModel):
    """A LoRA adapter served beside the model."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                rule="!self.source.startsWith('pvc://') || !has(self.revision)",
                message="spec.engine.adapters[].revision is for hf:// sources; remove it, since files on a "
                "claim are taken as they are",
            )
        )
    )

    name: PartName
    """The name that callers send as `model`."""
    source: Annotated[
        str,
        Field(min_length=1, max_length=512),
        Rule(
            rule=HUB_OR_CLAIM,
            message="spec.engine.adapters[].source must be hf://organisation/name or pvc://claim/folder",
        ),
        Rule(
            rule=NO_FOLDER_ABOVE,
            message="spec.engine.adapters[].source must not lead upwards; name the folder without ..",
        ),
    ]
    """Where the adapter's files come from, in PEFT's form: `hf://organisation/name` or `pvc://claim/folder`."""
    revision: (
        Annotated[
            RevisionText,
            Rule(
                rule="!self.contains('..')",
                message="spec.engine.adapters[].revision must not hold ..; name a branch, a tag or a commit",
            ),
        ]
        | None
    ) = None
    """Branch, tag or commit on the hub; absent: the newest when a replica starts."""
    rank: Annotated[int, Field(ge=1, le=512)] = 16
    """The adapter's rank, `r` in its `adapter_config.json`, or more; the highest of all decides how much
    memory the engine keeps for adapters."""


class Engine(ApiModel):
    """The vLLM engine of each replica."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                rule="self.chunkedPrefill || has(self.maxModelLen) || self.maxNumSeqs * "
                "(has(self.speculative) && has(self.adapters) ? 1 + self.speculative.numTokens : 1) <= 2048",
                message="spec.engine.chunkedPrefill false with more than 2048 sequences (with adapters: "
                "sequences and guessed tokens) needs spec.engine.maxModelLen, since a batch must hold both",
            ),
            Rule(
                rule="!has(self.speculative) || !has(self.maxModelLen) || "
                "self.maxModelLen > self.speculative.numTokens",
                message="spec.engine.maxModelLen must be more than spec.engine.speculative.numTokens",
            ),
            Rule(
                rule="!has(self.extraArgs) || !self.extraArgs.exists(argument, "
                "argument.startsWith('--api-key') || argument.startsWith('--api_key'))",
                message="spec.engine.extraArgs must not hold --api-key, since engines would refuse the key "
                "that the routers send; list callers' keys with spec.router.authSecretRef",
            ),
            Rule(
                rule="!has(self.extraArgs) || !self.extraArgs.exists(argument, "
                "argument == '--model' || argument.startsWith('--model='))",
                message="spec.engine.extraArgs must not hold --model; set spec.model.source, which is what "
                "is fetched and sized",
            ),
        )
    )

    image: ImageReference | None = None
    """The engine's image; its entrypoint must be `vllm serve`, as in vLLM's own images. Where absent, the
    chart's `images.engine`, or without an accelerator its `images.engineCPU`."""
    max_model_len: Annotated[int, Field(ge=16, le=10_000_000)] | None = None
    """How many tokens prompt and answer may have together; the model's own maximum where absent."""
    max_num_seqs: Annotated[int, Field(ge=1, le=4096)] = 48
    """How many sequences one replica works on at once. The router sends it a tenth more, so that
    it never waits for the next one."""
    kv_cache_dtype: KvCacheDtype = KvCacheDtype.AUTO
    """Auto is the model's own type; FP8 halves the memory of a sequence."""
    prefix_caching: bool = True
    """Keep the KV cache of prompts, so that the next call of a conversation starts from there."""
    chunked_prefill: bool = True
    """Split long prompts, so that they do not hold up the answers of others."""
    speculative: Speculative | None = None
    """Speculative decoding."""
    kv_offload_gib: Annotated[float, Field(ge=0, le=100_000)] = Field(default=0, alias="kvOffloadGiB")
    """How much of the node's memory holds the KV cache of idle conversations, for all accelerators of a pod
    together. The pod's memory limit must leave room for it."""
    adapters: Annotated[tuple[Adapter, ...], MapList("name"), Field(max_length=64)] = ()
    """LoRA adapters served beside the model; callers choose one by sending its name as `model`."""
    extra_args: Annotated[tuple[LongText, ...], Field(max_length=64)] = ()
    """Further arguments of vLLM. They come last, so they win over Flotilla's own."""
    env: Environment = ()
    """Environment variables of the engine and of the container that fetches the model (core/v1)."""
    resources: ResourceRequirements = ResourceRequirements()
    """What one engine pod asks for, beside its accelerators (core/v1)."""


class Parallelism(ApiModel):
    """How one replica is cut into parts."""

    tensor: Annotated[int, Field(ge=1, le=16)] = 1
    """How many accelerators of one node compute each layer together."""
    pipeline: Annotated[int, Field(ge=1, le=16)] = 1
    """Into how many stages the layers are split. Each is a pod with `tensor` accelerators of one node; all of
    them are placed together, and start and end together."""


class DeviceClass(ApiModel):
    """Accelerators by dynamic resource allocation."""

    name: ObjectName
    """The DeviceClass."""
    attributes: Annotated[dict[LabelKey, LabelValue], Field(max_length=32)] = Field(default_factory=dict)
    """Attributes that a device must have, as `name` (of the class's driver) or `domain/name`; `true`, `false`
    and whole numbers are meant as such."""


class Accelerator(ApiModel):
    """What a replica computes on."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                rule="has(self.resource) != has(self.deviceClass)",
                message="spec.accelerator needs exactly one of resource and deviceClass; "
                "leave accelerator out to serve on CPUs",
            )
        )
    )

    resource: Annotated[str, Field(min_length=1, max_length=253)] | None = None
    """The extended resource that a device plugin offers, for example `nvidia.com/gpu`."""
    device_class: DeviceClass | None = None
    """The DeviceClass, where accelerators are given out by Dynamic Resource Allocation (Kubernetes 1.34)."""
    products: Annotated[tuple[LabelValue, ...], Field(max_length=16)] = ()
    """Products that will do, as the nodes' labels name them; any where empty."""
    memory_gib: Annotated[float, Field(gt=0, le=10_000)] | None = Field(default=None, alias="memoryGiB")
    """The memory of one accelerator; what the nodes' label `nvidia.com/gpu.memory` says where absent. A model
    that does not fit is a condition, with what would fit."""


class NodeProvisioning(ApiModel):
    """How nodes are asked for where a node autoscaler is at work."""

    mode: NodeProvisioningMode = NodeProvisioningMode.NONE
    """Placeholders: pods of low priority, shaped like a waiting replica, make the autoscaler bring nodes."""
    timeout_seconds: Annotated[int, Field(ge=60, le=86_400)] = 900
    """How long placeholders may be there for a replica that does not fit before they are taken away."""


class Placement(ApiModel):
    """Where replicas go."""

    pack_pipeline_within: LabelKey | None = None
    """The node label whose value all stages of one replica share, for example a rack."""
    spread_replicas_across: LabelKey | None = None
    """The node label over whose values replicas are spread, for example a zone."""
    required: bool = False
    """Whether a replica rather waits than breaks these wishes."""
    node_selector: Labels = Field(default_factory=dict)
    """Labels that a node must have (core/v1)."""
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=32)] = ()
    """Taints that engine pods put up with (core/v1)."""
    priority_class_name: ObjectName | None = None
    """The PriorityClass of engine pods; replicas that wait are also served in this order."""
    node_provisioning: NodeProvisioning | None = None
    """How nodes are asked for."""


class Slo(ApiModel):
    """What callers are promised."""

    ttft_seconds: Annotated[float, Field(gt=0, le=3600)] | None = None
    """Until the answer begins, at the replica: its time in a queue is not the replica's."""
    tpot_seconds: Annotated[
        Annotated[float, Field(gt=0, le=60)] | None, NotYet("is counted among the promised times")
    ] = None
    """For each further token."""
    e2e_seconds: Annotated[float, Field(gt=0, le=86_400)] | None = None
    """Until the answer is complete."""
    attainment: Annotated[float, Field(gt=0, le=1)] = 0.95
    """The share of requests that must keep these times."""
    window_seconds: Annotated[
        Annotated[int, Field(ge=10, le=86_400)] | None,
        NotYet("sets the time over which the share is counted"),
    ] = None
    """The time over which the share is counted."""


class QueueDepth(ApiModel):
    """Scale by what waits."""

    waiting_per_replica: Annotated[float, Field(gt=0, le=10_000)] = 4
    """How many requests may wait for each replica."""
    max_wait_seconds: Annotated[float, Field(gt=0, le=3600)] = 2
    """How long a request may wait."""


class Goodput(ApiModel):
    """Scale to hold `spec.slo`."""


class ScaleUp(ApiModel):
    """How fast replicas are added."""

    max_step: Annotated[int, Field(ge=1, le=1000)] = 8
    """How many at once."""


class ScaleDown(ApiModel):
    """How fast replicas are taken away."""

    quiet_seconds: Annotated[int, Field(ge=0, le=86_400)] = 300
    """How long demand must have been low."""
    max_step: Annotated[int, Field(ge=1, le=1000)] = 1
    """How many at once."""


class Autoscaling(ApiModel):
    """How many replicas there should be, decided by what waits and by what is promised."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                rule="self.minReplicas <= self.maxReplicas",
                message="spec.autoscaling.minReplicas must not be greater than maxReplicas",
            ),
            Rule(
                rule="self.minReplicas == 0",
                message="spec.autoscaling.minReplicas must be 0 in this release of Flotilla, which only "
                "wakes a set from zero and puts it back; for a fixed number remove autoscaling and set "
                "spec.replicas",
            ),
            Rule(
                rule="!has(self.scaleToZeroAfterSeconds) || self.minReplicas == 0",
                message="spec.autoscaling.scaleToZeroAfterSeconds needs minReplicas 0",
            ),
        )
    )

    min_replicas: Annotated[int, Field(ge=0, le=1000)] = 1
    """The least. With 0, requests are held while there is no replica, and wake the first one. This release
    acts on 0 alone."""
    max_replicas: Annotated[int, Field(ge=1, le=1000)]
    """The most. This release goes no further than one."""
    queue_depth: Annotated[QueueDepth | None, NotYet("scales by what waits")] = None
    """Scale by what waits."""
    goodput: Annotated[Goodput | None, NotYet("scales to hold `spec.slo`")] = None
    """Scale to hold `spec.slo`."""
    scale_up: Annotated[ScaleUp | None, NotYet("says how fast replicas are added")] = None
    """How fast replicas are added."""
    scale_down: Annotated[ScaleDown | None, NotYet("says how fast replicas are taken away")] = None
    """How fast replicas are taken away."""
    scale_to_zero_after_seconds: Annotated[int, Field(ge=1, le=604_800)] | None = None
    """After how long without a request the last replica goes; where absent, one that was woken stays."""
    mode: Annotated[
        AutoscalingMode | None, NotYet("with Advisory, says what would be done and does nothing")
    ] = None
    """Active, or Advisory: say in the status what would be done, and do nothing."""


class Router(ApiModel):
    """HAProxy in front of the replicas; it keeps a conversation on the replica that knows it."""

    replicas: Annotated[int, Field(ge=1, le=50)] = 2
    """How many router pods."""
    load_factor: Annotated[float, Field(gt=1, le=10)] = 1.25
    """How far above the mean a replica may be loaded before conversations move on to the next one; one that
    runs less than half of what it may keeps its own."""
    queue_timeout_seconds: Annotated[int, Field(ge=1, le=3600)] = 60
    """How long a request may wait for a replica; then 503 with Retry-After."""
    request_timeout_seconds: Annotated[int, Field(ge=1, le=86_400)] = 600
    """How long a replica may take over a request."""
    max_queue: Annotated[int, Field(ge=1, le=1_000_000)] = 1000
    """How many requests may wait; the next gets 429 with Retry-After."""
    max_request_mib: Annotated[int, Field(ge=1, le=1024)] = 16
    """How large a request may be."""
    auth_secret_ref: SecretRef | None = None
    """A secret whose entries are callers' keys: the entry's name is the caller, its value the bearer token. A
    change acts without a restart. Absent: whoever reaches the service may call."""
    tls: Tls | None = None
    """The certificate to serve HTTPS with, TLS 1.2 at least. Flotilla's own fleets and builds then call the
    service `NAME-model-internal`."""
    service: ServiceOptions = ServiceOptions()
    """The service `NAME-model`."""


class Drain(ApiModel):
    """How a replica leaves."""

    deadline_seconds: Annotated[int, Field(ge=0, le=86_400)] = 300
    """How long its requests may still run."""


class Update(ApiModel):
    """How replicas are exchanged when the spec changes, or their node is to be emptied."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                rule="self.maxSurge + self.maxUnavailable > 0",
                message="spec.update.maxSurge and maxUnavailable must not both be 0; "
                "no replica could be exchanged",
            )
        )
    )

    max_surge: Annotated[int, Field(ge=0, le=100)] = 1
    """How many replicas more than wanted there may be."""
    max_unavailable: Annotated[int, Field(ge=0, le=100)] = 0
    """How many replicas fewer than wanted may be ready."""
    progress_deadline_seconds: Annotated[int, Field(ge=60, le=86_400)] = 1800
    """How long an update may go without getting on before it has failed. Waiting for room does not count."""
    rollback: bool = True
    """Go back to the last good revision when an update fails: when it does not get on, when over at least
    50 requests it misses `slo.attainment` and the old revision does not, or, without `slo`, when more than
    5 % of them end with 5xx. With `slo`, too, where it is missed and 5xx are 5 points beyond those of the old
    revision."""


class Traffic(ApiModel):
    """What callers send. It describes them and sets nothing, so a change rolls no replica."""

    shared_prefix_tokens: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """With how many tokens the prompts of all callers begin alike: a system prompt, descriptions of tools.
    `status.capacity.sequencesPerReplicaSharingPrefix` is counted with it."""


class DisaggregatedPool(ApiModel):
    """One half of a set that is split by phase."""

    replicas: Annotated[int, Field(ge=1, le=1000)] = 1
    """How many replicas."""
    parallelism: Parallelism = Parallelism()
    """How each is cut into parts."""


class Disaggregation(ApiModel):
    """Prefill and decode on replicas of their own."""

    prefill: DisaggregatedPool
    """Replicas that read prompts."""
    decode: DisaggregatedPool
    """Replicas that write answers."""


class ModelCache(ApiModel):
    """Where models fetched from a hub are kept."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                rule="(self.mode == 'Claim') == has(self.claimName)",
                message="spec.modelCache.claimName goes with mode Claim, and mode Claim needs it",
            )
        )
    )

    mode: CacheMode = CacheMode.NONE
    """None: each replica fetches anew. Claim: a claim that the replicas share. Node: a folder of the node,
    which the namespace's pod security must allow."""
    claim_name: ObjectName | None = None
    """The claim, for mode Claim; replicas on several nodes need ReadWriteMany."""
    path: Annotated[str, Field(max_length=512, pattern=r"^/[^\s]*$")] = "/var/lib/flotilla/models"
    """The folder of the node, for mode Node."""


class PodOptions(ApiModel):
    """What engine pods have beside what Flotilla gives them."""

    labels: Labels = Field(default_factory=dict)
    """Further labels; Flotilla's own win."""
    annotations: Annotations = Field(default_factory=dict)
    """Further annotations; Flotilla's own win."""
    service_account_name: ObjectName | None = None
    """The pods' service account; without one they get no token."""
    image_pull_secrets: Annotated[tuple[ObjectRef, ...], MapList("name"), Field(max_length=16)] = ()
    """Secrets to pull the images with (core/v1)."""
    volumes: Volumes = ()
    """Further volumes (core/v1, passed on as they are)."""
    volume_mounts: VolumeMounts = ()
    """Where the engine's container mounts them (core/v1, passed on as they are)."""


class Pricing(ApiModel):
    """What a replica costs."""

    gpu_hour_usd: Annotated[float, Field(ge=0, le=10_000)] | None = None
    """One accelerator for an hour."""
    input_per_million_usd: Annotated[float, Field(ge=0, le=100_000)] | None = None
    """A million tokens read."""
    output_per_million_usd: Annotated[float, Field(ge=0, le=100_000)] | None = None
    """A million tokens written."""


class ModelReplicaSetSpec(ApiModel):
    """What is wanted."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                rule="!has(self.autoscaling) || !has(self.autoscaling.goodput) || has(self.slo)",
                message="spec.autoscaling.goodput holds spec.slo, which is missing",
            ),
            Rule(
                rule="!has(self.engine.adapters) || "
                "!self.engine.adapters.exists(adapter, adapter.name == self.model.name)",
                message="spec.engine.adapters[].name must differ from spec.model.name, for both are what "
                "callers send as model",
            ),
            Rule(
                rule="!has(self.router.authSecretRef) || !has(self.engine.env) || "
                "!self.engine.env.exists(variable, variable.name == 'VLLM_API_KEY')",
                message="spec.engine.env VLLM_API_KEY does not go with spec.router.authSecretRef, since "
                "engines would refuse the keys of those callers; remove VLLM_API_KEY (engines then ask for a "
                "key that only the routers have), or authSecretRef (callers then send your engines' key)",
            ),
            Rule(
                rule="!has(self.engine.kvOffloadGiB) || self.engine.kvOffloadGiB == 0.0 || "
                "has(self.accelerator)",
                message="spec.engine.kvOffloadGiB moves the KV cache from an accelerator to the node's "
                "memory; remove it, or set spec.accelerator",
            ),
            Rule(
                rule="!has(self.model.task) || self.model.task != 'Embed' || !has(self.engine.speculative)",
                message="spec.engine.speculative guesses the tokens of an answer, and a model of task Embed "
                "writes none; remove it",
            ),
            Rule(
                rule="!has(self.model.task) || self.model.task != 'Embed' || !has(self.engine.kvOffloadGiB) "
                "|| self.engine.kvOffloadGiB == 0.0",
                message="spec.engine.kvOffloadGiB keeps conversations, and a model of task Embed has none; "
                "remove it",
            ),
            Rule(
                rule="!has(self.accelerator) || !has(self.accelerator.deviceClass) || "
                "!has(self.placement.nodeProvisioning) || "
                "self.placement.nodeProvisioning.mode != 'Placeholders'",
                message="spec.placement.nodeProvisioning.mode Placeholders needs spec.accelerator.resource, "
                "since node autoscalers are not asked for devices of a deviceClass",
            ),
            Rule(
                rule="!has(self.accelerator) || !has(self.accelerator.resource) || "
                "self.accelerator.resource != 'amd.com/gpu' || !has(self.engine.kvCacheDtype) || "
                "self.engine.kvCacheDtype != 'FP8E5M2'",
                message="spec.engine.kvCacheDtype FP8E5M2 is not for AMD accelerators; use FP8",
            ),
            Rule(
                rule="!has(self.traffic) || !has(self.traffic.sharedPrefixTokens) || "
                "!has(self.engine.maxModelLen) || self.traffic.sharedPrefixTokens < self.engine.maxModelLen",
                message="spec.traffic.sharedPrefixTokens must be less than spec.engine.maxModelLen, the "
                "longest that a prompt may be with its answer; lower the one or raise the other",
            ),
            Rule(
                rule="!has(self.traffic) || !has(self.traffic.sharedPrefixTokens) || "
                "!has(self.engine.prefixCaching) || self.engine.prefixCaching",
                message="spec.traffic.sharedPrefixTokens saves nothing while spec.engine.prefixCaching is "
                "false; remove it, or set prefixCaching to true",
            ),
            Rule(
                rule="!has(self.traffic) || !has(self.traffic.sharedPrefixTokens) || "
                "!has(self.model.task) || self.model.task != 'Embed'",
                message="spec.traffic.sharedPrefixTokens is for task Generate, since of an embedder only the "
                "engine knows whether it keeps prompts; remove it",
            ),
        )
    )

    model: Model
    """What is served."""
    engine: Engine = Engine()
    """The vLLM engine of each replica."""
    parallelism: Parallelism = Parallelism()
    """How one replica is cut into parts."""
    accelerator: Accelerator | None = None
    """What a replica computes on; CPUs where absent."""
    placement: Placement = Placement()
    """Where replicas go."""
    replicas: Annotated[int, Field(ge=0, le=1000)] = 1
    """How many replicas; also what `kubectl scale` and autoscalers of your own set."""
    traffic: Traffic = Traffic()
    """What callers send."""
    slo: Slo | None = None
    """What callers are promised. An update that breaks it while the old revision keeps it is taken back."""
    autoscaling: Autoscaling | None = None
    """Decides the number of replicas in the place of `replicas`."""
    router: Router = Router()
    """HAProxy in front of the replicas."""
    drain: Drain = Drain()
    """How a replica leaves."""
    update: Update = Update()
    """How replicas are exchanged when the spec changes."""
    disaggregation: Annotated[
        Disaggregation | None, NotYet("puts prefill and decode on replicas of their own")
    ] = None
    """Prefill and decode on replicas of their own."""
    model_cache: ModelCache = ModelCache()
    """Where models fetched from a hub are kept."""
    pod: PodOptions = PodOptions()
    """What engine pods have beside what Flotilla gives them."""
    pricing: Annotated[Pricing | None, NotYet("puts a price on replicas and answers")] = None
    """What a replica costs."""
    paused: bool = False
    """While true the operator changes nothing of this object's and only reports. Pods that were pinned to a
    node and find no room there are released all the same."""


class GroupStatus(ApiModel):
    """One replica."""

    name: ShortText
    """Its name, which is that of its leader pod."""
    phase: ShortText
    """Waiting, Gated, Binding, Loading, Ready or Draining."""
    nodes: Annotated[tuple[ShortText, ...], Field(max_length=16)] = ()
    """The nodes of its stages."""
    domain: LongText | None = None
    """The topology domain that holds all of them."""
    revision: ShortText | None = None
    """The revision of the spec that it was made from."""
    since_time: Time | None = None
    """When this phase began."""


class WaitingStatus(ApiModel):
    """Replicas that wait since the same time."""

    since_time: Time
    """When they began to wait."""
    replicas: Count
    """How many they are."""


class GroupCounts(ApiModel):
    """Replicas by phase."""

    waiting: Count = 0
    """Without pods, since they fit nowhere."""
    gated: Count = 0
    """Complete and not yet let go to the scheduler."""
    binding: Count = 0
    """On their way to a node."""
    loading: Count = 0
    """Fetching and loading the model."""
    ready: Count = 0
    """Serving."""
    draining: Count = 0
    """Ending what they have."""


class BlockedNodes(ApiModel):
    """Nodes that cannot take a replica."""

    reason: ShortText
    """Why."""
    nodes: Count
    """How many."""


class NodeProvisioningStatus(ApiModel):
    """What is asked of the node autoscaler for replicas that wait."""

    placeholders: Count = 0
    """Placeholder pods."""
    bound: Count = 0
    """Those that have a node."""
    timeouts: Count = 0
    """How often in a row it was given up."""
    last_timeout: LongText | None = None
    """What had not come then."""
    retry_time: Time | None = None
    """When it is asked again."""


class PlacementMove(ApiModel):
    """One replica to other nodes."""

    group: ShortText
    """The replica that would be replaced."""
    from_nodes: Annotated[tuple[ShortText, ...], Field(max_length=16)] = ()
    """The nodes of its stages."""
    to_nodes: Annotated[tuple[ShortText, ...], Field(max_length=16)] = ()
    """Those of the replica that takes its place."""
    step: Count = 0
    """Moves of one step belong together."""
    gain: float = 0
    """What the whole step adds to the score."""
    accelerators_restarted: Count = 0
    """The accelerators of the replica: they load the model anew."""
    sessions_lost: Count | None = None
    """Conversations of the last ten minutes that lose their warm replica, where routers say how many."""
    phase: ShortText
    """Proposed, Moving or Done."""
    drains_first: bool = False
    """Whether the replica leaves before the other comes, for want of room beside it."""


class RebalanceStatus(ApiModel):
    """What has become of `flotilla.dev/rebalance`."""

    asked: ShortText
    """The annotation's value that this answers; each value is answered once."""
    phase: ShortText
    """Waiting, Shown, Moving, Done, Stopped or Refused."""
    message: LongText | None = None
    """The same as a sentence."""
    planned_time: Time | None = None
    """When the moves were planned."""


class ScoreParts(ApiModel):
    """What a score is made of: shares where 1 is best. One that says nothing of these replicas is absent."""

    packing: float | None = None
    """How close together the stages of a replica lie: 1 on one node or one fast interconnect. Absent where
    every replica has one stage."""
    fragmentation: float | None = None
    """Of the accelerators on the nodes that hold replicas, the share in use, by anybody."""
    spread: float | None = None
    """How evenly replicas lie over the domains of `placement.spreadReplicasAcross`; absent without it."""


class PlacementStatus(ApiModel):
    """How replicas stand in the cluster."""

    score: float | None = None
    """How well replicas stand, from 0 to 1: the parts in `scoreParts` that are known, weighed."""
    score_parts: ScoreParts | None = None
    """What the score is made of; the parts weigh 4, 2 and 1."""
    blocked: Annotated[tuple[BlockedNodes, ...], MapList("reason"), Field(max_length=16)] = ()
    """Nodes that refuse the replica that waits longest, by reason."""
    message: LongText | None = None
    """The same as a sentence."""
    node_provisioning: NodeProvisioningStatus | None = None
    """The nodes that are asked for."""
    rebalance: RebalanceStatus | None = None
    """What has become of `flotilla.dev/rebalance`."""
    moves: Annotated[tuple[PlacementMove, ...], MapList("group"), Field(max_length=64)] = ()
    """The moves that would raise the score, in their order, as `flotilla.dev/rebalance` asks for them."""


class ModelSize(ApiModel):
    """What a model's own files say of its memory, kept for when no replica is there to say it again."""

    source: Annotated[str, Field(max_length=512)]
    """The `spec.model.source` that was read."""
    revision: Annotated[str, Field(max_length=128)] | None = None
    """The `spec.model.revision` that was read."""
    weight_bytes: int
    """The weights, loaded, on all accelerators of a replica together."""
    weights_from: ShortText
    """Files (their sizes) or Config (counted from config.json, within about 1 %)."""
    table_bytes: int
    """One embedding table, part of the weights."""
    layers: int
    """Layers, with a KV cache or without."""
    attention_heads: int
    """Attention heads; `parallelism.tensor` must divide them."""
    kv_heads: int
    """Heads whose keys and values are kept; 1 with latent attention, 0 for an encoder."""
    kv_numbers: int
    """Numbers that one layer keeps of one token for one of these heads."""
    full_layers: int
    """Layers that keep every token."""
    sliding_layers: int = 0
    """Layers that keep the last `slidingWindow` tokens."""
    sliding_window: int | None = None
    """How many tokens those keep."""
    number_bytes: float
    """Bytes of one number in the KV cache, unless `engine.kvCacheDtype` says otherwise."""
    max_model_len: int | None = None
    """The longest sequence the model was made for."""


class Startup(ApiModel):
    """How long one replica took to serve."""

    group: ShortText
    """The replica."""
    revision: ShortText
    """The revision it was made from."""
    ready_time: Time
    """When it was ready."""
    seconds: float
    """From its pod's creation to then."""


class AnswersStatus(ApiModel):
    """What was answered in the last half hour, and how."""

    count: Count = 0
    """All answers."""
    failed: Count = 0
    """Those of 500 and above."""
    kept: Count = 0
    """Those that kept `slo`."""


class RolloutStatus(ApiModel):
    """How the newest revision does, and what runs if it has failed."""

    revision: ShortText = ""
    """The revision that the spec asks for."""
    good_revision: ShortText | None = None
    """The last revision that every replica ran, ready, and that has stood its trial."""
    failed_revision: ShortText | None = None
    """The revision that failed, while the last good one runs instead."""
    fault: ShortText | None = None
    """Why the newest revision failed: NotReady, MissesSLO or FailedAnswers."""
    message: LongText | None = None
    """The same as a sentence."""
    ready_replicas: Count = 0
    """Replicas of the newest revision that serve."""
    most_ready_replicas: Count = 0
    """The most of them that served at once: one that crashes and comes back is no progress."""
    outdated_replicas: Count = 0
    """Replicas of others."""
    progress_time: Time | None = None
    """When the update got on last, later by as long as its clock has stood since; absent without one."""
    trial_time: Time | None = None
    """Since when every replica is of the newest revision, while that one is on trial; moved likewise."""
    clock_stopped_time: Time | None = None
    """Since when no time passes for update and trial: the set is paused or waits for room, an old replica
    drains, or none is wanted."""
    answers: AnswersStatus | None = None
    """What the newest revision answered, while it is updated to or on trial."""
    answers_before_trial: AnswersStatus | None = None
    """Those of them that it gave before its trial, which do not count for that."""
    old_answers: AnswersStatus | None = None
    """What the old one answered, as far as it was seen last."""


class CapacityStatus(ApiModel):
    """What one replica can do; docs/capacity.md has the arithmetic. What is not known is absent."""

    kv_bytes_per_token: int | None = None
    """Memory of one token in the KV cache, all accelerators of a replica together."""
    weights_gib: float | None = Field(default=None, alias="weightsGiB")
    """The model's weights, all accelerators of a replica together."""
    accelerator_gib: float | None = Field(default=None, alias="acceleratorGiB")
    """The memory of one accelerator that this is counted with: `accelerator.memoryGiB`, or what the nodes
    say."""
    sequence_tokens: int | None = None
    """The length that `sequencesPerReplica` is counted with: the longest that the engine takes."""
    sequences_per_replica: float | None = None
    """Sequences of that length that fit the KV cache at once, sharing nothing."""
    sequences_per_replica_sharing_prefix: float | None = None
    """Those that fit where all begin with the same `traffic.sharedPrefixTokens`, which are kept once; absent
    without it."""
    rate_per_replica: float | None = None
    """Requests a second inside the promise, as learned."""
    startup_seconds: float | None = None
    """From a pod's creation to its first answer: the median of `startups`."""
    startups: Annotated[tuple[Startup, ...], MapList("group"), Field(max_length=5)] = ()
    """The newest starts."""
    model: ModelSize | None = None
    """What the model's own files say."""


class BackoffStatus(ApiModel):
    """Why no replica is made for a while."""

    failures: int
    """How many replicas failed in a row."""
    failed_time: Time
    """When the last one did."""
    until_time: Time
    """Before this time no replica is made."""
    reason: ShortText | None = None
    """What it was: GroupFailed, GroupIncomplete, or why the API server refused pods."""
    message: LongText | None = None
    """Which replica failed, and why."""


class LoadStatus(ApiModel):
    """What is going on."""

    waiting: int | None = None
    """Requests that wait in routers for a replica; those that wait inside an engine are with `running`."""
    running: int | None = None
    """Requests that replicas have: those that engines work on, and those that wait inside them."""
    arrival_per_second: float | None = None
    """Requests a second that need a replica, of the last minute: also those that are held, or refused for
    want of room or replicas; not those with a wrong key, path or size. Within a tenth and what chance makes
    of it. Absent while a router does not tell its own."""
    goodput_per_second: float | None = None
    """Answers a second that kept `slo`, of the last minute, told as `arrivalPerSecond` is; absent where it
    promises no time."""
    attainment: float | None = None
    """Of the answers of the last half hour, the share that kept `slo`; absent where that promises no time."""
    kv_usage: float | None = None
    """Share of the KV cache in use, from 0 to 1, within 0.05: the mean over the replicas that serve and whose
    engines say so. Absent where fewer than half of them do."""
    sessions: int | None = None
    """Conversations of the last ten minutes that are warm on a replica, within a tenth. One that comes
    through several routers is counted by each."""


class ScalingDecision(ApiModel):
    """One decision of the autoscaler."""

    time: Time
    """When."""
    from_replicas: int = Field(alias="from")
    """Replicas before."""
    to_replicas: int = Field(alias="to")
    """Replicas after."""
    reason: LongText
    """Why."""


class AutoscalingStatus(ApiModel):
    """Who decides the number of replicas."""

    owner: ShortText | None = None
    """Flotilla, or Replicas where `spec.replicas` counts."""
    mode: ShortText | None = None
    """What the autoscaler is doing."""
    last_decisions: Annotated[tuple[ScalingDecision, ...], Field(max_length=5)] = ()
    """The newest decisions."""


class ModelReplicaSetStatus(Status):
    """What there is."""

    replicas: int | None = None
    """Replicas that exist, counted by their leader pods."""
    ready_replicas: int | None = None
    """Those that serve."""
    desired_replicas: int | None = None
    """How many there should be."""
    draining_replicas: int | None = None
    """Those that leave."""
    ready: ShortText | None = None
    """Ready and desired, for the column."""
    selector: LongText | None = None
    """Selects the leader pods, for the scale subresource."""
    url: LongText | None = None
    """Where callers reach the model; OpenAI's paths lie below it."""
    groups: Annotated[tuple[GroupStatus, ...], MapList("name"), Field(max_length=50)] = ()
    """The replicas, those not Ready first; at most 50."""
    more_waiting: Annotated[tuple[WaitingStatus, ...], MapList("sinceTime"), Field(max_length=20)] = ()
    """Replicas that wait and are not among these, for they keep their turn without a name."""
    group_counts: GroupCounts | None = None
    """All replicas by phase."""
    placement: PlacementStatus | None = None
    """How replicas stand in the cluster."""
    backoff: BackoffStatus | None = None
    """What failed lately; absent when all is well again."""
    capacity: CapacityStatus | None = None
    """What one replica can do."""
    load: LoadStatus | None = None
    """What is going on."""
    rollout: RolloutStatus | None = None
    """The newest revision and the last good one."""
    autoscaling: AutoscalingStatus | None = None
    """Who decides the number of replicas."""
    cost_per_hour_usd: float | None = None
    """What the replicas cost."""


class ModelReplicaSet(ApiObject):
    """A model served by vLLM replicas, placed on the right nodes, behind a router that keeps conversations on
    the replica that holds their KV cache."""

    spec: ModelReplicaSetSpec
    """What is wanted."""
    status: ModelReplicaSetStatus = ModelReplicaSetStatus()
    """What there is."""
