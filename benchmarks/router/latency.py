"""What the router adds: the same requests with and without it, in alternating order.

The backend answers at once, so what is left is the way there and back. Added is the difference of the medians
over the rounds, for each quantile.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from local_cluster.processes import free_port
from router.parts import ask, engine_addresses, load_program, median, running, two_routers

ENGINES = 4
RATE = 500
BODY_BYTES = 4096
STREAMS = 500
STREAM_TOKENS = 200
STREAM_INTERVAL_MILLISECONDS = 20
STREAMS_OPENED_OVER_SECONDS = 2
QUANTILES = ("p50_ms", "p95_ms", "p99_ms")


@contextmanager
def instant_engines(folder: Path) -> Iterator[int]:
    """Backends that need no time; their port."""
    port = free_port()
    listen = ",".join(f"{ip}:{port}" for ip in engine_addresses(ENGINES))
    with running(load_program(), "backend", "-listen", listen, log=folder / "backend.log"):
        yield port


def measure(folder: Path, *, rounds: int, seconds: float) -> dict[str, float]:
    """Every figure; `added_…` is at the steady rate, `saturated_added_…` as fast as the connections can."""
    with (
        instant_engines(folder) as engine_port,
        two_routers(folder, engine_port, ENGINES, max_num_seqs=1000) as router,
    ):
        direct = ",".join(f"http://{ip}:{engine_port}" for ip in engine_addresses(ENGINES))
        steady = ("-rate", str(RATE), "-seconds", str(seconds), "-body", str(BODY_BYTES))
        full = ("-seconds", str(seconds), "-body", str(BODY_BYTES))
        at_once = [
            *("-connections", str(STREAMS), "-tokens", str(STREAM_TOKENS)),
            *("-interval", str(STREAM_INTERVAL_MILLISECONDS), "-body", str(BODY_BYTES)),
        ]
        streams = [*at_once, "-over", str(STREAMS_OPENED_OVER_SECONDS)]
        found: dict[str, dict[str, list[float]]] = {}
        cores: list[tuple[float, float]] = []
        sides = (("without", direct), ("with", router.url))
        for number in range(rounds):
            for name, urls in sides if number % 2 == 0 else sides[::-1]:
                before = router.processor_seconds()
                answer = ask("send", "-urls", urls, *steady)
                if name == "with":
                    spent = zip(router.processor_seconds(), before, strict=True)
                    all_cores, agent_cores = ((after - start) / seconds for after, start in spent)
                    cores.append((all_cores, agent_cores))
                for kind, result in (
                    ("steady", answer),
                    ("full", ask("send", "-urls", urls, *full)),
                    ("streams", ask("send", "-urls", urls, *streams)),
                    ("streams at once", ask("send", "-urls", urls, *at_once)),
                ):
                    for key, value in result.items():
                        found.setdefault(f"{kind} {name}", {}).setdefault(key, []).append(value)
    middle = {name: {key: median(values) for key, values in kept.items()} for name, kept in found.items()}
    for name, values in middle.items():
        print(name, {key: round(value, 3) for key, value in values.items()})
    return _added(middle, cores)


def _added(
    middle: Mapping[str, Mapping[str, float]], cores: Sequence[tuple[float, float]]
) -> dict[str, float]:
    kinds = {
        "added": ("steady", QUANTILES),
        "saturated_added": ("full", QUANTILES),
        "streams_added_first_token": ("streams", QUANTILES[:2]),
        "streams_at_once_added_first_token": ("streams at once", QUANTILES[:2]),
    }
    return {
        "requests_per_second": middle["full with"]["requests_per_second"],
        "requests_per_second_without": middle["full without"]["requests_per_second"],
        **{
            f"{name}_{key}": middle[f"{kind} with"][key] - middle[f"{kind} without"][key]
            for name, (kind, quantiles) in kinds.items()
            for key in quantiles
        },
        "router_cores": median([both for both, _ in cores]),
        "router_cores_of_agents": median([agents for _, agents in cores]),
    }
