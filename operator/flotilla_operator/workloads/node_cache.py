"""A folder of the node as model cache: which part of it a set's pods have, and who makes that part.

Sets of all namespaces share the folder, so each namespace has a folder of its own in it, and in that one for
each hub: a hub that one set names must not give other sets their models. The root container makes it and is
the only one that mounts the whole. All others mount their part as `subPath`, which the kubelet resolves when
a container starts, after those before it have ended, and without following links out of the volume. A
hostPath volume of the part would be there, made for root, before any container runs.

The fetcher gets none of the user's variables but those that lead to the hub: the hub client's own decide
where it writes.
"""

from flotilla_operator.api.model_replica_set import CacheMode, ModelReplicaSetSpec
from flotilla_operator.objects.hashes import stable_hash
from flotilla_operator.objects.resources import Manifest
from flotilla_operator.workloads.images import Images
from flotilla_operator.workloads.objects import container
from flotilla_operator.workloads.pod_security import USER_ID

MAKER = "make-model-folder"
MODULE = "flotilla_runtime.models.node_folder"
WHOLE_FOLDER = "/node-models"
ROOT_USER_ID = 0
HUB_ADDRESS = "HF_ENDPOINT"
DEFAULT_HUB = "https://huggingface.co"
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
FETCHERS_VARIABLES = frozenset(
    {
        *_PROXIES,
        *(name.lower() for name in _PROXIES),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
        *(HUB_ADDRESS, "HF_TOKEN"),
    }
)


def is_on_node(spec: ModelReplicaSetSpec) -> bool:
    """Whether what is fetched is kept in a folder of the node."""
    return spec.model_cache.mode is CacheMode.NODE


def plain_path(path: str) -> str | None:
    """An absolute path without empty parts and dots; None for one that leads upwards, or to everything."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not path.startswith("/") or ".." in parts or not parts:
        return None
    return "/" + "/".join(parts)


def own_folder(namespace: str, spec: ModelReplicaSetSpec) -> str:
    """The part of the folder that is this set's, and that of sets of its namespace with the same hub."""
    return f"{namespace}/{stable_hash(_hub(spec), length=16)}"


def hub_url(spec: ModelReplicaSetSpec) -> str:
    """The hub's address; the default one where it is read from somewhere else."""
    hub = _hub(spec)
    return hub if isinstance(hub, str) else DEFAULT_HUB


def known_hub_url(spec: ModelReplicaSetSpec) -> str | None:
    """The hub's address; None where it is read from somewhere else."""
    hub = _hub(spec)
    return hub if isinstance(hub, str) else None


def folder_maker(namespace: str, spec: ModelReplicaSetSpec, images: Images, volume: str) -> Manifest:
    """The container that makes the set's part of the folder, as root and with nothing of the user's."""
    made = container(
        MAKER,
        images.runtime,
        pull_policy=images.pull_policy,
        args=[
            *(MODULE, "--top", WHOLE_FOLDER, "--folder", own_folder(namespace, spec)),
            *("--owner", str(USER_ID)),
        ],
        resources={"requests": {"cpu": "50m", "memory": "128Mi"}},
        volumeMounts=[{"name": volume, "mountPath": WHOLE_FOLDER}],
    )
    made["securityContext"] = {
        **made["securityContext"],
        "runAsUser": ROOT_USER_ID,
        "runAsGroup": ROOT_USER_ID,
        "runAsNonRoot": False,
        "capabilities": {"drop": ["ALL"], "add": ["CHOWN"]},
    }
    return made


def _hub(spec: ModelReplicaSetSpec) -> str | Manifest:
    """The hub's address; where it is read from somewhere else, only that place is known."""
    named = (variable for variable in spec.engine.env if variable.name == HUB_ADDRESS)
    if (variable := next(named, None)) is None:
        return DEFAULT_HUB
    if variable.value_from is not None:
        return variable.value_from.manifest()
    return (variable.value or DEFAULT_HUB).rstrip("/")
