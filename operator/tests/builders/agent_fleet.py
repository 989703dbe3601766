"""AgentFleets: a small one that a row changes where it matters, and ones that use every field acted on."""

from collections.abc import Mapping
from typing import Any

from flotilla_operator.api.agent_fleet import AgentFleet, AgentFleetSpec
from flotilla_operator.objects.owners import Owner
from flotilla_operator.workloads.agent_fleet import revision_of
from tests.builders.model_replica_set import model_replica_set
from tests.builders.pod_options import pod_options

OWNER = Owner(kind="AgentFleet", namespace="default", name="support", uid="uid-support")


def agent_fleet(
    name: str = "support",
    *,
    generation: int = 1,
    status: Mapping[str, Any] | None = None,
    **spec: Any,
) -> dict[str, Any]:
    """A fleet with one model and no index."""
    base = {"agent": {"prompt": "Answer."}, "models": [{"role": "Default", "modelRef": {"name": "llama"}}]}
    manifest = {
        "apiVersion": "flotilla.dev/v1alpha1",
        "kind": "AgentFleet",
        "metadata": {
            "name": name,
            "namespace": "default",
            "uid": f"uid-{name}",
            "generation": generation,
            "resourceVersion": "1",
        },
        "spec": {**base, **spec},
    }
    return manifest if status is None else {**manifest, "status": dict(status)}


def worker_of(fleet: Mapping[str, Any]) -> str:
    """The name of a fleet's worker Deployment, less the fleet's own: `worker-REVISION`."""
    return f"worker-{revision_of(AgentFleet.model_validate(fleet).spec)}"


def spec_of(**spec: Any) -> AgentFleetSpec:
    """The parsed spec of such a fleet."""
    return AgentFleet.model_validate(agent_fleet(**spec)).spec


def served_model(name: str = "llama", *, available: bool = True, **spec: Any) -> dict[str, Any]:
    """A ModelReplicaSet that answers, or one that is still starting."""
    condition = {
        "type": "Available",
        "status": "True" if available else "False",
        "reason": "ReplicasAvailable" if available else "NoReplicaReady",
        "message": "1 of 1 replicas are ready" if available else "0 of 1 replicas are ready",
    }
    status = {"url": f"http://{name}-model.default.svc:8000/v1", "conditions": [condition]}
    return model_replica_set(name, status=status, **spec)


def served_index(name: str = "handbook", *, retriever: bool = True, **status: Any) -> dict[str, Any]:
    """A VectorIndex that serves a generation, or one whose retriever is not ready."""
    condition = {"type": "RetrieverReady", "status": str(retriever), "reason": "x", "message": ""}
    url = f"http://{name}-retriever.default.svc:8080/v1/retrieve"
    keys = {"secretName": f"{name}-retriever-key", "entry": "key", "required": True}
    served = {
        "url": url,
        "keys": keys,
        "activeGeneration": "g-1",
        "phase": "Ready",
        "conditions": [condition],
    }
    return {
        "apiVersion": "flotilla.dev/v1alpha1",
        "kind": "VectorIndex",
        "metadata": {"name": name, "namespace": "default", "uid": f"uid-{name}", "resourceVersion": "1"},
        "spec": {},
        "status": {**served, **status},
    }


TOOLS: list[dict[str, Any]] = [
    {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        "http": {
            "url": "https://weather.example/v1",
            "method": "GET",
            "headersSecretRef": {"name": "weather"},
        },
        "effect": "Pure",
        "timeoutSeconds": 5,
        "maxResultKiB": 16,
    },
    {
        "name": "order",
        "python": "shop.tools:order",
        "reconcile": {
            "http": {
                "url": "https://shop.example/orders",
                "method": "GET",
                "headersSecretRef": {"name": "shop"},
            }
        },
    },
    {
        "name": "refund",
        "python": "shop.tools:refund",
        "effect": "Unsafe",
        "reconcile": {"python": "shop.tools:was_refunded"},
    },
    {
        "name": "rooms",
        "http": {
            "url": "https://rooms.example/v2",
            "openapi": {"url": "https://docs.example/openapi.json", "operationId": "listRooms"},
            "headersSecretRef": {"name": "rooms"},
        },
        "effect": "Pure",
    },
    {
        "name": "git",
        "description": "The repositories of the shop.",
        "mcp": {
            "url": "https://mcp.example/mcp",
            "tools": [{"name": "search", "effect": "Pure"}, {"name": "merge"}],
            "headersSecretRef": {"name": "git"},
        },
    },
    {
        "name": "stock",
        "parameters": {"type": "object", "properties": {"article": {"type": "string"}}},
        "sql": {
            "urlSecretRef": {"name": "stock", "key": "reader"},
            "query": "select pieces from stock where article = :article",
            "maxRows": 10,
        },
        "effect": "Pure",
    },
]

AGENTS = [
    {
        "name": "researcher",
        "description": "Finds out what the repositories and the handbook say.",
        "prompt": "You research.",
        "role": "Judge",
        "tools": ["git", "stock"],
        "indexes": ["handbook"],
    },
    {"name": "writer", "description": "Writes an answer for customers.", "prompt": "You write."},
]
VALIDATORS = [
    {"name": "cites", "python": "shop.checks:cites", "timeoutSeconds": 5},
    {
        "name": "policy",
        "http": {"url": "https://policy.example/check", "headersSecretRef": {"name": "policy"}},
    },
    {"name": "fair", "judge": {"role": "Judge", "prompt": "Refuse what is unfair to the customer."}},
]


