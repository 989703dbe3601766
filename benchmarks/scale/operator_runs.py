"""The operator, there for its own runs only.

Beside the bare client it would read every event of a thousand pods on the same processors, and slow down what
it is compared with. So it is stopped before a run of the bare client and started again before its own next
one; neither is in the time of a run.
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
    """Starts and stops the operator, and knows the most memory that any of its processes had."""

    def __init__(self, place: Site, running: ExitStack) -> None:
        self._place = place
        self._running = running
        self._process: OperatorProcess | None = None
        self._peak_mib = 0.0

    def peak_mib(self) -> float:
        """The largest process of all there were."""
        now = 0.0 if self._process is None else self._process.memory_mib(peak=True)
        return max(self._peak_mib, now)

    def begin(self) -> None:
        """Have one that leads and has nothing to do, the end of what was before included."""
        if self._process is None:
            place = self._place
            started = ready_operator(place.folder, place.kubeconfig, NAMESPACE)
            self._process = self._running.enter_context(started)
        process = self._process
        wait_for(lambda: "flotilla_leader 1.0" in process.get("metrics", "/metrics")[1], "a leader")
        wait_for(lambda: _is_idle(process), "an idle operator", every_seconds=0)

    def end(self) -> None:
        """Have none."""
        self._peak_mib = self.peak_mib()
        self._process = None
        self._running.close()


@contextmanager
def operator_runs(place: Site) -> Iterator[OperatorRuns]:
    """None runs yet, and none is left."""
    with ExitStack() as running:
        yield OperatorRuns(place, running)


def _is_idle(process: OperatorProcess) -> bool:
    used_seconds = partial(processor_seconds, process.process.pid)
    return is_idle(used_seconds, cores=IDLE_CORES, over_seconds=IDLE_FOR_SECONDS)
