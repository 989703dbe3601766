"""Custom resource definitions, installed before the controllers of a control plane start.

The garbage collector looks for new kinds only twice a minute. A kind that exists before it starts is known
at once, so that a foreground deletion of its objects does not wait.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from local_cluster.api_client import ApiClient
from local_cluster.directories import CHECKOUT
from local_cluster.processes import wait_until

OURS = CHECKOUT / "crds"
PATH = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
TIMEOUT_SECONDS = 60.0


def install(client: ApiClient, folder: Path) -> None:
    """Apply every file in the folder, and wait until the API server serves the kinds."""
    paths = []
    for definition in _read(folder):
        path = f"{PATH}/{definition['metadata']['name']}"
        client.apply(path, definition)
        paths.append(path)
    wait_until(
        lambda: all(_is_established(client.get(path)) for path in paths),
        part="kube-apiserver",
        timeout_seconds=TIMEOUT_SECONDS,
    )


def paths_of_ours(namespace: str) -> Iterator[str]:
    """The path of each of our kinds in a namespace."""
    for file in sorted(OURS.glob("*.yaml")):
        group, _, plural = file.stem.partition("_")
        yield f"/apis/{group}/v1alpha1/namespaces/{namespace}/{plural}"


def _read(folder: Path) -> Iterator[dict[str, Any]]:
    for file in sorted(folder.glob("*.yaml")):
        yield yaml.load(file.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)


def _is_established(definition: dict[str, Any]) -> bool:
    conditions = definition.get("status", {}).get("conditions") or []
    return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)
