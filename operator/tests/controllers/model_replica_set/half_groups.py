"""For how long groups hold accelerators with some of their pods only, as the API server shows it."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from flotilla_runtime import contract
from tests.controllers.model_replica_set.stage import Stage

LOOK_SECONDS = 0.1
WATCHED_AT_MOST_SECONDS = 900.0


class HalfGroups:
    """The groups of some sets, looked at again and again: which were seen whole, and the `longest` time in
    seconds for which one was seen half. Pods that are being deleted count: they hold what they have.
    """

    def __init__(self, stage: Stage, *names: str) -> None:
        self.whole: set[str] = set()
        self.longest = 0.0
        self._stage, self._names = stage, names
        self._since: dict[str, float] = {}
        self._looked = time.monotonic()
        self._unwatched = 0.0

    @property
    def at_most(self) -> float:
        """The longest that one can have been half: nobody saw how it was before the first look that found it
        so, and after the last.
        """
        return self.longest + 2 * self._unwatched

    def look(self) -> None:
        """Once more."""
        last, self._looked = self._looked, time.monotonic()
        bound, stages = Counter[str](), dict[str, int]()
        for pod in (pod for name in self._names for pod in self._stage.engine_pods(name)):
            if pod["spec"].get("nodeName"):
                group = pod["metadata"]["labels"][contract.LABEL_GROUP]
                bound[group] += 1
                stages[group] = int(pod["metadata"]["annotations"].get(contract.ANNOTATION_STAGES, "1"))
        self._unwatched = max(self._unwatched, time.monotonic() - last)
        halves = {group for group, count in bound.items() if count < stages[group]}
        self.whole |= bound.keys() - halves
        self._since = {group: self._since.get(group, self._looked) for group in halves}
        self.longest = max([self.longest, *(self._looked - since for since in self._since.values())])


@contextmanager
def watched(groups: HalfGroups) -> Iterator[HalfGroups]:
    """They are looked at in the background meanwhile; what goes wrong there is raised at the end."""
    done = threading.Event()

    def look_on() -> None:
        ends = time.monotonic() + WATCHED_AT_MOST_SECONDS
        while not done.wait(LOOK_SECONDS):
            assert time.monotonic() < ends, "it takes too long"
            groups.look()

    with ThreadPoolExecutor(max_workers=1) as background:
        looking = background.submit(look_on)
        try:
            yield groups
        finally:
            done.set()
        looking.result()
