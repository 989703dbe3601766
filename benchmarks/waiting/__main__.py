"""`make bench-waiting`: what many sets cost that wait for room, and how soon free room is used.

300 sets of one replica of eight accelerators share 20 KWOK nodes of eight. The first 20 get a node.

- `settle_seconds`: from the first POST until every set says whether it is placed.
- At rest: after a quiet minute, the operator's processor time and its reconciles within a minute.
- `freed_room_seconds`: a set with a node is deleted; from the moment its pod is gone until the next set's pod
  is there. The median of five.
- `round_seconds`: the processor time of a placement round of 100 and of 1,000 such sets, in this process.

The last line of the output is one JSON object. The exit status is 1 when a figure misses its limit.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from at_rest import at_rest, create_all, is_told
from cluster_site import Manifest, control_plane, ready_operator, wait_for
from local_cluster.api_client import ApiClient
from local_cluster.control_plane import Options
from local_cluster.kwok import GPU_RESOURCE, gpu_nodes
from waiting.rounds import seconds_of_round
from wanted import add_only_print, at_most, conclude, under

NAMESPACE = "waiting"
SETS = f"/apis/flotilla.dev/v1alpha1/namespaces/{NAMESPACE}/modelreplicasets"
ENGINES = f"/api/v1/namespaces/{NAMESPACE}/pods?labelSelector=app.kubernetes.io/component=engine"
GPUS = 8
FREED = 5
POLL_SECONDS = 0.1
WANTED = (
    under(40, "settle_seconds"),
    at_most(0.1, "cores_at_rest"),
    at_most(1, "reconciles_per_object_minute"),
    at_most(3, "freed_room_seconds"),
    at_most(15, "round_seconds", "ratio"),
)


def set_named(name: str) -> Manifest:
    """A set of one replica that needs a whole node."""
    return {
        "apiVersion": "flotilla.dev/v1alpha1",
        "kind": "ModelReplicaSet",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "model": {"name": "model", "source": "hf://example/model"},
            "accelerator": {"resource": GPU_RESOURCE},
            "parallelism": {"tensor": GPUS},
            "replicas": 1,
            "router": {"replicas": 1},
            "drain": {"deadlineSeconds": 1},
        },
    }


def settle(client: ApiClient, names: Sequence[str]) -> float:
    """Create the sets; the seconds until each says whether it is placed."""
    started = time.monotonic()
    create_all(client, [(SETS, set_named(name)) for name in names])
    wait_for(
        lambda: all(is_told(one, "Placed") for one in client.get(SETS)["items"]), "sets that are all told"
    )
    return time.monotonic() - started


def owners_of_engines(client: ApiClient) -> set[str]:
    """The sets that have an engine pod, whatever its phase."""
    return {pod["metadata"]["labels"]["flotilla.dev/owner"] for pod in client.get(ENGINES)["items"]}


def freed_room_seconds(client: ApiClient) -> float:
    """Delete a set that has a node; the seconds between the end of its pod and the pod of another set."""
    before = owners_of_engines(client)
    leaves = min(before)
    client.request("DELETE", f"{SETS}/{leaves}")
    wait_for(lambda: leaves not in owners_of_engines(client), "the pod's end", every_seconds=POLL_SECONDS)
    freed = time.monotonic()
    wait_for(lambda: bool(owners_of_engines(client) - before), "another pod", every_seconds=POLL_SECONDS)
    return time.monotonic() - freed


def measure(sets: int, nodes: int) -> dict[str, Any]:
    """All figures but those of the round."""
    options = Options(controller_manager=True, scheduler=True, kwok=True)
    shown = list(gpu_nodes(nodes))
    with (
        tempfile.TemporaryDirectory(prefix="flotilla-waiting-") as name,
        control_plane(Path(name), options, nodes=shown, namespace=NAMESPACE) as plane,
        ready_operator(Path(name), plane.kubeconfig, NAMESPACE) as process,
    ):
        wait_for(lambda: "flotilla_leader 1.0" in process.get("metrics", "/metrics")[1], "a leader")
        seconds = settle(plane.client, [f"set-{number:04}" for number in range(sets)])
        print(f"all told after {seconds:.1f} s", flush=True)
        wait_for(lambda: len(owners_of_engines(plane.client)) == nodes, "one set on each node")
        rest = at_rest(process, sets)
        freed = [freed_room_seconds(plane.client) for _ in range(FREED)]
        return {
            "sets": sets,
            "settle_seconds": round(seconds, 1),
            **rest.figures(),
            "freed_room_seconds": round(statistics.median(freed), 2),
            "freed_room_seconds_of_each": [round(value, 2) for value in freed],
        }


def main() -> int:
    """Run the benchmark, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=300, help="how many sets (default: 300)")
    parser.add_argument("--nodes", type=int, default=20, help="how many KWOK nodes (default: 20)")
    add_only_print(parser)
    options = parser.parse_args()
    few, many = seconds_of_round(100, options.nodes), seconds_of_round(1000, options.nodes)
    rounds = {"of_100_sets": round(few, 4), "of_1000_sets": round(many, 4), "ratio": round(many / few, 1)}
    figures = {**measure(options.sets, options.nodes), "round_seconds": rounds}
    return conclude(figures, WANTED, only_print=options.only_print)


if __name__ == "__main__":
    sys.exit(main())
