"""Broken manifests on a real API server: each is refused, and the message says what to do.

Here: every CEL rule, the bounds that a user is likely to meet, and every field that this release does not
support. A fault that only the cluster shows (no node has enough GPUs, a secret is missing) is a condition and
is tested with the controllers.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from flotilla_operator.api.base import VALIDATIONS
from flotilla_operator.api.kinds import KINDS, Kind
from flotilla_operator.api.schema import not_yet, structural
from local_cluster.control_plane import ControlPlane
from local_cluster.errors import ApiError
from tests.builders.api_objects import changed, smallest

INVALID = 422
PLURALS = {kind.name: kind.plural for kind in KINDS}


def row(kind: str, path: str, value: Any, message: str, name: str) -> Any:
    return row_of(kind, {path: value}, message, name)


def row_of(kind: str, changes: dict[str, Any], message: str, name: str) -> Any:
    return pytest.param(kind, changes, message, id=f"{kind}: {name}")


def refusal(path: str) -> str:
    return f"{path} is not yet supported; "


SET, INDEX, FLEET = "ModelReplicaSet", "VectorIndex", "AgentFleet"
AGENT = {"name": "writer", "description": "Writes.", "prompt": "You write."}


def model_of(role: str, overflow_to: str | None = None) -> dict[str, Any]:
    """An entry of a fleet's models."""
    there = {} if overflow_to is None else {"overflowTo": overflow_to}
    return {"role": role, "modelRef": {"name": "llama"}, **there}


HTTP_TOOL = {"name": "weather", "http": {"url": "https://weather.example"}}
OPERATION = {"url": "https://docs.example/openapi.json", "operationId": "getWeather"}
REDIS_OUTSIDE = {"mode": "External", "urlSecretRef": {"name": "redis"}}
DEFAULT = {"role": "Default", "modelRef": {"name": "m"}}
INVALID_TEXT = 'Invalid value: "string"'
MILVUS_OUTSIDE = {"mode": "External", "uri": "http://milvus:19530"}

NAMES = [
    row(SET, "metadata__name", "m" * 41, "at most 40 characters", "a name too long for its children"),
    row(SET, "metadata__name", "7b", "must start with a letter", "a name that no Service could have"),
    row(INDEX, "metadata__name", "my.index", "must start with a letter", "a name with a dot"),
    row(FLEET, "metadata__name", "a" * 41, "at most 40 characters", "a fleet's name too long"),
]

