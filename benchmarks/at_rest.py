"""Measures the cost of the operator while nothing changes, and how its objects are created."""

import re
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from cluster_site import Manifest
from local_cluster.api_client import ApiClient
from processor import processor_seconds
from tests.support.processes import OperatorProcess

QUIET_SECONDS = 60.0  # kept answers expire, and what was put off is done
MEASURED_SECONDS = 60.0
AT_ONCE = 8
RECONCILES = re.compile(r"^flotilla_controller_reconcile_total\{[^}]*\} (\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """The operator's processor time a second, and how often it looks at each object."""

    cores: float
    reconciles_per_object_minute: float

    def figures(self) -> dict[str, Any]:
        """As the benchmarks report them."""
        return {
            "cores_at_rest": round(self.cores, 3),
            "reconciles_per_object_minute": round(self.reconciles_per_object_minute, 2),
        }


def reconciles_in(metrics: str) -> int:
    """How many reconciles have ended, of all kinds and with every result."""
    return int(sum(float(count) for count in RECONCILES.findall(metrics)))


def at_rest(process: OperatorProcess, objects: int) -> Rest:
    """Wait until it is quiet, and measure for a minute."""
    time.sleep(QUIET_SECONDS)
    before = _reconciles(process), processor_seconds(process.process.pid)
    time.sleep(MEASURED_SECONDS)
    after = _reconciles(process), processor_seconds(process.process.pid)
    return Rest(
        cores=(after[1] - before[1]) / MEASURED_SECONDS,
        reconciles_per_object_minute=(after[0] - before[0]) / objects / (MEASURED_SECONDS / 60),
    )


def create_all(client: ApiClient, manifests: Iterable[tuple[str, Manifest]]) -> None:
    """POST each manifest to its path, several at once."""
    with ThreadPoolExecutor(AT_ONCE) as threads:
        for done in [threads.submit(client.create, path, manifest) for path, manifest in manifests]:
            done.result()


def is_told(manifest: Manifest, condition_type: str) -> bool:
    """Whether the status is about the newest spec, and this condition is not Unknown."""
    status = manifest.get("status") or {}
    if status.get("observedGeneration") != manifest["metadata"]["generation"]:
        return False
    conditions = {c["type"]: c["status"] for c in status.get("conditions") or ()}
    return bool(conditions.get(condition_type, "Unknown") != "Unknown")


def _reconciles(process: OperatorProcess) -> int:
    return reconciles_in(process.get("metrics", "/metrics")[1])
