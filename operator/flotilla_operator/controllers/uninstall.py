"""`python -m flotilla_operator.controllers.uninstall`: removes our finalizers after an uninstall.

The chart runs it after the operator is gone, because an object with a finalizer that no process handles can
never be deleted. The collections of an index in an external Milvus stay there; the log names the address.
Nothing else in the objects is changed, and no data is deleted.

The chart keeps the ClusterRole and the ClusterRoleBinding of this process at an uninstall. They are deleted
here, at the end: Argo CD cannot make cluster-scoped objects after a deletion, as helm can.
"""

import argparse
import asyncio
from collections.abc import Sequence
from pathlib import Path

import structlog

from flotilla_operator.cluster.client import ApiError, Client
from flotilla_operator.cluster.connection import HttpConnection, load_configuration
from flotilla_operator.cluster.writer import FINALIZER_PREFIX
from flotilla_operator.controllers.logs import configure_logs
from flotilla_operator.objects.resources import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    VECTOR_INDEXES,
    Manifest,
)

NOT_FOUND = 404

log = structlog.get_logger(__name__)


async def release(client: Client, namespaces: Sequence[str]) -> int:
    """Remove our finalizer from every index in these namespaces, or in all; returns how many had one."""
    released = 0
    for namespace in namespaces or (None,):
        try:
            indexes, _ = await client.list_all(VECTOR_INDEXES, namespace)
        except ApiError as error:
            if error.status != NOT_FOUND:
                raise
            log.info("nothing_to_release", reason="the kind VectorIndex is no longer installed")
            return released
        for index in indexes:
            released += await _release(client, index)
    return released


async def _release(client: Client, index: Manifest) -> bool:
    metadata = index["metadata"]
    held = metadata.get("finalizers") or []
    others = [name for name in held if not name.startswith(FINALIZER_PREFIX)]
    if others == held:
        return False
    operations = [
        {"op": "test", "path": "/metadata/resourceVersion", "value": metadata["resourceVersion"]},
        {"op": "add", "path": "/metadata/finalizers", "value": others},
    ]
    await client.json_patch(VECTOR_INDEXES, metadata["namespace"], metadata["name"], operations)
    left_at = ((index.get("spec") or {}).get("milvus") or {}).get("uri")
    log.info(
        "finalizer_removed",
        namespace=metadata["namespace"],
        name=metadata["name"],
        collections_left_at=left_at,
    )
    return True


async def give_up_rights(client: Client, name: str) -> None:
    """Delete the ClusterRole and the ClusterRoleBinding of this name, by which this process may do all this.

    Whichever goes first takes the right to delete the other with it. So the binding becomes the owner of the
    role, and is deleted; the garbage collector then deletes the role.
    """
    binding = await client.get(CLUSTER_ROLE_BINDINGS, "", name)
    uid = binding["metadata"]["uid"]
    owner = {
        "apiVersion": CLUSTER_ROLE_BINDINGS.api_version,
        "kind": CLUSTER_ROLE_BINDINGS.kind,
        "name": name,
        "uid": uid,
    }
    operations = [{"op": "add", "path": "/metadata/ownerReferences", "value": [owner]}]
    await client.json_patch(CLUSTER_ROLES, "", name, operations)
    await client.delete(CLUSTER_ROLE_BINDINGS, "", name, uid=uid)
    log.info("rights_given_up", name=name)


async def run(kubeconfig: Path | None, namespaces: Sequence[str], rights: str | None) -> None:
    """Connect, remove the finalizers, log how many there were, and give up the rights to do so."""
    client = Client(HttpConnection(await load_configuration(kubeconfig)))
    try:
        log.info("finalizers_removed", count=await release(client, namespaces))
        if rights is not None:
            await give_up_rights(client, rights)
    finally:
        await client.close()


def main() -> None:
    """Run once. After a conflict or without an API server it fails; the chart's Job then runs it again."""
    parser = argparse.ArgumentParser(
        prog="flotilla-uninstall", description="Remove Flotilla's finalizers from all indexes."
    )
    parser.add_argument(
        "--kubeconfig", type=Path, help="the kubeconfig to use (default: the pod's service account)"
    )
    parser.add_argument(
        "--namespace",
        action="append",
        default=[],
        help="a namespace to look in; may be given several times (default: all namespaces)",
    )
    parser.add_argument(
        "--rights",
        metavar="NAME",
        help="the ClusterRole and the ClusterRoleBinding to delete at the end (default: none)",
    )
    arguments = parser.parse_args()
    configure_logs("info")
    asyncio.run(run(arguments.kubeconfig, arguments.namespace, arguments.rights))


if __name__ == "__main__":
    main()
