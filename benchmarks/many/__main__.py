"""`make bench-many`: what a thousand objects of all kinds cost, half of which wait for something missing.

There are two sets for each fleet and each index. The pods are played by KWOK and answer nobody, so the
operator also asks routers and gateways in vain.

- `settle_seconds`: from the first POST until every object has told what it waits for, and every complete set
  and fleet has its pods.
- `operator_mib`: the operator's largest memory.
- At rest: after a quiet minute, the operator's processor time and its reconciles within a minute.

The last line of the output is one JSON object. The exit status is 1 when a figure misses its limit.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from at_rest import at_rest, create_all, is_told
from cluster_site import Manifest, control_plane, ready_operator, wait_for
from local_cluster.api_client import ApiClient
from local_cluster.control_plane import Options
from local_cluster.kwok import gpu_nodes
from many.objects import (
    CLAIMS,
    FLEETS,
    INDEXES,
    NAMESPACE,
    SECRETS,
    SETS,
    all_objects,
    documents_claim,
    is_complete,
    redis_secret,
)
from wanted import add_only_print, at_most, conclude, known_to_miss, under

NODES = 20
WANTED = (
    under(300, "operator_mib"),
    known_to_miss(at_most(0.1, "cores_at_rest")),
    at_most(1, "reconciles_per_object_minute"),
)


def settle(client: ApiClient, objects: int) -> float:
    """Create the objects; the seconds until all are as they stay."""
    client.create(SECRETS, redis_secret())
    client.create(CLAIMS, documents_claim())
    started = time.monotonic()
    create_all(client, all_objects(objects))
    wait_for(lambda: is_settled(client), "settled objects", every_seconds=2.0)
    return time.monotonic() - started


def is_settled(client: ApiClient) -> bool:
    """Whether every object has told what it waits for, and every complete one has its pods."""
    return (
        all(is_told(one, "SpecValid") and _serves(one) for one in client.get(SETS)["items"])
        and all(is_told(one, "ModelsReady") and _accepts(one) for one in client.get(FLEETS)["items"])
        and all(is_told(one, "EmbedderReady") for one in client.get(INDEXES)["items"])
    )


def _serves(one: Manifest) -> bool:
    return not is_complete(one) or one["status"].get("readyReplicas") == one["spec"]["replicas"]


def _accepts(one: Manifest) -> bool:
    """Whether the gateway of a complete fleet is there; it answers nobody, so the fleet is never ready."""
    return not is_complete(one) or one["status"].get("ready", "").startswith("1/")


def measure(objects: int) -> dict[str, Any]:
    """All figures."""
    options = Options(controller_manager=True, scheduler=True, kwok=True)
    nodes = list(gpu_nodes(NODES))
    with (
        tempfile.TemporaryDirectory(prefix="flotilla-many-") as name,
        control_plane(Path(name), options, nodes=nodes, namespace=NAMESPACE) as plane,
        ready_operator(Path(name), plane.kubeconfig, NAMESPACE) as process,
    ):
        wait_for(lambda: "flotilla_leader 1.0" in process.get("metrics", "/metrics")[1], "a leader")
        seconds = settle(plane.client, objects)
        print(f"settled after {seconds:.1f} s", flush=True)
        rest = at_rest(process, objects)
        return {
            "objects": objects,
            "settle_seconds": round(seconds, 1),
            "operator_mib": round(process.memory_mib(peak=True), 1),
            **rest.figures(),
        }


def main() -> int:
    """Run the benchmark, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=1000, help="how many objects (default: 1000)")
    add_only_print(parser)
    options = parser.parse_args()
    return conclude(measure(options.objects), WANTED, only_print=options.only_print)


if __name__ == "__main__":
    sys.exit(main())
