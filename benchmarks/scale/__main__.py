"""`make bench-scale`: how fast the operator gets a thousand pods bound, compared with a bare client.

The cluster has 130 KWOK nodes of eight accelerators. The workloads are 500 groups of two pods in 25 sets,
then 1,000 groups of one pod.

- A pair of runs is one of the operator, timed from the POST of the first set, and one of a bare client, timed
  from its first POST. The client creates the pods that the operator made, without their scheduling gates.
- A run ends when a watcher in a process of its own has seen the last pod bound.
- The order within a pair alternates, and the medians are compared. No operator runs beside the bare client.
- Afterwards the sets grow from 500 pods to 1,000, shrink again, and go to zero.
- The operator's requests to the API server are counted in the audit log.

The last line of the output is one JSON object, with times in seconds and the operator's largest memory in
MiB. The exit status is 1 when a figure misses its limit.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from cluster_site import Manifest, wait_for
from scale.operator_runs import OperatorRuns, operator_runs
from scale.site import SETS, Site, Workload, as_created, site
from wanted import add_only_print, conclude, under

WANTED_OF_TWO = (under(3, "ratio"), under(4, "api_requests_per_pod"))
WANTED_OF_ONE = (under(2, "one_pod_groups_ratio"), under(4, "one_pod_groups_requests_per_pod"))
WANTED = (under(300, "operator_mib"),)


@dataclass(slots=True)
class Runs:
    """The times of one workload's pairs of runs."""

    operator_seconds: list[float] = field(default_factory=list)
    raw_seconds: list[float] = field(default_factory=list)
    requests_per_pod: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """The operator's median over the bare client's."""
        return round(statistics.median(self.operator_seconds) / statistics.median(self.raw_seconds), 2)

    def figures(self, *, prefix: str, requests: str) -> dict[str, Any]:
        """The medians, and the times of the single runs."""
        of = {
            f"{prefix}seconds": self.operator_seconds,
            f"{prefix}raw_client_seconds": self.raw_seconds,
            f"{prefix}{requests}": self.requests_per_pod,
        }
        return {
            **{key: round(statistics.median(values), 2) for key, values in of.items()},
            **{f"{key}_of_each_run": [round(value, 2) for value in values] for key, values in of.items()},
            f"{prefix}ratio": self.ratio,
        }


def through_operator(place: Site, workload: Workload, runs: Runs | None) -> list[Manifest]:
    """Create the sets, and wait for their pods; returns the pods."""
    began = datetime.now(UTC)
    with place.watching(workload.pods) as watch:
        started = time.monotonic()
        for manifest in workload.manifests():
            place.plane.client.create(SETS, manifest)
        seconds = watch.bound_at() - started
    ended = datetime.now(UTC)
    place.demand_bound(workload.pods)
    place.demand_no_release()
    requests = place.requests_of_operator(began, ended)
    told = f"{requests} requests, {requests / workload.pods:.2f} a pod"
    print(f"operator: {seconds:.1f} s, {told}", flush=True)
    if runs is not None:
        runs.operator_seconds.append(seconds)
        runs.requests_per_pod.append(requests / workload.pods)
    return as_created(place.engine_pods())


def through_bare_client(place: Site, pods: list[Manifest], runs: Runs) -> None:
    """Create the same pods with the bare client."""
    path = place.folder / "pods.json"
    path.write_text(json.dumps(pods))
    command = [sys.executable, "-m", "scale.raw_client", f"--kubeconfig={place.plane.kubeconfig}"]
    with place.watching(len(pods)) as watch:
        done = subprocess.run([*command, f"--pods={path}"], check=True, capture_output=True, text=True)
        seconds = watch.bound_at() - json.loads(done.stdout)["started_at"]
    place.demand_bound(len(pods))
    print(f"bare client: {seconds:.1f} s", flush=True)
    runs.raw_seconds.append(seconds)


def alternate(place: Site, operator: OperatorRuns, workload: Workload, pairs: int) -> Runs:
    """One run of the operator that is not counted and makes the pods, then pairs in alternating order."""
    runs = Runs()
    operator.begin()
    pods = through_operator(place, workload, None)
    place.clear()
    for index in range(pairs):
        for operator_goes in (True, False) if index % 2 == 0 else (False, True):
            if operator_goes:
                operator.begin()
                through_operator(place, workload, runs)
            else:
                operator.end()
                through_bare_client(place, pods, runs)
            place.clear()
    return runs


def grow_and_shrink(place: Site, workload: Workload) -> dict[str, float]:
    """The seconds to scale from half of the groups to all, back to half, and to none."""
    small = Workload(sets=workload.sets, groups=workload.groups // 2, stages=workload.stages)
    seconds = {}
    for manifest in small.manifests():
        place.plane.client.create(SETS, manifest)
    wait_for(lambda: place.bound() == small.pods, "half the pods")
    for name, groups in (("up", workload.groups), ("down", small.groups), ("to_zero", 0)):
        started = time.monotonic()
        for set_name in workload.set_names():
            place.plane.client.merge(f"{SETS}/{set_name}", {"spec": {"replicas": groups // workload.sets}})
        wanted = groups * workload.stages
        wait_for(partial(_has_bound, place, wanted), f"{wanted} pods")
        seconds[name] = round(time.monotonic() - started, 1)
    place.clear()
    return seconds


def _has_bound(place: Site, wanted: int) -> bool:
    return place.bound() == wanted


def main() -> int:
    """Run the benchmark, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=130, help="how many KWOK nodes (default: 130)")
    parser.add_argument("--sets", type=int, default=25, help="how many sets (default: 25)")
    parser.add_argument("--pods", type=int, default=1000, help="how many pods in total (default: 1000)")
    parser.add_argument("--pairs", type=int, default=3, help="how many pairs of runs (default: 3)")
    parser.add_argument("--only", choices=["one", "two"], help="only groups of one pod, or only of two pods")
    add_only_print(parser)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="flotilla-scale-") as folder,
        site(Path(folder), nodes=options.nodes) as place,
        operator_runs(place) as operator,
    ):
        result = {"pods": options.pods, **_measure(place, operator, options)}
    of_two = WANTED_OF_TWO if options.only != "one" else ()
    of_one = WANTED_OF_ONE if options.only != "two" else ()
    return conclude(result, (*of_two, *of_one, *WANTED), only_print=options.only_print)


def _measure(place: Site, operator: OperatorRuns, options: argparse.Namespace) -> dict[str, Any]:
    result: dict[str, Any] = {}
    if options.only != "one":
        two = Workload(sets=options.sets, groups=options.pods // 2, stages=2)
        runs = alternate(place, operator, two, options.pairs)
        result |= runs.figures(prefix="", requests="api_requests_per_pod")
    if options.only != "two":
        one = Workload(sets=options.sets, groups=options.pods, stages=1)
        runs = alternate(place, operator, one, options.pairs)
        result |= runs.figures(prefix="one_pod_groups_", requests="requests_per_pod")
        operator.begin()
        result["scaling_seconds"] = grow_and_shrink(place, one)
    return {**result, "operator_mib": round(operator.peak_mib(), 1)}


if __name__ == "__main__":
    sys.exit(main())
