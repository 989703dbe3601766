"""`make bench-streams`: counts the streams that break while a set scales, rolls out and drains.

Callers keep 200 streams open, each 10 to 30 s long. Meanwhile, one phase after the other: the set scales from
four replicas to two, with a restart of the operator in the middle; it is updated to a new revision; a pod is
killed; the nodes of a replica and of a router are drained; a drain is cancelled; the routers are replaced.
The API server, scheduler, controllers, operator, HAProxy and its agents are the real programs. The engines
are doubles, and kubelet.py takes the place of kubelets.

A stream that does not complete counts in the phase in which it ended. The streams of the killed pod are
counted apart; they should end with an error that the client sees. The last line of the output is one JSON
object; the exit status is 1 when a figure misses its limit.
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from cluster_site import Manifest, wait_for
from streams.load import Outcome
from streams.site import MODEL, NAMESPACE, Site, group_of, node_of, revision_of, site
from wanted import add_only_print, at_least, conclude, exactly

STREAMS = 200
SETTLES_SECONDS = 3.0
ENDS_WITHIN_SECONDS = 240.0
PHASES = ("before", "scale_down", "update", "kill", "node_drain", "cancelled_drain", "router_roll", "end")
WANTED = (
    *(exactly(0, f"broken_by_{phase}") for phase in PHASES),
    exactly(0, "unclean_ends"),
    at_least(1, "ended_by_kill"),
    exactly(1, "cancelled_drain_serves"),
)

Record = dict[str, Any]


@dataclass(slots=True)
class Load:
    """The running callers, and the file to which they write the streams that have ended."""

    process: "subprocess.Popen[str]"
    path: Path

    def records(self) -> list[Record]:
        """The streams that have ended so far."""
        lines = self.path.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def finish(self) -> None:
        """Let the callers open no more streams, and wait until the open ones have ended."""
        self.process.send_signal(signal.SIGTERM)
        if self.process.wait(ENDS_WITHIN_SECONDS) != 0:
            raise RuntimeError("the process that keeps the streams open ended with an error")


@dataclass(slots=True)
class Phases:
    """When each phase began, and which replica was killed."""

    began: dict[str, float] = field(default_factory=dict)
    killed: str = ""

    def begin(self, name: str) -> None:
        """Record that a phase begins now, and print it."""
        now = time.monotonic()
        if self.began:
            print(f"{now - max(self.began.values()):.0f} s", flush=True)
        print(f"{name} …", flush=True)
        self.began[name] = now

    def of(self, record: Record) -> str:
        """The phase in which a stream ended."""
        return max(
            (name for name, at in self.began.items() if at <= record["ended_at"]), key=self.began.__getitem__
        )


@contextmanager
def load(place: Site, folder: Path, streams: int) -> Iterator[Load]:
    """Keep this many streams open during the block."""
    path = folder / "streams.jsonl"
    command = [sys.executable, "-m", "streams.load", f"--kubeconfig={place.plane.kubeconfig}"]
    command += [f"--namespace={NAMESPACE}", f"--model={MODEL}", f"--streams={streams}", f"--to={path}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline().strip() != "open":
                raise RuntimeError("the callers could not open all streams")
            yield Load(process, path)
        finally:
            process.kill()


def scale_down(place: Site) -> None:
    """Scale from four replicas to two, and restart the operator during the drains."""
    place.change(replicas=2)
    wait_for(lambda: len(place.draining()) == 2, "two drains", every_seconds=0.2)
    place.restart_operator()
    place.wait_for_engines(2)


def update(place: Site) -> None:
    """Update both replicas to another revision; the routers, whose configuration changes, roll as well."""
    old = {revision_of(pod) for pod in place.engines()}
    place.change(engine={"maxNumSeqs": 240})
    place.wait_for_engines(2, lambda pod: revision_of(pod) not in old)
    place.wait_for_routers()


def kill(place: Site) -> str:
    """Kill the replica with the most streams; returns its name."""
    victim = max(place.ready("engine"), key=place.in_flight)
    place.kill(victim)
    place.wait_for_engines(2)
    return group_of(victim)


def drain_nodes(place: Site) -> None:
    """Drain and uncordon the node of a replica, then the node of a router."""
    for component in ("engine", "router"):
        node = node_of(place.ready(component)[0])
        place.kubectl("drain", node, "--delete-emptydir-data", "--timeout=240s")
        place.wait_for_engines(2, partial(_is_elsewhere, node))
        place.wait_for_routers()
        place.kubectl("uncordon", node)


def _is_elsewhere(node: str, pod: Manifest) -> bool:
    return node_of(pod) != node


def cancel_drain(place: Site, callers: Load) -> bool:
    """Start the drain of a replica, then cancel it by scaling up; whether the same replica serves again."""
    place.change(replicas=1)
    wait_for(lambda: bool(place.draining()), "a drain", every_seconds=0.2)
    victim = place.draining()[0]
    wait_for(
        lambda: _draining_everywhere(place, group_of(victim)), "routers that drain it", every_seconds=0.2
    )
    place.change(replicas=2)
    place.wait_for_engines(2)
    returned = time.monotonic()
    same = victim["metadata"]["uid"] in {pod["metadata"]["uid"] for pod in place.ready("engine")}

    def serves() -> bool:
        return any(
            record["replica"] == group_of(victim) and record["began_at"] > returned
            for record in callers.records()
        )

    wait_for(serves, "a new stream of the replica that came back")
    return same


def roll_routers(place: Site) -> None:
    """Replace both router pods by new ones."""
    old = {pod["metadata"]["uid"] for pod in place.ready("router")}
    place.change(router={"queueTimeoutSeconds": 61})
    place.wait_for_routers(without=old)


def run(place: Site, callers: Load) -> tuple[Phases, bool]:
    """Run all phases; returns them, and whether the replica of the cancelled drain serves again."""
    phases = Phases()
    phases.begin("before")
    for name, step in (("scale_down", scale_down), ("update", update)):
        phases.begin(name)
        step(place)
        time.sleep(SETTLES_SECONDS)
    phases.begin("kill")
    phases.killed = kill(place)
    time.sleep(SETTLES_SECONDS)
    phases.begin("node_drain")
    drain_nodes(place)
    time.sleep(SETTLES_SECONDS)
    phases.begin("cancelled_drain")
    serves = cancel_drain(place, callers)
    phases.begin("router_roll")
    roll_routers(place)
    phases.begin("end")
    callers.finish()
    return phases, serves


def result(streams: int, records: list[Record], phases: Phases) -> dict[str, Any]:
    """The figures."""
    broken: Counter[str] = Counter()
    told: Counter[str] = Counter()
    unclean = 0
    for record in records:
        if record["outcome"] == Outcome.WHOLE:
            continue
        phase = phases.of(record)
        unclean += record["outcome"] == Outcome.UNCLEAN
        if phase == "kill" and record["replica"] == phases.killed:
            told[record["problem"]] += 1
        else:
            broken[phase] += 1
            print(f"a stream broke in phase {phase}: {json.dumps(record)}", flush=True)
    print(f"the killed replica's streams ended with these errors: {dict(told)}", flush=True)
    return {
        "streams": streams,
        **{f"broken_by_{phase}": broken[phase] for phase in phases.began},
        "ended_by_kill": told.total(),
        "unclean_ends": unclean,
        "whole": sum(record["outcome"] == Outcome.WHOLE for record in records),
    }


def main() -> int:
    """Run the benchmark, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--streams", type=int, default=STREAMS, help=f"how many streams to keep open (default: {STREAMS})"
    )
    parser.add_argument(
        "--drain-seconds",
        type=int,
        default=120,
        help="spec.drain.deadlineSeconds of the set (default: 120); with 1, streams break and are counted",
    )
    add_only_print(parser)
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="flotilla-streams-") as name, site(Path(name)) as place:
        place.create(replicas=4, drain_seconds=options.drain_seconds)
        with load(place, Path(name), options.streams) as callers:
            phases, serves = run(place, callers)
            found = result(options.streams, callers.records(), phases)
    seconds = round(time.monotonic() - began)
    figures = {**found, "cancelled_drain_serves": serves, "seconds": seconds}
    return conclude(figures, WANTED, only_print=options.only_print)


def _draining_everywhere(place: Site, group: str) -> bool:
    statuses = place.statuses()
    servers = [server for status in statuses for server in status.servers if server.name == group]
    return len(servers) == len(statuses) and all(server.acknowledged_drain_epoch for server in servers)


if __name__ == "__main__":
    sys.exit(main())
