"""Measures the latency that the router adds: the same requests with and without it, in alternation.

- The backend answers at once, so only the way there and back takes time. For each quantile, the added latency
  is the difference of the medians over the rounds.
- The cores that each role used are reported, because on a saturated machine a figure also contains the wait
  for
  a processor.
- At saturation the mean time of a request is the number of connections divided by the requests per second,
  wherever the request waits. So this is measured with many connections and with few; with few, queues are
  short.
- Two plain HAProxies, without conversations, logs or keys, get the same requests. Any router that is made of
  HAProxy and opens a connection for each request adds at least as much. Two more that keep their connections
  show the cost of opening them.
- For streams the routers run on one half of the processors and everything else on the other, also in the runs
  without routers, because users' routers do not share processors with callers and engines. One more phase has
  all processes share all processors.
- A phase starts when the agents have read the log lines of the phase before.
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
    """A kind of load and its figures' names; `apart` gives the routers processors of their own."""

    name: str
    arguments: tuple[str, ...]
    added: str
    quantiles: tuple[str, ...] = QUANTILES
    requests_per_second: str | None = None
    only_first_round: bool = False
    apart: bool = False

    @property
    def sides(self) -> tuple[str, ...]:
        """The targets of the requests; at saturation these include the plain HAProxies."""
        return SIDES if self.requests_per_second is None else SATURATED_SIDES


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The result of one phase on one side: the load generator's figures, and each role's used cores."""

    figures: Mapping[str, float]
    cores: ByRole


def phases(seconds: float) -> tuple[Phase, ...]:
    """A steady rate; streams opened evenly and all at once; saturation with many and with few connections."""
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
    """Streams with this interval between tokens; the measured time is that to the first token."""
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
    """Backends that answer at once; yields their port and their process id."""
    port = free_port()
    listen = ",".join(f"{ip}:{port}" for ip in engine_addresses(ENGINES))
    with running(load_program(), "backend", "-listen", listen, log=folder / "backend.log") as process_id:
        yield port, process_id


def measure(folder: Path, *, rounds: int, seconds: float) -> dict[str, Any]:
    """All figures of the first half."""
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
    """The sides and phases in order: each round runs all phases on one side, then on the next side. Every
    other round takes the sides in reverse order.
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
    """The cores that each role used, and those of HAProxy and agents together as `router`."""
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
    """The latency that the routers add in each phase, and the cores that each role used."""
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
