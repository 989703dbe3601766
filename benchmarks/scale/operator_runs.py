"""Runs the operator only during its own runs.

Beside the bare client the operator would handle the events of a thousand pods on the same processors, and so
slow down the client. It is stopped before each run of the client and started again before its own next run.
Neither the stop nor the start is part of a run's time.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from cluster_site import ready_operator, wait_for
from processor import is_idle, processor_seconds
from scale.site import NAMESPACE, Site
from tests.support.processes import OperatorProcess

IDLE_CORES = 0.2
IDLE_FOR_SECONDS = 3.0


class OperatorRuns:
    """Starts and stops the operator, and records the largest memory of its processes."""

    def __init__(self, place: Site, running: ExitStack) -> None:
        self._place = place
        self._running = running
        self._process: OperatorProcess | None = None
        self._peak_mib = 0.0

    def peak_mib(self) -> float:
        """The largest memory of any operator process so far."""
        now = 0.0 if self._process is None else self._process.memory_mib(peak=True)
        return max(self._peak_mib, now)

    def begin(self) -> None:
        """Start an operator unless one runs; returns when it leads and has finished its earlier work."""
        if self._process is None:
            place = self._place
            started = ready_operator(place.folder, place.kubeconfig, NAMESPACE)
            self._process = self._running.enter_context(started)
        process = self._process
        wait_for(lambda: "flotilla_leader 1.0" in process.get("metrics", "/metrics")[1], "a leader")
        wait_for(lambda: _is_idle(process), "an idle operator", every_seconds=0)

    def end(self) -> None:
        """Stop the operator if one runs."""
        self._peak_mib = self.peak_mib()
        self._process = None
        self._running.close()


@contextmanager
def operator_runs(place: Site) -> Iterator[OperatorRuns]:
    """No operator runs at the start; one that still runs at the end is stopped."""
    with ExitStack() as running:
        yield OperatorRuns(place, running)


def _is_idle(process: OperatorProcess) -> bool:
    used_seconds = partial(processor_seconds, process.process.pid)
    return is_idle(used_seconds, cores=IDLE_CORES, over_seconds=IDLE_FOR_SECONDS)