MODEL_REPLICA_SETS = [
    row(
        SET,
        "spec__update",
        {"maxSurge": 0, "maxUnavailable": 0},
        "spec.update.maxSurge and spec.update.maxUnavailable must not both be 0",
        "an update that could exchange nothing",
    ),
    row(SET, "spec__model", None, "spec.model: Required value", "no model"),
    row(SET, "spec__model__source", None, "spec.model.source: Required value", "no source"),
    row(
        SET,
        "spec__model__source",
        "s3://bucket/model",
        "spec.model.source must be hf://organisation/name or pvc://claim/folder",
        "a source of another scheme",
    ),
    row(
        SET,
        "spec__model__source",
        "hf://smollm2",
        "spec.model.source must be hf://organisation/name",
        "a hub source without an organisation",
    ),
    *(
        row(
            SET,
            "spec__model__source",
            f"hf://{names}",
            "spec.model.source must be hf://organisation/name",
            f"a hub source {names}",
        )
        for names in ("../..", "./model", "org/..", "org/.", "org/.model")
    ),
    row(
        SET,
        "spec__model",
        {"name": "m", "source": "hf://org/model", "revision": "a/../../other--model"},
        "spec.model.revision must not contain ..; name a branch, a tag or a commit",
        "a revision that leads upwards",
    ),
    row(
        SET,
        "spec__model__source",
        "image://registry.example/model:1",
        "spec.model.source with image:// is not yet supported; use hf:// or pvc://",
        "a model from an image",
    ),
    row(
        SET,
        "spec__model__source",
        "pvc://models/a\tb",
        "spec.model.source must be hf://organisation/name or pvc://claim/folder",
        "a control character in a folder's name",
    ),
    row(
        SET,
        "spec__model__source",
        "pvc://models/../other",
        "spec.model.source must not contain a folder named ..; write the path without it",
        "a model's folder that leads upwards",
    ),
    row(
        SET,
        "spec__model__revision",
        "main",
        "spec.model.revision and spec.model.tokenSecretRef are for hf:// sources only; remove them",
        "a revision of files on a claim",
    ),
    row(
        SET,
        "spec__model__tokenSecretRef",
        {"name": "hf"},
        "spec.model.revision and spec.model.tokenSecretRef are for hf:// sources only; remove them",
        "a hub's token for files on a claim",
    ),
    row(SET, "spec__model__task", "Translate", 'supported values: "Generate", "Embed"', "an unknown task"),
    row(SET, "spec__parallelism__tensor", 0, "greater than or equal to 1", "tensor 0"),
    row(SET, "spec__parallelism__tensor", 17, "less than or equal to 16", "tensor 17"),
    row(SET, "spec__replicas", -1, "greater than or equal to 0", "fewer than no replicas"),
    row(
        SET,
        "spec__accelerator",
        {"products": ["H100"]},
        "spec.accelerator needs exactly one of resource and deviceClass",
        "an accelerator without a resource",
    ),
    row(
        SET,
        "spec__accelerator",
        {"resource": "nvidia.com/gpu", "deviceClass": {"name": "gpu.nvidia.com"}},
        "spec.accelerator needs exactly one of resource and deviceClass",
        "resource and deviceClass",
    ),
    row(
        SET,
        "spec",
        {
            "model": {"name": "llama", "source": "hf://meta/llama"},
            "accelerator": {"deviceClass": {"name": "gpu.nvidia.com"}},
            "placement": {"nodeProvisioning": {"mode": "Placeholders"}},
        },
        "spec.placement.nodeProvisioning.mode Placeholders does not work with spec.accelerator.deviceClass",
        "placeholders for devices",
    ),
    row(SET, "spec__router__loadFactor", 1, "should be greater than 1", "a load factor that bounds nothing"),
    row(
        SET,
        "spec__modelCache",
        {"mode": "Claim"},
        "spec.modelCache.claimName is required with spec.modelCache.mode Claim and not allowed",
        "a cache on a claim without its name",
    ),
    row(
        SET,
        "spec__modelCache",
        {"claimName": "models"},
        "spec.modelCache.claimName is required with spec.modelCache.mode Claim and not allowed",
        "a claim for a cache of another mode",
    ),
    row(SET, "spec__modelCache__path", "models", "should match", "a node's folder that is not absolute"),
    row(
        SET,
        "spec__engine__speculative",
        {"method": "Draft"},
        "spec.engine.speculative.model is required with method Draft or Eagle and not allowed with NGram",
        "a draft without a model",
    ),
    row(
        SET,
        "spec__engine__speculative",
        {"method": "NGram", "model": "hf://acme/small"},
        "spec.engine.speculative.model is required with method Draft or Eagle and not allowed with NGram",
        "a lookup with a model",
    ),
    row(
        SET,
        "spec__engine__speculative",
        {"method": "Draft", "model": "acme/small"},
        "spec.engine.speculative.model must be hf://organisation/name or pvc://claim/folder",
        "a draft without a scheme",
    ),
    row(
        SET,
        "spec__engine__speculative",
        {"method": "Draft", "model": "pvc://models/../small"},
        "spec.engine.speculative.model must not contain a folder named ..",
        "a draft that leads upwards",
    ),
    row(
        SET,
        "spec__engine__speculative",
        {"method": "NGram", "numTokens": 0},
        "greater than or equal to 1",
        "a guess of no token",
    ),
    row(
        SET,
        "spec__engine__adapters",
        [{"name": "sql", "source": "image://registry.example/sql:1"}],
        "spec.engine.adapters[].source must be hf://organisation/name or pvc://claim/folder",
        "an adapter from an image",
    ),
    row(
        SET,
        "spec__engine__adapters",
        [{"name": "sql", "source": "pvc://models/../sql"}],
        "spec.engine.adapters[].source must not contain a folder named ..",
        "an adapter that leads upwards",
    ),
    row(
        SET,
        "spec__engine__adapters",
        [{"name": "sql", "source": "pvc://models/sql", "revision": "v1"}],
        "spec.engine.adapters[].revision is for hf:// sources only",
        "a revision of an adapter on a claim",
    ),
    row(
        SET,
        "spec__engine__adapters",
        [{"name": "sql", "source": "hf://acme/sql", "revision": "a/../b"}],
        "spec.engine.adapters[].revision must not contain ..",
        "an adapter's revision that leads upwards",
    ),
    row(
        SET,
        "spec__engine__adapters",
        [{"name": "sql", "source": "hf://acme/sql", "rank": 513}],
        "less than or equal to 512",
        "an adapter of a rank that no engine has room for",
    ),
    row(
        SET,
        "spec__engine__adapters",
        [{"name": "m", "source": "hf://acme/sql"}],
        "spec.engine.adapters[].name must differ from spec.model.name",
        "an adapter with the model's name",
    ),
    row(
        SET,
        "spec__engine__adapters",
        [{"name": "sql", "source": "hf://acme/sql"}, {"name": "sql", "source": "hf://acme/other"}],
        "Duplicate value",
        "two adapters of one name",
    ),
    row(
        SET,
        "spec__engine__kvOffloadGiB",
        4,
        "spec.engine.kvOffloadGiB needs spec.accelerator",
        "a KV cache that is in the node's memory already",
    ),
    row_of(
        SET,
        {
            "spec__model__task": "Embed",
            "spec__accelerator": {"resource": "nvidia.com/gpu"},
            "spec__engine__kvOffloadGiB": 4,
        },
        "spec.engine.kvOffloadGiB is for task Generate only",
        "an embedder that keeps conversations",
    ),
    row_of(
        SET,
        {"spec__model__task": "Embed", "spec__engine__speculative": {"method": "NGram"}},
        "spec.engine.speculative is for task Generate only",
        "an embedder that guesses",
    ),
    row_of(
        SET,
        {
            "spec__accelerator": {"resource": "amd.com/gpu"},
            "spec__engine__kvCacheDtype": "FP8E5M2",
        },
        "spec.engine.kvCacheDtype FP8E5M2 does not work on AMD accelerators; use FP8",
        "a type of number that AMD's accelerators lack",
    ),
    row(
        SET,
        "spec__engine",
        {"chunkedPrefill": False, "maxNumSeqs": 2049},
        "spec.engine.chunkedPrefill false needs spec.engine.maxModelLen if",
        "whole prompts of any length beside thousands of sequences",
    ),
    row(
        SET,
        "spec__engine",
        {
            "chunkedPrefill": False,
            "maxNumSeqs": 1000,
            "speculative": {"method": "NGram", "numTokens": 2},
            "adapters": [{"name": "sql", "source": "hf://acme/sql"}],
        },
        "spec.engine.chunkedPrefill false needs spec.engine.maxModelLen if",
        "whole prompts of any length beside thousands of guesses",
    ),
    row(
        SET,
        "spec__engine",
        {"maxModelLen": 16, "speculative": {"method": "NGram", "numTokens": 16}},
        "spec.engine.maxModelLen must be more than spec.engine.speculative.numTokens",
        "guesses longer than any answer",
    ),
    row_of(
        SET,
        {"spec__engine__maxModelLen": 8192, "spec__traffic__sharedPrefixTokens": 8192},
        "spec.traffic.sharedPrefixTokens must be less than spec.engine.maxModelLen",
        "a shared prefix that leaves nothing of a sequence",
    ),
    row_of(
        SET,
        {"spec__engine__prefixCaching": False, "spec__traffic__sharedPrefixTokens": 1500},
        "spec.traffic.sharedPrefixTokens needs spec.engine.prefixCaching true",
        "a shared prefix that is not kept",
    ),
    row_of(
        SET,
        {"spec__model__task": "Embed", "spec__traffic__sharedPrefixTokens": 1500},
        "spec.traffic.sharedPrefixTokens is for task Generate only",
        "a shared prefix of texts to embed",
    ),
    row(
        SET,
        "spec__traffic__sharedPrefixTokens",
        0,
        "greater than or equal to 1",
        "a shared prefix of no token",
    ),
    *(
        row(
            SET,
            "spec__engine__extraArgs",
            ["--seed", "7", *arguments],
            "spec.engine.extraArgs must not contain --api-key",
            f"an engine with a key of its own, {arguments[0]}",
        )
        for arguments in (("--api-key", "k"), ("--api-key=k",), ("--api_key=k",))
    ),
    *(
        row(
            SET,
            "spec__engine__extraArgs",
            ["--seed", "7", *arguments],
            "spec.engine.extraArgs must not contain --model; set spec.model.source",
            f"another model than the one that is fetched, {arguments[0]}",
        )
        for arguments in (("--model", "/models/other"), ("--model=/models/other",))
    ),
    row_of(
        SET,
        {
            "spec__router__authSecretRef": {"name": "keys"},
            "spec__engine__env": [{"name": "VLLM_API_KEY", "value": "k"}],
        },
        "spec.engine.env must not contain VLLM_API_KEY while spec.router.authSecretRef is set",
        "engines and routers that ask callers for different keys",
    ),
    row(SET, "spec__engine__extraArgs", ["x" * 1025], "may not be more than 1024", "an endless argument"),
    row(SET, "spec__engine__resources", {"limits": {"memory": "much"}}, "should match", "no quantity"),
    row(
        SET,
        "spec__engine__env",
        [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}],
        "Duplicate value",
        "a variable twice",
    ),
    row(
        SET,
        "spec__pod__volumes",
        [{"emptyDir": {}}],
        "volumes[0].name: Required value",
        "a volume without name",
    ),
]

