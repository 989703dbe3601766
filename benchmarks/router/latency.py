"""What the router adds: the same requests with and without it, in alternation.

The backend answers at once, so what is left is the way there and back. Added is the difference of the medians
over the rounds, for each quantile.
"""

from collections.abc import Iterator
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
    """Every figure, with the names that the issue gives them."""
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
        for _ in range(rounds):
            for name, urls in (("without", direct), ("with", router.url)):
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
    added = {key: middle["steady with"][key] - middle["steady without"][key] for key in QUANTILES}
    return {
        "requests_per_second": middle["full with"]["requests_per_second"],
        "requests_per_second_without": middle["full without"]["requests_per_second"],
        **{f"added_{key}": value for key, value in added.items()},
        "router_cores": median([both for both, _ in cores]),
        "router_cores_of_agents": median([agents for _, agents in cores]),
        **{
            f"{kind}_added_first_token_{key}": middle[f"{name} with"][key] - middle[f"{name} without"][key]
            for kind, name in (("streams", "streams"), ("streams_at_once", "streams at once"))
            for key in ("p50_ms", "p95_ms")
        },
    }