def full_featured_objects() -> list[dict[str, Any]]:
    """Fleets that together use every field this release acts on."""
    managed = agent_fleet(
        "full-managed",
        agent={"prompt": "You answer questions about the handbook.", "retrieval": "Tool"},
        image="registry.example/agents:1",
        models=[
            {
                "role": "Default",
                "modelRef": {"name": "llama"},
                "pricing": {"inputPerMillionUSD": 0.5, "outputPerMillionUSD": 1.5},
                "overflowTo": "Judge",
            },
            {
                "role": "Judge",
                "rateLimit": "models",
                "contextTokens": 128_000,
                "maxOutputTokens": 4096,
                "isolateTenants": True,
                "pricing": {
                    "inputPerMillionUSD": 2.5,
                    "cachedInputPerMillionUSD": 1.25,
                    "outputPerMillionUSD": 10,
                },
                "timeouts": {"firstTokenSeconds": 60, "betweenTokensSeconds": 10, "totalSeconds": 200},
                "endpoint": {
                    "url": "https://models.example/v1",
                    "model": "gpt-large",
                    "apiKeySecretRef": {"name": "judge", "key": "apiKey"},
                },
            },
            {
                "role": "Embed",
                "pricing": {"inputPerMillionUSD": 0.02, "outputPerMillionUSD": 0.02},
                "endpoint": {"url": "https://models.example/v1", "model": "embed-small"},
            },
        ],
        indexes=[{"name": "handbook", "indexRef": {"name": "handbook"}}],
        tools=[*TOOLS[:-1], {**TOOLS[-1], "approval": "Always", "rateLimit": "orders"}],
        cache={"retrieval": True, "pureTools": False, "semanticThreshold": 0.95},
        rateLimits=[
            {"name": "orders", "requestsPerMinute": 60},
            {"name": "models", "requestsPerMinute": 600, "tokensPerMinute": 200_000},
        ],
        agents=AGENTS,
        validators=VALIDATORS,
        limits={
            "maxSteps": 12,
            "maxTokens": 50_000,
            "maxCostUSD": 0.5,
            "maxWallSeconds": 120,
            "maxDepth": 3,
            "maxFanOut": 8,
        },
        workers={
            "minReplicas": 1,
            "maxReplicas": 4,
            "concurrency": 100,
            "resources": {"requests": {"cpu": "250m"}, "limits": {"memory": "512Mi"}},
            "pod": {
                "imagePullSecrets": [{"name": "registry"}],
                "volumes": [{"name": "scratch", "emptyDir": {}}],
                "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
            },
        },
        toolExecutors={
            "minReplicas": 1,
            "maxReplicas": 3,
            "concurrency": 20,
            "resources": {"requests": {"cpu": "50m"}, "limits": {"memory": "256Mi"}},
            "pod": {
                "imagePullSecrets": [{"name": "registry"}],
                "volumes": [{"name": "scratch", "emptyDir": {}}],
                "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
            },
        },
        queue={
            "redis": {
                "mode": "Managed",
                "storage": {"size": "5Gi", "storageClassName": "fast"},
                "fsync": "EverySecond",
                "deletionPolicy": "Delete",
            },
            "maxWaiting": 500,
            "maxStoredMiB": 100,
            "resultTTLSeconds": 3600,
            "journalTTLSeconds": 600,
            "payloads": {
                "url": "s3://fleets/prefix",
                "endpoint": "https://objects.example",
                "region": "eu-central-1",
                "secretRef": {"name": "objects"},
            },
            "conversationTTLSeconds": 7200,
            "deadLetterTTLSeconds": 86_400,
        },
        recovery={"leaseSeconds": 10, "maxAttempts": 3, "unknownEffectSeconds": 7200},
        update={"deadlineSeconds": 900},
        gateway={
            "replicas": 3,
            "auth": {
                "mode": "Secret",
                "secretRef": {"name": "callers"},
                "trusted": ["front-end"],
                "approvers": ["boss"],
            },
            "callerLimits": {"queuePercent": 50, "requestsPerMinute": 600},
            "openAI": {"enabled": True},
            "a2a": {"enabled": True, "description": "Answers questions about the handbook."},
            "service": {"type": "LoadBalancer", "annotations": {"lb.example/internal": "true"}},
        },
        telemetry={
            "otlpEndpoint": "https://traces.example/api/public/otel",
            "headersSecretRef": {"name": "traces"},
            "content": True,
            "samplePercent": 25,
        },
        slo={"taskSeconds": 30, "percentile": 90, "successRate": 0.95},
        paused=False,
    )
    external = agent_fleet(
        "full-external",
        agent={"entrypoint": "app:main"},
        image="registry.example/agents:1",
        queue={
            "redis": {
                "mode": "External",
                "urlSecretRef": {"name": "redis", "key": "address"},
                "topology": "Sentinel",
                "sentinel": {
                    "master": "mymaster",
                    "passwordSecretRef": {"name": "sentinel", "key": "word"},
                },
            }
        },
        gateway={"auth": {"mode": "None"}, "tls": {"secretRef": {"name": "tls"}}},
    )
    return [
        managed,
        external,
        agent_fleet("full-kubernetes", gateway={"auth": {"mode": "Kubernetes"}}),
        agent_fleet("full-graph", agent={"graph": "app:graph"}, image="registry.example/agents:1"),
        agent_fleet(
            "full-pods",
            queue={"redis": {"pod": pod_options()}},
            gateway={"pod": pod_options()},
            image="registry.example/agents:1",
            tools=[TOOLS[1]],
            workers={"pod": pod_options(resources=False)},
            toolExecutors={"pod": pod_options(resources=False)},
        ),
    ]