AUTOSCALING = [
    row(
        SET,
        "spec__autoscaling",
        {"minReplicas": 3, "maxReplicas": 2},
        "spec.autoscaling.minReplicas must not be greater than spec.autoscaling.maxReplicas",
        "more replicas at least than at most",
    ),
    row(
        SET,
        "spec__autoscaling",
        {"maxReplicas": 2},
        "spec.autoscaling.minReplicas must be 0, because other values are not yet supported",
        "a least number that nothing holds yet",
    ),
    row(
        SET,
        "spec__autoscaling",
        {"maxReplicas": 2, "goodput": {}},
        "spec.autoscaling.goodput needs spec.slo",
        "goodput without a promise",
    ),
    row(
        SET,
        "spec__autoscaling",
        {"maxReplicas": 2, "scaleToZeroAfterSeconds": 60},
        "spec.autoscaling.scaleToZeroAfterSeconds needs spec.autoscaling.minReplicas 0",
        "scale to zero above zero",
    ),
    row(SET, "spec__slo", {"attainment": 0}, "should be greater than 0", "an attainment of nothing"),
    row(SET, "spec__slo", {"attainment": 1.1}, "less than or equal to 1", "an attainment above all"),
]

VECTOR_INDEXES = [
    row(INDEX, "spec__embedding", None, "spec.embedding: Required value", "no embedder"),
    row(INDEX, "spec__embedding__dimension", None, "dimension: Required value", "no dimension"),
    row(
        INDEX,
        "spec__source__path",
        "/documents",
        "spec.source.path must be pvc://claim/folder or configmap://name",
        "a path without a scheme",
    ),
    row(
        INDEX,
        "spec__source__path",
        "configmap://house-rules/leave.md",
        "to index only some entries of a ConfigMap, list them in spec.source.include",
        "one entry of a ConfigMap",
    ),
    row(
        INDEX,
        "spec__source__path",
        "pvc://documents//handbook",
        "spec.source.path must be pvc://claim/folder or configmap://name",
        "a folder without a name",
    ),
    row(
        INDEX,
        "spec__source__path",
        "pvc://documents/handbook/..",
        "spec.source.path must not contain a folder named ..; write the path without it",
        "a folder that leads upwards",
    ),
    row(
        INDEX,
        "spec__source__path",
        "s3://bucket/documents",
        "spec.source.path with s3:// or https:// is not yet supported; use pvc:// or configmap://",
        "documents in an object store",
    ),
    row(
        INDEX,
        "spec__source__path",
        "https://example.com/list.txt",
        "spec.source.path with s3:// or https:// is not yet supported; use pvc:// or configmap://",
        "documents on the web",
    ),
    row(
        INDEX,
        "spec__milvus__mode",
        "Standalone",
        "spec.milvus.mode Standalone and Distributed are not yet supported",
        "a Milvus server of its own",
    ),
    row(
        INDEX,
        "spec__milvus__mode",
        "Distributed",
        "spec.milvus.mode Standalone and Distributed are not yet supported",
        "a Milvus cluster",
    ),
    row(
        INDEX,
        "spec__milvus__mode",
        "External",
        "spec.milvus.uri is required with spec.milvus.mode External and not allowed with other modes",
        "an external Milvus without its address",
    ),
    row(
        INDEX,
        "spec__milvus__uri",
        "http://milvus:19530",
        "spec.milvus.uri is required with spec.milvus.mode External and not allowed with other modes",
        "an address for a Milvus of our own",
    ),
    row(
        INDEX,
        "spec__milvus__database",
        "books",
        "spec.milvus.database and spec.milvus.tokenSecretRef are for spec.milvus.mode External only",
        "a database in Milvus Lite",
    ),
    row(
        INDEX,
        "spec__milvus__tokenSecretRef",
        {"name": "milvus"},
        "spec.milvus.database and spec.milvus.tokenSecretRef are for spec.milvus.mode External only",
        "a token for Milvus Lite",
    ),
    row(
        INDEX,
        "spec__milvus",
        {**MILVUS_OUTSIDE, "image": "registry.example/milvus:1"},
        "spec.milvus.image, spec.milvus.storage and spec.milvus.pod are for spec.milvus.mode Lite only",
        "an image for a Milvus outside",
    ),
    row(
        INDEX,
        "spec__milvus",
        {**MILVUS_OUTSIDE, "storage": {"size": "20Gi"}},
        "spec.milvus.image, spec.milvus.storage and spec.milvus.pod are for spec.milvus.mode Lite only",
        "a claim for a Milvus outside",
    ),
    row(
        INDEX,
        "spec__milvus",
        {**MILVUS_OUTSIDE, "storage": {"storageClassName": "fast"}},
        "spec.milvus.image, spec.milvus.storage and spec.milvus.pod are for spec.milvus.mode Lite only",
        "a storage class for a Milvus outside",
    ),
    row(
        INDEX,
        "spec__milvus",
        {**MILVUS_OUTSIDE, "pod": {"nodeSelector": {"a": "b"}}},
        "spec.milvus.image, spec.milvus.storage and spec.milvus.pod are for spec.milvus.mode Lite only",
        "options of a pod for a Milvus outside",
    ),
    row(
        INDEX,
        "spec__milvus",
        {**MILVUS_OUTSIDE, "uri": "http://root:hush@milvus:19530"},
        "a URL must not have a user or a password in it, because everybody who reads the object sees them",
        "a password of a Milvus outside",
    ),
    row(
        INDEX,
        "spec__processing",
        {"chunkTokens": 32, "overlapTokens": 32},
        "spec.processing.overlapTokens must be less than spec.processing.chunkTokens",
        "chunks that never end",
    ),
    row(
        INDEX,
        "spec__processing__chunkTokens",
        20,
        "spec.processing.overlapTokens must be less than spec.processing.chunkTokens",
        "chunks shorter than the default overlap",
    ),
    row(INDEX, "spec__retention__generations", 0, "greater than or equal to 1", "nothing kept"),
]

