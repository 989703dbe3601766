"""Whether a set may keep models in the folder of the node that it names.

Such a folder is everybody's on the node. So the operator's configuration lists those that sets may name, and
the engine's container may not mount the whole of it beside the set's own part.
"""

from collections.abc import Iterable, Sequence

from flotilla_operator.api.model_replica_set import ModelReplicaSetSpec
from flotilla_operator.controllers.missing import Missing
from flotilla_operator.controllers.model_replica_set.reasons import Reason
from flotilla_operator.workloads.model_files import CACHE_VOLUME, keeps_on_node
from flotilla_operator.workloads.node_cache import plain_path

PATH = "spec.modelCache.path"
MOUNTS = "spec.pod.volumeMounts"


def refused_node_caches(specs: Iterable[ModelReplicaSetSpec], listed: Sequence[str]) -> list[Missing]:
    """List the objections to the node folders that these specs of a set name, each once."""
    found = [refused for spec in specs if (refused := refused_node_cache(spec, listed)) is not None]
    return list(dict.fromkeys(found))


def refused_node_cache(spec: ModelReplicaSetSpec, listed: Sequence[str]) -> Missing | None:
    """Object to the node folder that the spec names; None when it may be used."""
    if not keeps_on_node(spec):
        return None
    path = spec.model_cache.path
    if plain_path(path) not in listed:
        message = (
            f"{PATH}: the folder {path} of the node is not in modelCache.nodePaths of the operator's chart; "
            "let whoever runs the operator list it there, or set spec.modelCache.mode to Claim or None"
        )
        return Missing(reason=Reason.NODE_PATH_NOT_LISTED, message=message)
    if any(mount.get("name") == CACHE_VOLUME for mount in spec.pod.volume_mounts):
        message = (
            f"{MOUNTS}: with spec.modelCache.mode Node, the volume {CACHE_VOLUME!r} is the node's folder "
            "with the models of all namespaces, so it cannot be mounted; remove the mount"
        )
        return Missing(reason=Reason.NODE_CACHE_MOUNTED, message=message)
    return None
