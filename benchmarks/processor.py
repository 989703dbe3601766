"""The processor time that processes have used, and the processors that they may use."""

import os
import resource
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


def processor_seconds(process_id: int) -> float:
    """User and system time of one process so far."""
    fields = Path(f"/proc/{process_id}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def finished_children_seconds() -> float:
    """User and system time of this process's children that have ended and were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def is_idle(used_seconds: Callable[[], float], *, cores: float, over_seconds: float) -> bool:
    """Whether `used_seconds` grows by less than this many cores' time during the next seconds."""
    before = used_seconds()
    time.sleep(over_seconds)
    return used_seconds() - before < cores * over_seconds


def halves(processors: Collection[int]) -> tuple[frozenset[int], frozenset[int]]:
    """The processors in two disjoint halves, the larger one first; a single processor is both halves."""
    ordered = sorted(processors)
    middle = (len(ordered) + 1) // 2
    return frozenset(ordered[:middle]), frozenset(ordered[middle:] or ordered)


@contextmanager
def apart(some: Iterable[int], others: Iterable[int]) -> Iterator[None]:
    """During the block the processes `some` run on one half of the processors; `others`, this thread and the
    children that it starts run on the other half.
    """
    some, others, all_of_them = tuple(some), tuple(others), os.sched_getaffinity(0)
    first, second = halves(all_of_them)
    try:
        _confine([0, *_threads(others)], first)
        _confine(_threads(some), second)
        yield
    finally:
        _confine([0, *_threads(others), *_threads(some)], all_of_them)


def _confine(threads: Iterable[int], processors: Collection[int]) -> None:
    for thread in threads:
        os.sched_setaffinity(thread, processors)


def _threads(process_ids: Iterable[int]) -> list[int]:
    return [int(each.name) for one in process_ids for each in Path(f"/proc/{one}/task").iterdir()]