AGENT_FLEETS = [
    row(FLEET, "spec__agent", {}, "spec.agent needs exactly one of prompt", "an agent that is nothing"),
    row(
        FLEET,
        "spec__agent",
        {"entrypoint": "app:main"},
        "spec.agent.entrypoint needs spec.image",
        "an agent that no image brings",
    ),
    row(
        FLEET,
        "spec__agent",
        {"graph": "app:graph"},
        "spec.agent.graph needs spec.image",
        "a graph that no image brings",
    ),
    row(
        FLEET,
        "spec__agent__graph",
        "app:graph",
        "spec.agent needs exactly one of prompt",
        "an agent and a graph",
    ),
    row(FLEET, "spec__agent__retrieval", "Never", 'supported values: "First", "Tool"', "no such retrieval"),
    row(
        FLEET,
        "spec__agent__entrypoint",
        "app:main",
        "spec.agent needs exactly one of prompt",
        "an agent that is two things",
    ),
    row(FLEET, "spec__models", [], "should have at least 1 items", "no model"),
    row(
        FLEET,
        "spec__models__0__role",
        "Judge",
        "spec.models needs an entry with role Default",
        "no default model",
    ),
    row(
        FLEET,
        "spec__models__0__endpoint",
        {"url": "https://api.example/v1", "model": "m"},
        "each entry of spec.models needs exactly one of modelRef and endpoint",
        "a model here and outside",
    ),
    row(
        FLEET,
        "spec__models__0",
        {"role": "Default", "endpoint": {"url": "https://user:hush@api.example/v1", "model": "m"}},
        "a URL must not have a user or a password in it, because everybody who reads the object sees them; "
        "put them into a Secret and name it in apiKeySecretRef",
        "a password of a model outside",
    ),
    row(
        FLEET,
        "spec__models",
        [{"role": "Default", "modelRef": {"name": "a"}}, {"role": "Default", "modelRef": {"name": "b"}}],
        "Duplicate value",
        "two default models",
    ),
    row(
        FLEET,
        "spec__models",
        [{"role": "Judge", "modelRef": {"name": "a"}}, {"role": "JUDGE", "modelRef": {"name": "b"}}, DEFAULT],
        "spec.models must not have two roles that differ only in capitals",
        "two roles that one variable would name",
    ),
    row(
        FLEET,
        "spec__models__0__pricing",
        {"inputPerMillionUSD": -1},
        "greater than or equal to 0",
        "a model that pays",
    ),
    row(
        FLEET,
        "spec__models__0__timeouts",
        {"firstTokenSeconds": 0},
        "should be greater than 0",
        "a model that must answer at once",
    ),
    row(FLEET, "spec__limits__maxCostUSD", 0, "should be greater than 0", "a task that may cost nothing"),
    row(FLEET, "spec__queue__maxStoredMiB", 0, "greater than or equal to 1", "room for nothing"),
    row(
        FLEET,
        "spec__gateway__callerLimits",
        {"queuePercent": 101},
        "less than or equal to 100",
        "a caller that may take more than all",
    ),
    row(
        FLEET,
        "spec__gateway__callerLimits",
        {"requestsPerMinute": 0},
        "greater than or equal to 1",
        "a caller that may ask nothing",
    ),
    row(FLEET, "spec__slo", {"percentile": 100}, "should be less than 100", "an objective for every task"),
    row(
        FLEET,
        "spec__workers__pod__volumes",
        [{"name": "redis", "emptyDir": {}}],
        "spec.workers.pod.volumes must not be named config or redis",
        "a volume with the name of ours",
    ),
    row(
        FLEET,
        "spec__workers__pod__volumeMounts",
        [{"name": "a", "mountPath": "/var/run/flotilla/tools"}],
        "spec.workers.pod.volumeMounts must not be below /etc/flotilla or /var/run/flotilla",
        "a mount over ours",
    ),
    row(
        FLEET,
        "spec__workers",
        {"minReplicas": 3, "maxReplicas": 2},
        "spec.workers.minReplicas must not be greater than spec.workers.maxReplicas",
        "more workers at least than at most",
    ),
    row(
        FLEET,
        "spec__toolExecutors",
        {"minReplicas": 3, "maxReplicas": 2},
        "spec.toolExecutors.minReplicas must not be greater than spec.toolExecutors.maxReplicas",
        "more executors at least than at most",
    ),
    row(
        FLEET,
        "spec__toolExecutors__pod__volumes",
        [{"name": "flotilla-x", "emptyDir": {}}],
        "spec.toolExecutors.pod.volumes must not be named config or redis",
        "a volume of executors with the name of ours",
    ),
    row(
        FLEET,
        "spec__toolExecutors__pod__volumeMounts",
        [{"name": "a", "mountPath": "/etc/flotilla"}],
        "spec.toolExecutors.pod.volumeMounts must not be below /etc/flotilla or /var/run/flotilla",
        "a mount of executors over ours",
    ),
    row(
        FLEET,
        "spec__queue__redis__mode",
        "External",
        "spec.queue.redis.urlSecretRef is required with spec.queue.redis.mode External and not allowed",
        "an external Redis without its address",
    ),
    row(
        FLEET,
        "spec__queue__redis__urlSecretRef",
        {"name": "redis"},
        "spec.queue.redis.urlSecretRef is required with spec.queue.redis.mode External and not allowed",
        "an address for a Redis of our own",
    ),
    row(
        FLEET,
        "spec__queue__redis",
        {"mode": "External", "urlSecretRef": {"name": "redis"}, "pod": {"nodeSelector": {"a": "b"}}},
        "spec.queue.redis.pod is for spec.queue.redis.mode Managed only",
        "options of a pod for a Redis outside",
    ),
    row(
        FLEET,
        "spec__queue__redis",
        {"topology": "Cluster"},
        "spec.queue.redis.topology Sentinel and Cluster need spec.queue.redis.mode External",
        "a cluster of our own",
    ),
    row(
        FLEET,
        "spec__queue__redis",
        {**REDIS_OUTSIDE, "topology": "Sentinel"},
        "spec.queue.redis.sentinel is required with spec.queue.redis.topology Sentinel and not allowed",
        "sentinels that watch nothing",
    ),
    row(
        FLEET,
        "spec__queue__redis",
        {**REDIS_OUTSIDE, "sentinel": {"master": "mymaster"}},
        "spec.queue.redis.sentinel is required with spec.queue.redis.topology Sentinel and not allowed",
        "a name that no sentinel is asked for",
    ),
    row(
        FLEET,
        "spec__queue__payloads",
        {"url": "https://bucket.example/prefix"},
        "spec.queue.payloads.url",
        "payloads in a bucket by https",
    ),
    row(
        FLEET,
        "spec__queue__payloads",
        {"url": "s3://bucket/../another"},
        "spec.queue.payloads.url",
        "payloads in a prefix that leads out of the bucket",
    ),
    row(
        FLEET,
        "spec__queue__payloads",
        {"url": "s3://bucket", "region": "eu/../x"},
        "spec.queue.payloads.region",
        "a region that would change the host",
    ),
    row(
        FLEET,
        "spec__telemetry",
        {"otlpEndpoint": "https://traces.example/otel?key=secret"},
        "spec.telemetry.otlpEndpoint must have no query and no fragment",
        "traces to an address on which nothing can follow",
    ),
    row(
        FLEET,
        "spec__telemetry",
        {"otlpEndpoint": "https://key:secret@traces.example"},
        "a URL must not have a user or a password in it",
        "traces with a password that everybody reads",
    ),
    row(
        FLEET,
        "spec__telemetry",
        {"otlpEndpoint": "https://traces.example", "samplePercent": 101},
        "spec.telemetry.samplePercent",
        "more than all traces",
    ),
    row(
        FLEET,
        "spec__gateway__auth",
        {"trusted": ["front-end"]},
        "spec.gateway.auth.trusted is for spec.gateway.auth.mode Secret only",
        "trust without keys",
    ),
    row(
        FLEET,
        "spec__gateway__auth",
        {"approvers": ["boss"]},
        "spec.gateway.auth.approvers is for spec.gateway.auth.mode Secret only",
        "approvers without keys",
    ),
    row(
        FLEET,
        "spec__gateway__auth__mode",
        "Secret",
        "spec.gateway.auth.secretRef is required with spec.gateway.auth.mode Secret and not allowed",
        "callers' keys without the secret",
    ),
    row(
        FLEET,
        "spec__gateway__auth__secretRef",
        {"name": "callers"},
        "spec.gateway.auth.secretRef is required with spec.gateway.auth.mode Secret and not allowed",
        "callers' keys that nothing reads",
    ),
    *(
        row(FLEET, "spec__agents", [{**AGENT, **wrong}], message, words)
        for wrong, message, words in (
            (
                {"tools": ["pay"]},
                "spec.agents[].tools names an entry that spec.tools does not have; add it there",
                "a tool of an agent that there is not",
            ),
            (
                {"indexes": ["news"]},
                "spec.agents[].indexes names an entry that spec.indexes does not have; add it there",
                "an index of an agent that there is not",
            ),
            (
                {"role": "Routine"},
                "spec.agents[].role names a role that no entry of spec.models has; add one",
                "a role of an agent that there is not",
            ),
            ({"role": "Embed"}, "spec.agents[].role must not be Embed", "an agent that embeds"),
            ({"prompt": None}, "spec.agents[0].prompt", "an agent without a prompt"),
        )
    ),
    row_of(
        FLEET,
        {"spec__tools": [HTTP_TOOL], "spec__agents": [{**AGENT, "name": "weather"}]},
        "an entry of spec.agents must not have the name of one of spec.tools",
        "an agent with the name of a tool",
    ),
    *(
        row(FLEET, "spec__validators", [{"name": "cites", **wrong}], message, words)
        for wrong, message, words in (
            (
                {},
                "each entry of spec.validators needs exactly one of python, http and judge",
                "a validator that is nothing",
            ),
            (
                {"http": {"url": "https://a.example"}, "judge": {"prompt": "Be fair."}},
                "each entry of spec.validators needs exactly one of python, http and judge",
                "a validator that is two things",
            ),
            (
                {"python": "app:cites"},
                "spec.validators[].python needs spec.image",
                "a validator that no image brings",
            ),
            (
                {"judge": {"prompt": "Be fair."}},
                "spec.validators[].judge.role names a role that no entry of spec.models has; add one",
                "a judge that there is not",
            ),
            (
                {"judge": {"role": "Embed", "prompt": "Be fair."}},
                "spec.validators[].judge.role must not be Embed",
                "a judge that embeds",
            ),
            (
                {"http": {"url": "https://u:hush@a.example"}},
                "spec.validators[0].http.url",
                "a validator with a password in its URL",
            ),
            (
                {"http": {"url": "https://a.example"}, "timeoutSeconds": 0},
                "spec.validators[0].timeoutSeconds",
                "a validator without time",
            ),
        )
    ),
    row(
        FLEET,
        "spec__tools",
        [{"name": "nothing"}],
        "each entry of spec.tools needs exactly one of http, mcp, python and sql",
        "a tool that is nothing",
    ),
    row(
        FLEET,
        "spec__tools",
        [{**HTTP_TOOL, "python": "shop:order"}],
        "each entry of spec.tools needs exactly one of http, mcp, python and sql",
        "a tool that is two things",
    ),
    row(
        FLEET,
        "spec__cache",
        {"semanticThreshold": 0.95},
        "spec.cache.semanticThreshold needs an entry of spec.models with role Embed",
        "a semantic cache without a model that embeds",
    ),
    row(
        FLEET,
        "spec__rateLimits",
        [{"name": "openai"}],
        "each entry of spec.rateLimits needs requestsPerMinute, tokensPerMinute or both",
        "a rate limit that limits nothing",
    ),
    row(
        FLEET,
        "spec__models__0__rateLimit",
        "openai",
        "spec.models[].rateLimit must name an entry of spec.rateLimits",
        "a model's rate limit that is not there",
    ),
    row(
        FLEET,
        "spec__tools",
        [{**HTTP_TOOL, "rateLimit": "openai"}],
        "spec.tools[].rateLimit must name an entry of spec.rateLimits",
        "a tool's rate limit that is not there",
    ),
    row(
        FLEET,
        "spec__models__0__overflowTo",
        "Routine",
        "spec.models[].overflowTo must name the role of another entry of spec.models",
        "an overflow to a role that is not there",
    ),
    row(
        FLEET,
        "spec__models",
        [model_of("Default", "Embed"), model_of("Embed")],
        "neither may be Embed",
        "an overflow to a model that embeds",
    ),
    row(
        FLEET,
        "spec__models",
        [model_of("Default", "Default")],
        "spec.models[].overflowTo must not lead back",
        "an overflow to itself",
    ),
    row(
        FLEET,
        "spec__models",
        [model_of("Default", "A"), model_of("A", "B"), model_of("B", "Default")],
        "spec.models[].overflowTo must not lead back",
        "an overflow in a ring of three",
    ),
    row(
        FLEET,
        "spec__models",
        [
            *(model_of(role, f"{role}x") for role in ("Default", "Defaultx", "Defaultxx", "Defaultxxx")),
            model_of("Defaultxxxx"),
        ],
        "spec.models[].overflowTo must not lead back",
        "an overflow over four others",
    ),
    row(
        FLEET,
        "spec__tools",
        [{"name": "order", "python": "shop:order"}],
        "spec.tools[].python and spec.tools[].reconcile.python need spec.image",
        "a function that no image brings",
    ),
    row(
        FLEET,
        "spec__tools",
        [{**HTTP_TOOL, "reconcile": {"python": "shop:happened"}}],
        "spec.tools[].python and spec.tools[].reconcile.python need spec.image",
        "a function to ask that no image brings",
    ),
    row_of(
        FLEET,
        {
            "spec__image": "registry.example/agents:1",
            "spec__tools": [{"name": "a", "python": "a:b", "parameters": {"type": "object"}}],
        },
        "spec.tools[].parameters must not be set beside python",
        "arguments that the function knows better",
    ),
    row(
        FLEET,
        "spec__tools",
        [{**HTTP_TOOL, "parameters": {"properties": {}}}],
        "parameters.type: Required value",
        "arguments that are no object",
    ),
    row(
        FLEET,
        "spec__tools",
        [{**HTTP_TOOL, "effect": "Pure", "reconcile": {"http": {"url": "https://a.example"}}}],
        "spec.tools[].reconcile is for tools with effect Unsafe only",
        "a call to ask about that can be repeated",
    ),
    row(
        FLEET,
        "spec__tools",
        [{**HTTP_TOOL, "reconcile": {}}],
        "spec.tools[].reconcile needs exactly one of http and python",
        "a call that nobody is asked about",
    ),
    row(
        FLEET,
        "spec__tools",
        [{"name": "a", "http": {}}],
        "spec.tools[].http needs url, or openapi",
        "a tool nowhere",
    ),
    row(
        FLEET,
        "spec__tools",
        [{"name": "a", "http": {"openapi": {"url": "ftp://a.example", "operationId": "x"}}}],
        "spec.tools[0].http.openapi.url",
        "a document that is not on the web",
    ),
    row(
        FLEET,
        "spec__tools",
        [{"name": "git", "mcp": {"url": "https://mcp.example"}, "parameters": {"type": "object"}}],
        "spec.tools[].parameters must not be set beside mcp",
        "arguments that the server knows better",
    ),
    row(
        FLEET,
        "spec__tools",
        [{"name": "cities", "sql": {"urlSecretRef": {"name": "db"}, "query": ""}}],
        "spec.tools[0].sql.query",
        "a query that is none",
    ),
    row(
        FLEET,
        "spec__tools",
        [{"name": "git", "mcp": {"url": "stdio:///bin/git"}}],
        "spec.tools[0].mcp.url",
        "a server that is a program",
    ),
    row(
        FLEET,
        "spec__tools",
        [{**HTTP_TOOL, "http": {"openapi": OPERATION}, "parameters": {"type": "object"}}],
        "spec.tools[].parameters must not be set beside http.openapi",
        "arguments that the document knows better",
    ),
    row(
        FLEET,
        "spec__tools",
        [{"name": "a", "http": {"url": "file:///etc/passwd"}}],
        "spec.tools[0].http.url",
        "a tool that is a file",
    ),
    row(
        FLEET,
        "spec__tools",
        [{"name": "a", "http": {"url": "https://hush@tool.example/"}}],
        f"spec.tools[0].http.url: {INVALID_TEXT}: a URL must not have a user or a password in it",
        "a user of a tool",
    ),
    row(
        FLEET,
        "spec__tools",
        [{**HTTP_TOOL, "reconcile": {"http": {"url": "https://u:hush@tool.example?a"}}}],
        f"spec.tools[0].reconcile.http.url: {INVALID_TEXT}: a URL must not have a user or a password in it",
        "a password of who knows whether a call happened",
    ),
]

