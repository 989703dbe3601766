"""Returns when the engine has nothing in flight, or at the drain's deadline: `until_idle.py [LEADER]`.

Without an argument it is the engine beside it; a stage of a larger group names its leader.

Idle means no request running or waiting in two looks, a second apart, and not before the routers had time to
notice that the pod is being deleted. Only a refused connection says that the engine is gone and there is
nothing to wait for; one that is slow, answers with an error, or does not say what is in flight is not known
to be idle. A leader whose name the cluster's DNS does not know any more has no pod, which counts as an idle
look; a DNS that fails says nothing.
"""

import os
import socket
import sys
import time  # noqa: TID251 (runs in the engine's container)
import urllib.request
from http.client import HTTPException

METRICS = "http://127.0.0.1:8000/metrics"
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # whatever proxy the engine's env names
IN_FLIGHT = ("vllm:num_requests_running", "vllm:num_requests_waiting")
ROUTERS_NOTICE_SECONDS = 3.0
ANSWER_TIMEOUT_SECONDS = 5.0
LOOKS = 2
BETWEEN_LOOKS_SECONDS = 1.0


def in_flight(metrics: str) -> float | None:
    """Requests that run or wait in the engine; None where it does not say so."""
    with DIRECT.open(metrics, timeout=ANSWER_TIMEOUT_SECONDS) as answer:
        lines = answer.read().decode().splitlines()
    rows = [(line.split("{")[0].split(" ")[0], line.rsplit(" ", 1)[-1]) for line in lines]
    if not {name for name, _ in rows}.issuperset(IN_FLIGHT):
        return None
    figures = [float(value) for name, value in rows if name in IN_FLIGHT]
    # With one below zero a busy engine would add up to idle.
    return None if min(figures) < 0 else sum(figures)


def is_idle(metrics: str) -> bool:
    """Whether nothing is known to run; a refused connection is the caller's to judge."""
    try:
        return in_flight(metrics) == 0
    except (OSError, HTTPException, ValueError) as problem:
        reason = getattr(problem, "reason", problem)
        if isinstance(reason, ConnectionRefusedError):
            raise reason from None
        return isinstance(reason, socket.gaierror) and reason.errno == socket.EAI_NONAME


def main() -> None:
    """Wait."""
    end = time.monotonic() + float(os.environ["FLOTILLA_DRAIN_DEADLINE_SECONDS"])
    metrics = METRICS.replace("127.0.0.1", sys.argv[1]) if len(sys.argv) > 1 else METRICS
    idle = 0
    try:
        is_idle(metrics)
        time.sleep(ROUTERS_NOTICE_SECONDS)
        while idle < LOOKS and time.monotonic() < end:
            idle = idle + 1 if is_idle(metrics) else 0
            time.sleep(BETWEEN_LOOKS_SECONDS)
    except ConnectionRefusedError as problem:
        print(f"the engine is gone: {problem.strerror}")  # noqa: T201 (the kubelet's log is all there is)


if __name__ == "__main__":
    main()
