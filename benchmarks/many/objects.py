"""For each fleet and index two sets; half of all objects wait for a claim or a model that is missing."""

from collections.abc import Iterator

from cluster_site import Manifest

NAMESPACE = "many"
GROUP = f"/apis/flotilla.dev/v1alpha1/namespaces/{NAMESPACE}"
SETS, FLEETS, INDEXES = f"{GROUP}/modelreplicasets", f"{GROUP}/agentfleets", f"{GROUP}/vectorindexes"
SECRETS = f"/api/v1/namespaces/{NAMESPACE}/secrets"
CLAIMS = f"/api/v1/namespaces/{NAMESPACE}/persistentvolumeclaims"
MISSING = "missing"
REDIS = "redis"
CLAIM = "documents"


def all_objects(count: int) -> Iterator[tuple[str, Manifest]]:
    """Each object with the path that it is POSTed to; `count` is a multiple of eight.

    Of every eight, three sets and a fleet are complete. Two indexes, a set and a fleet wait.
    """
    for number in range(count // 4):
        served, other, odd = f"set-{number:03}-a", f"set-{number:03}-b", number % 2 == 1
        yield SETS, model_set(served, task="Embed" if odd else "Generate")
        yield SETS, model_set(other, source="hf://example/model" if odd else f"pvc://{MISSING}/model")
        yield FLEETS, fleet(f"fleet-{number:03}", model=MISSING if odd else served)
        claim, model = (MISSING, served) if odd else (CLAIM, MISSING)
        yield INDEXES, index(f"index-{number:03}", claim=claim, model=model)


def is_complete(manifest: Manifest) -> bool:
    """Whether nothing that the object names is missing."""
    return MISSING not in str(manifest["spec"])


def redis_secret() -> Manifest:
    """The address of the fleets' Redis, which nobody asks: the pods are played."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": REDIS, "namespace": NAMESPACE},
        "stringData": {"url": "redis://redis.example:6379/0"},
    }


def documents_claim() -> Manifest:
    """The claim that half of the indexes name."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": CLAIM, "namespace": NAMESPACE},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}},
    }


def model_set(name: str, *, source: str = "hf://example/model", task: str = "Generate") -> Manifest:
    """A set of one replica on CPUs."""
    model = {"name": name, "source": source, "task": task}
    return _object("ModelReplicaSet", name, {"model": model, "replicas": 1, "router": {"replicas": 1}})


def fleet(name: str, *, model: str) -> Manifest:
    """A fleet on a Redis of the user's, without workers until there are tasks."""
    spec = {
        "agent": {"prompt": "You help."},
        "models": [{"role": "Default", "modelRef": {"name": model}}],
        "queue": {"redis": {"mode": "External", "urlSecretRef": {"name": REDIS, "key": "url"}}},
        "gateway": {"replicas": 1},
        "workers": {"minReplicas": 0, "maxReplicas": 4},
    }
    return _object("AgentFleet", name, spec)


def index(name: str, *, claim: str, model: str) -> Manifest:
    """An index on a Milvus of the user's."""
    spec = {
        "source": {"path": f"pvc://{claim}"},
        "embedding": {"modelRef": {"name": model}, "dimension": 384},
        "milvus": {"mode": "External", "uri": "http://milvus.example:19530"},
    }
    return _object("VectorIndex", name, spec)


def _object(kind: str, name: str, spec: Manifest) -> Manifest:
    return {
        "apiVersion": "flotilla.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": spec,
    }