# A value of the right type, for each field that this release refuses.
NOT_YET_VALUES: dict[str, dict[str, Any]] = {
    SET: {
        "spec.slo.tpotSeconds": 0.05,
        "spec.slo.windowSeconds": 300,
        "spec.autoscaling.queueDepth": {},
        "spec.autoscaling.goodput": {},
        "spec.autoscaling.scaleUp": {},
        "spec.autoscaling.scaleDown": {},
        "spec.autoscaling.mode": "Active",
        "spec.disaggregation": {"prefill": {}, "decode": {}},
        "spec.pricing.gpuHourUSD": 2.5,
    },
    INDEX: {
        "spec.source.schedule": "*/15 * * * *",
        "spec.source.secretRef": {"name": "s3"},
        "spec.source.endpoint": "https://minio.example",
        "spec.source.region": "eu-central-1",
        "spec.processing.deduplicate": {},
        "spec.index.shards": 2,
        "spec.index.replicas": 2,
        "spec.index.partitionKey": "tenant",
        "spec.index.hybrid": True,
        "spec.gate.minRecallAt10": 0.95,
        "spec.gate.goldenSetRef": {"name": "golden"},
        "spec.gate.minNDCG": 0.5,
        "spec.gate.maxP99Milliseconds": 100,
        "spec.gate.sample": 200,
        "spec.retriever.hedge": {},
        "spec.freshness": {},
    },
}

