"""What the router adds: the same requests with and without it, in alternating order.

The backend answers at once, so what is left is the way there and back. Added is the difference of the medians
over the rounds, for each quantile. How many cores each role used says whether the machine was full, and so
whether a figure is the router's or that of the queue for the processors. As fast as the connections can, the
mean time of a request is their number over the requests a second, wherever it waits: a few connections beside
many tell what is added where the queue is short. Two plain HAProxies that know nothing of conversations, logs
or keys are asked in the same way: what they add no router that is made of HAProxy and opens a connection for
each request can save. Two that keep their connections tell what the opening costs.

Streams are asked for with the routers on one half of the processors and everything else on the other, with
and without routers alike: users' routers do not share their processors with the callers and the engines. How
it is where all share all is told beside it. A phase starts once the agents have read the lines of the one
before.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cluster_site import wait_for
from local_cluster.processes import free_port
from processor import apart, finished_children_seconds, is_idle, processor_seconds
from router.parts import (
    Balancer,
    ask,
    engine_addresses,
    load_program,
    median,
    plain_balancers,
    running,
    two_routers,
)

ENGINES = 4
RATE = 500
BODY_BYTES = 4096
MANY_CONNECTIONS, FEW_CONNECTIONS = 64, 8
STREAMS = 500
STREAM_TOKENS = 200
STREAM_INTERVALS_MILLISECONDS = (20, 50)
STREAMS_OPENED_OVER_SECONDS = 2
QUANTILES = ("p50_ms", "p95_ms", "p99_ms")
SIDES = ("without", "with")
PLAIN, KEEPING = "plain_haproxy", "keeping_haproxy"
SATURATED_SIDES = (*SIDES, PLAIN, KEEPING)
IDLE_CORES = 0.1
LOOK_SECONDS = 0.5
SETTLED_SECONDS = 30

ByRole = Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """One way to ask, and what its figures are called. `apart`: the routers have processors of their own."""

    name: str
    arguments: tuple[str, ...]
    added: str
    quantiles: tuple[str, ...] = QUANTILES
    requests_per_second: str | None = None
    only_first_round: bool = False
    apart: bool = False

    @property
    def sides(self) -> tuple[str, ...]:
        """Who is asked. Plain HAProxies, too, where the machine is full."""
        return SIDES if self.requests_per_second is None else SATURATED_SIDES


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one phase gave on one side: the load generator's figures, and the cores that each role used."""

    figures: Mapping[str, float]
    cores: ByRole


def phases(seconds: float) -> tuple[Phase, ...]:
    """A steady rate, streams, opened evenly and at once, and as fast as many and as few connections can."""
    body = ("-body", str(BODY_BYTES))
    few = f"saturated_{FEW_CONNECTIONS}_connections"
    usual, *others = STREAM_INTERVALS_MILLISECONDS
    streams = _streams(f"streams_{usual}_ms", usual, STREAMS_OPENED_OVER_SECONDS)
    return (
        Phase(
            name="steady",
            arguments=("-rate", str(RATE), "-seconds", str(seconds), *body),
            added="added",
        ),
        streams,
        _streams(f"streams_{usual}_ms_at_once", usual, 0),
        replace(
            streams,
            name=f"{streams.name}_shared",
            added=f"{streams.name}_shared_added_first_token",
            apart=False,
            only_first_round=True,
        ),
        *(
            replace(
                _streams(f"streams_{other}_ms", other, STREAMS_OPENED_OVER_SECONDS), only_first_round=True
            )
            for other in others
        ),
        Phase(
            name="saturated",
            arguments=("-seconds", str(seconds), "-connections", str(MANY_CONNECTIONS), *body),
            added="saturated_added",
            requests_per_second="requests_per_second",
        ),
        Phase(
            name=few,
            arguments=("-seconds", str(seconds), "-connections", str(FEW_CONNECTIONS), *body),
            added=f"{few}_added",
            requests_per_second=f"{few}_requests_per_second",
        ),
    )


def _streams(name: str, interval_milliseconds: int, opened_over_seconds: int) -> Phase:
    """Streams with so much between two tokens; their time is that of the first token."""
    return Phase(
        name=name,
        arguments=(
            *("-connections", str(STREAMS), "-tokens", str(STREAM_TOKENS)),
            *("-interval", str(interval_milliseconds), "-over", str(opened_over_seconds)),
            *("-body", str(BODY_BYTES)),
        ),
        added=f"{name}_added_first_token",
        quantiles=QUANTILES[:2],
        apart=True,
    )


@contextmanager
def instant_engines(folder: Path) -> Iterator[tuple[int, int]]:
    """Backends that need no time; their port and their process."""
    port = free_port()
    listen = ",".join(f"{ip}:{port}" for ip in engine_addresses(ENGINES))
    with running(load_program(), "backend", "-listen", listen, log=folder / "backend.log") as process_id:
        yield port, process_id


