"""`python -m flotilla_operator.controllers.uninstall`: takes our finalizers away when the operator is gone.

The chart runs it after an uninstall, because an object that carries a finalizer which nobody serves can never
be deleted. What the finalizer stood for (an index's collections in a Milvus of the user's) is left where it
is, and the log says where. Objects and their data are not touched.
"""

import argparse
import asyncio
from collections.abc import Sequence
from pathlib import Path

import structlog

from flotilla_operator.cluster.client import ApiError, Client, load_configuration
from flotilla_operator.cluster.resources import VECTOR_INDEXES
from flotilla_operator.cluster.writer import FINALIZER_PREFIX
from flotilla_operator.cluster.writes import Manifest
from flotilla_operator.controllers.logs import configure_logs

NOT_FOUND = 404

log = structlog.get_logger(__name__)


async def release(client: Client, namespaces: Sequence[str]) -> int:
    """Let go of every index in these namespaces, or in all; returns how many carried a finalizer of ours."""
    released = 0
    for namespace in namespaces or (None,):
        try:
            indexes, _ = await client.list_all(VECTOR_INDEXES, namespace)
        except ApiError as error:
            if error.status != NOT_FOUND:
                raise
            log.info("nothing_to_release", reason="the kind is not installed any more")
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


async def run(kubeconfig: Path | None, namespaces: Sequence[str]) -> None:
    """Connect, let go, and say how many there were."""
    client = Client(await load_configuration(kubeconfig))
    try:
        log.info("finalizers_removed", count=await release(client, namespaces))
    finally:
        await client.close()


def main() -> None:
    """A conflict or a server that does not answer ends it with an error; the chart's Job runs it again."""
    parser = argparse.ArgumentParser(prog="flotilla-uninstall", description=__doc__)
    parser.add_argument("--kubeconfig", type=Path, help="else the service account")
    parser.add_argument("--namespace", action="append", default=[], help="may be given often; else all")
    arguments = parser.parse_args()
    configure_logs("info")
    asyncio.run(run(arguments.kubeconfig, arguments.namespace))


if __name__ == "__main__":
    main()