FIELDS_BESIDE = {"spec.autoscaling": {"minReplicas": 0, "maxReplicas": 1}}


def not_yet_row(kind: str, path: str, value: Any) -> Any:
    """The field alone, or with those that its parent needs."""
    parent, _, name = path.rpartition(".")
    message, words = refusal(path), f"not yet {path}"
    if parent in FIELDS_BESIDE:
        return row(kind, parent.replace(".", "__"), {**FIELDS_BESIDE[parent], name: value}, message, words)
    return row(kind, path.replace("[]", ".0").replace(".", "__"), value, message, words)


NOT_YET = [
    not_yet_row(kind, path, value)
    for kind, fields in NOT_YET_VALUES.items()
    for path, value in fields.items()
]

# The options of each component's pods, with a variable that Flotilla sets in them.
POD_OPTIONS = {
    (SET, "spec.router.pod"): "VLLM_API_KEY",
    (INDEX, "spec.milvus.pod"): "FLOTILLA_X",
    (INDEX, "spec.build.pod"): "JOB_UID",
    (INDEX, "spec.retriever.pod"): "FLOTILLA_MILVUS_TOKEN",
    (FLEET, "spec.queue.redis.pod"): "REDISCLI_AUTH",
    (FLEET, "spec.gateway.pod"): "FLOTILLA_POD_NAME",
    (FLEET, "spec.workers.pod"): "FLOTILLA_MODEL_KEY_DEFAULT",
    (FLEET, "spec.toolExecutors.pod"): "FLOTILLA_REDIS_URL",
}
PODS = [
    row(kind, f"{path.replace('.', '__')}__{field}", value, f"{path}.{message}", f"{path}: {name}")
    for (kind, path), ours in POD_OPTIONS.items()
    for field, value, message, name in (
        ("env", [{"name": ours, "value": "x"}], "env must not set ", "a variable of ours"),
        (
            "env",
            [{"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            "env must not give a variable both value and valueFrom",
            "a variable with two values",
        ),
        (
            "tolerations",
            [{"key": "a", "operator": "Exists", "value": "b"}],
            "tolerations: with operator Exists, remove value",
            "a toleration of every value and of one",
        ),
        (
            "tolerations",
            [{"value": "b"}],
            "tolerations: with operator Exists, remove value; with operator Equal, which is the default, set",
            "a toleration of no taint",
        ),
        (
            "tolerations",
            [{"key": "a", "effect": "NoSchedule", "tolerationSeconds": 5}],
            "tolerations: tolerationSeconds needs the effect NoExecute",
            "a time without an effect that ends",
        ),
        ("tolerations", [{"key": "a", "effect": "Never"}], "tolerations[0].effect: Unsupported", "no effect"),
        (
            "labels",
            {"app.kubernetes.io/component": "engine"},
            "labels must not set app.kubernetes.io/component",
            "another component's label",
        ),
        ("labels", {"flotilla.dev/owner": "other"}, "labels must not set ", "another object's label"),
        ("labels", {"team": "a" * 64}, "labels.team: Too long", "a label that is too long"),
        (
            "annotations",
            {"flotilla.dev/config-hash": "x"},
            "annotations must not set an annotation that begins with flotilla.dev/",
            "an annotation of ours",
        ),
        (
            "affinity",
            {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {}}},
            "affinity",
            "no list",
        ),
        ("runtimeClassName", "Not A Name", "runtimeClassName", "a name that no class has"),
    )
] + [
    row(
        kind,
        f"{path.replace('.', '__')}__resources",
        {"limits": {"memory": "much"}},
        f"{path}.resources.limits.memory",
        f"{path}: no quantity",
    )
    for kind, path in POD_OPTIONS
    if path not in ("spec.build.pod", "spec.workers.pod", "spec.toolExecutors.pod")
]

ROWS = [
    *NAMES,
    *MODEL_REPLICA_SETS,
    *AUTOSCALING,
    *VECTOR_INDEXES,
    *AGENT_FLEETS,
    *PODS,
    *NOT_YET,
]


def messages(schema: Any) -> Iterator[str]:
    if isinstance(schema, list):
        for item in schema:
            yield from messages(item)
    elif isinstance(schema, dict):
        yield from (rule["message"] for rule in schema.get(VALIDATIONS, ()))
        for value in schema.values():
            yield from messages(value)


@pytest.mark.holds("README.md", "A field that this release does not act on is refused when it is applied")
@pytest.mark.holds(
    "api/not-yet.md",
    "An object that sets a listed field of the spec is refused, and the message says what to do",
)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_field_that_does_not_act_has_a_row(kind: Kind) -> None:
    refused = [unacted.path for unacted in not_yet(kind) if not unacted.values]
    assert list(NOT_YET_VALUES.get(kind.name, {})) == refused


@pytest.mark.holds(
    "capacity.md",
    "The API server refuses a shared prefix that is not less than `maxModelLen`, with "
    "`prefixCaching: false`, or with task Embed",
)
@pytest.mark.holds("engine.md", "What does not go together is refused when the object is applied")
@pytest.mark.holds("pods.md", "What Flotilla sets is refused")
@pytest.mark.holds("api/README.md", "Every bound and rule of the API has an object that is refused by it")
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_rule_has_a_row(kind: Kind) -> None:
    expected = [row.values[2] for row in ROWS if row.values[0] == kind.name]
    shared = [row.values[2] for row in NAMES]
    transitions = ("spec.model.task cannot be changed",)
    below_a_refused_field = tuple(f"{unacted.path}." for unacted in not_yet(kind) if not unacted.values)
    untried = [
        message
        for message in set(messages(structural(kind)))
        if not any(text in message for text in (*expected, *shared, *transitions))
        and not message.startswith(below_a_refused_field)
    ]
    assert untried == []


@pytest.mark.apiserver
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_smallest_object_is_taken(control_plane: ControlPlane, namespace: str, kind: Kind) -> None:
    create(control_plane, smallest(kind.name, namespace=namespace))


@pytest.mark.apiserver
@pytest.mark.parametrize(
    ("kind", "values"),
    [
        pytest.param(SET, {"spec__model__source": "pvc://models/My Models/m"}, id="a model behind a space"),
        pytest.param(
            SET,
            {"spec__autoscaling": {"minReplicas": 0, "maxReplicas": 4, "scaleToZeroAfterSeconds": 60}},
            id="a set that may go to zero",
        ),
        pytest.param(
            SET,
            {"spec__engine__maxModelLen": 8192, "spec__traffic__sharedPrefixTokens": 8191},
            id="a shared prefix that is shorter than a sequence",
        ),
        pytest.param(
            SET,
            {
                "spec__engine__env": [{"name": "VLLM_API_KEY", "value": "k"}],
                "spec__engine__extraArgs": ["--api-server-count", "2"],
            },
            id="a key of the user's own without callers' keys",
        ),
        pytest.param(INDEX, {"spec__source__path": "pvc://docs/My Folder/"}, id="documents behind a space"),
        pytest.param(INDEX, {"spec__source__path": "pvc://docs/..old/v1..2"}, id="dots within a name"),
        pytest.param(INDEX, {"spec__source__path": "configmap://house-rules"}, id="a ConfigMap"),
        pytest.param(
            FLEET,
            {"spec__tools": [{"name": "a", "http": {"url": "https://tool.example?to=ann@b.example"}}]},
            id="an address of a person in a tool's query",
        ),
        pytest.param(INDEX, {"spec__milvus": MILVUS_OUTSIDE}, id="a Milvus outside, the rest by default"),
        pytest.param(
            INDEX,
            {"spec__milvus": {**MILVUS_OUTSIDE, "database": "books", "tokenSecretRef": {"name": "milvus"}}},
            id="a Milvus outside with all that is its own",
        ),
        pytest.param(
            INDEX,
            {"spec__milvus": {"image": "own:1", "storage": {"size": "20Gi", "storageClassName": "fast"}}},
            id="a Milvus Lite with all that is its own",
        ),
    ],
)
def test_taken(control_plane: ControlPlane, kind: str, values: dict[str, Any]) -> None:
    create(control_plane, changed(smallest(kind), **values), options="?dryRun=All")


@pytest.mark.holds("README.md", "A field that this release does not act on is refused when it is applied")
@pytest.mark.holds(
    "capacity.md",
    "The API server refuses a shared prefix that is not less than `maxModelLen`, with "
    "`prefixCaching: false`, or with task Embed",
)
@pytest.mark.holds("engine.md", "What does not go together is refused when the object is applied")
@pytest.mark.holds("placement.md", "`nodeProvisioning` with a device class is refused")
@pytest.mark.holds("router.md", "`VLLM_API_KEY` beside `authSecretRef`, and `--api-key`, are refused")
@pytest.mark.holds("agents.md", "`overflowTo` leads over three other models at most, and never back")
@pytest.mark.holds(
    "api/not-yet.md",
    "An object that sets a listed field of the spec is refused, and the message says what to do",
)
@pytest.mark.apiserver
@pytest.mark.parametrize(("kind", "values", "message"), ROWS)
def test_refused(control_plane: ControlPlane, kind: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ApiError) as refused:
        create(control_plane, changed(smallest(kind), **values), options="?dryRun=All")
    assert refused.value.status == INVALID
    assert message in refused.value.message


@pytest.mark.holds("tools.md", "URLs with a user or a password are refused")
@pytest.mark.apiserver
@pytest.mark.attack("Who may read objects, and no Secrets, finds a password in a URL")
@pytest.mark.parametrize(
    ("kind", "values"),
    [pytest.param(row.values[0], row.values[1], id=row.id) for row in ROWS if "hush" in str(row.values[1])],
)
def test_a_password_in_a_url_is_refused_and_not_repeated(
    control_plane: ControlPlane, kind: str, values: dict[str, Any]
) -> None:
    with pytest.raises(ApiError) as refused:
        create(control_plane, changed(smallest(kind), **values), options="?dryRun=All")
    assert refused.value.status == INVALID
    assert "hush" not in refused.value.message


def create(plane: ControlPlane, manifest: dict[str, Any], *, options: str = "") -> None:
    folder = f"/apis/flotilla.dev/v1alpha1/namespaces/{manifest['metadata']['namespace']}"
    plane.client.create(f"{folder}/{PLURALS[manifest['kind']]}{options}", manifest)
