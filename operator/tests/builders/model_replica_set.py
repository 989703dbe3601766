"""ModelReplicaSets: a small one that a row changes where it matters, and ones that use every field acted
on.
"""

from collections.abc import Mapping
from typing import Any

from flotilla_operator.api.model_replica_set import ModelReplicaSet, ModelReplicaSetSpec
from flotilla_operator.objects.owners import Owner
from flotilla_operator.workloads.images import Images
from tests.builders.pod_options import RUNTIME_CLASS, pod_options
from tests.builders.pods import time_text

IMAGES = Images(
    runtime="registry.example/flotilla-runtime@sha256:aa",
    haproxy="registry.example/haproxy@sha256:bb",
    redis="registry.example/redis@sha256:cc",
    milvus="registry.example/milvus@sha256:dd",
    engine="registry.example/vllm-openai@sha256:ee",
    engine_cpu="registry.example/vllm-openai-cpu@sha256:ff",
)
OWNER = Owner(kind="ModelReplicaSet", namespace="default", name="llama", uid="uid-llama")
GPU = {"resource": "nvidia.com/gpu", "products": ["H100"]}


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The base with the changes laid over it, mapping by mapping."""
    result = dict(base)
    for key, value in changes.items():
        held = result.get(key)
        if isinstance(held, Mapping) and isinstance(value, Mapping):
            value = merged(held, value)
        result[key] = value
    return result


def model_replica_set(
    name: str = "llama",
    *,
    namespace: str = "default",
    generation: int = 1,
    status: Mapping[str, Any] | None = None,
    created: str = "2026-05-01T11:00:00Z",
    **spec: Any,
) -> dict[str, Any]:
    """A set that serves a model of the hub on one CPU replica."""
    base = {"model": {"name": "llama", "source": "hf://meta/llama"}}
    manifest = {
        "apiVersion": "flotilla.dev/v1alpha1",
        "kind": "ModelReplicaSet",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": f"uid-{name}",
            "generation": generation,
            "resourceVersion": "1",
            "creationTimestamp": created,
        },
        "spec": merged(base, spec),
    }
    return manifest if status is None else {**manifest, "status": dict(status)}


def spec_of(**spec: Any) -> ModelReplicaSetSpec:
    """The parsed spec of such a set."""
    return ModelReplicaSet.model_validate(model_replica_set(**spec)).spec


def said(condition_type: str, reason: str, message: str = "") -> dict[str, Any]:
    """A condition that is False."""
    told = {"reason": reason, "message": message, "lastTransitionTime": time_text(60)}
    return {"type": condition_type, "status": "False", **told}


def gpu_set(**changes: Any) -> dict[str, Any]:
    """A set of two replicas of four H100 each."""
    return merged(
        model_replica_set(replicas=2, accelerator=GPU, parallelism={"tensor": 4}), {"spec": changes}
    )


def _on_accelerators() -> dict[str, Any]:
    return model_replica_set(
        "full-gpu",
        replicas=3,
        model={
            "name": "llama-70b",
            "source": "hf://meta-llama/Llama-3.3-70B-Instruct",
            "revision": "6f6073b",
            "tokenSecretRef": {"name": "hf", "key": "hub"},
            "task": "Generate",
        },
        engine={
            "image": "registry.example/own-engine:1",
            "maxModelLen": 32768,
            "maxNumSeqs": 64,
            "kvCacheDtype": "FP8E4M3",
            "prefixCaching": False,
            "chunkedPrefill": False,
            "extraArgs": ["--enable-auto-tool-choice", "--tool-call-parser", "hermes"],
            "env": [
                {"name": "HF_ENDPOINT", "value": "https://mirror.example"},
                {"name": "PROXY", "valueFrom": {"configMapKeyRef": {"name": "proxy", "key": "url"}}},
            ],
            "resources": {"requests": {"cpu": "8", "memory": "64Gi"}, "limits": {"memory": "128Gi"}},
        },
        parallelism={"tensor": 4},
        accelerator={
            "resource": "nvidia.com/gpu",
            "products": ["NVIDIA-H100-80GB-HBM3"],
            "memoryGiB": 80,
        },
        placement={
            "nodeSelector": {"pool": "inference"},
            "tolerations": [
                {
                    "key": "nvidia.com/gpu",
                    "operator": "Equal",
                    "value": "present",
                    "effect": "NoExecute",
                    "tolerationSeconds": 60,
                }
            ],
            "priorityClassName": "serving",
            "nodeProvisioning": {"mode": "Placeholders", "timeoutSeconds": 600},
        },
        router={
            "replicas": 3,
            "loadFactor": 1.5,
            "queueTimeoutSeconds": 30,
            "requestTimeoutSeconds": 300,
            "maxQueue": 500,
            "maxRequestMiB": 32,
            "authSecretRef": {"name": "callers"},
            "tls": {"secretRef": {"name": "tls"}},
            "service": {"type": "LoadBalancer", "annotations": {"lb.example/internal": "true"}},
        },
        drain={"deadlineSeconds": 120},
        slo={"ttftSeconds": 2, "e2eSeconds": 30, "attainment": 0.9},
        update={"maxSurge": 2, "maxUnavailable": 1, "progressDeadlineSeconds": 900, "rollback": True},
        modelCache={"mode": "Claim", "claimName": "models"},
        pod={
            "labels": {"team": "search"},
            "annotations": {"note.example/owner": "search"},
            "serviceAccountName": "engine",
            "imagePullSecrets": [{"name": "registry"}],
            "volumes": [{"name": "extra", "configMap": {"name": "extra"}}],
            "volumeMounts": [{"name": "extra", "mountPath": "/extra"}],
        },
        paused=False,
    )


def _over_several_nodes() -> dict[str, Any]:
    return model_replica_set(
        "full-stages",
        replicas=2,
        accelerator=GPU,
        parallelism={"tensor": 8, "pipeline": 2},
        placement={
            "packPipelineWithin": "topology.kubernetes.io/rack",
            "spreadReplicasAcross": "topology.kubernetes.io/zone",
            "required": True,
        },
        traffic={"sharedPrefixTokens": 1500},
    )


def full_featured_objects() -> list[dict[str, Any]]:
    """Objects that together use every field this release acts on."""
    return [
        _on_accelerators(),
        model_replica_set(
            "full-cpu",
            model={"name": "minilm", "source": "pvc://models/minilm", "task": "Embed"},
            engine={"maxModelLen": 256, "resources": {"limits": {"cpu": "1500m"}}},
            autoscaling={"minReplicas": 0, "maxReplicas": 4, "scaleToZeroAfterSeconds": 600},
            pricing={"inputPerMillionUSD": 0.1, "outputPerMillionUSD": 0.3},
        ),
        model_replica_set("full-node", modelCache={"mode": "Node", "path": "/srv/models"}, paused=True),
        model_replica_set(
            "full-engine",
            engine={
                "speculative": {"method": "Eagle", "model": "pvc://heads/eagle3-llama", "numTokens": 3},
                "kvOffloadGiB": 32,
                "adapters": [
                    {"name": "sql", "source": "hf://acme/sql-lora", "revision": "v1", "rank": 32},
                    {"name": "mail", "source": "pvc://heads/mail"},
                ],
            },
            accelerator=GPU,
        ),
        _over_several_nodes(),
        model_replica_set(
            "full-devices",
            replicas=2,
            accelerator={"deviceClass": {"name": "gpu", "attributes": {"product": "H100", "ecc": "true"}}},
            parallelism={"tensor": 4, "pipeline": 2},
        ),
        model_replica_set(
            "full-pods", router={"pod": pod_options()}, pod={"runtimeClassName": RUNTIME_CLASS}
        ),
    ]