def measure(folder: Path, *, rounds: int, seconds: float) -> dict[str, Any]:
    """Every figure."""
    with (
        instant_engines(folder) as (engine_port, backend_id),
        two_routers(folder, engine_port, ENGINES, max_num_seqs=1000) as router,
        plain_balancers(folder, engine_port, ENGINES, balance="leastconn") as plain,
        plain_balancers(folder, engine_port, ENGINES, balance="leastconn", keep_connections=True) as keeping,
    ):
        direct = ",".join(f"http://{ip}:{engine_port}" for ip in engine_addresses(ENGINES))
        urls = {"without": direct, "with": router.url, PLAIN: plain.url, KEEPING: keeping.url}

        def processors() -> ByRole:
            return {
                **router.processor_seconds(),
                PLAIN: plain.processor_seconds()["haproxy"],
                KEEPING: keeping.processor_seconds()["haproxy"],
                "backend": processor_seconds(backend_id),
                "load_generator": finished_children_seconds(),
            }

        asked = phases(seconds)
        runs: dict[tuple[str, str], list[Run]] = {}
        for side, phase in order(asked, rounds):
            wait_for(lambda: _is_idle(router), "idle routers", seconds=SETTLED_SECONDS, every_seconds=0)
            with apart(router.all_ids, [backend_id]) if phase.apart else nullcontext():
                run = _run(phase, urls[side], processors)
            runs.setdefault((phase.name, side), []).append(run)
    middle = {name: middle_of(kept) for name, kept in runs.items()}
    for name, run in middle.items():
        print(*name, _rounded(run.figures), "cores", _rounded(run.cores), flush=True)
    return {**added(asked, middle), "machine_cores": len(os.sched_getaffinity(0))}


def _is_idle(router: Balancer) -> bool:
    def used_seconds() -> float:
        return sum(router.processor_seconds().values())

    return is_idle(used_seconds, cores=IDLE_CORES, over_seconds=LOOK_SECONDS)


def order(asked: Sequence[Phase], rounds: int) -> Iterator[tuple[str, Phase]]:
    """Each round goes through all phases on one side, then on the others, the last of which begins the next
    round.
    """
    for number in range(rounds):
        for side in SATURATED_SIDES if number % 2 == 0 else SATURATED_SIDES[::-1]:
            for phase in asked:
                if side in phase.sides and (number == 0 or not phase.only_first_round):
                    yield side, phase


def _run(phase: Phase, urls: str, processors: Callable[[], ByRole]) -> Run:
    before, began = processors(), time.monotonic()
    figures = ask("send", "-urls", urls, *phase.arguments)
    took_seconds = time.monotonic() - began
    return Run(figures=figures, cores=cores_used(before, processors(), took_seconds))


def cores_used(before: ByRole, after: ByRole, took_seconds: float) -> dict[str, float]:
    """The cores of each role, and of the two that are the router together."""
    cores = {role: (after[role] - before[role]) / took_seconds for role in before}
    return {**cores, "router": cores["haproxy"] + cores["agents"]}


def middle_of(runs: Sequence[Run]) -> Run:
    """The median of each figure over the rounds."""
    figures, cores = [run.figures for run in runs], [run.cores for run in runs]
    return Run(
        figures={key: median([each[key] for each in figures]) for key in figures[0]},
        cores={role: median([each[role] for each in cores]) for role in cores[0]},
    )


def added(asked: Sequence[Phase], middle: Mapping[tuple[str, str], Run]) -> dict[str, Any]:
    """What the routers add in each phase, and what each role used of the processors."""
    found: dict[str, Any] = {}
    for phase in asked:
        without, through = (middle[phase.name, side].figures for side in SIDES)
        if phase.requests_per_second is not None:
            found[phase.requests_per_second] = through["requests_per_second"]
            found[f"{phase.requests_per_second}_without"] = without["requests_per_second"]
            for side in (PLAIN, KEEPING):
                figures = middle[phase.name, side].figures
                found[f"{phase.requests_per_second}_{side}"] = figures["requests_per_second"]
                found[f"{phase.added}_p95_ms_{side}"] = figures["p95_ms"] - without["p95_ms"]
        found |= {f"{phase.added}_{key}": through[key] - without[key] for key in phase.quantiles}
    steady = middle["steady", "with"].cores
    return {
        **found,
        "router_cores": steady["router"],
        "router_cores_of_agents": steady["agents"],
        "cores": {f"{name}_{side}": _rounded(run.cores) for (name, side), run in middle.items()},
    }


def _rounded(figures: Mapping[str, float]) -> dict[str, float]:
    return {key: round(value, 3) for key, value in figures.items()}
