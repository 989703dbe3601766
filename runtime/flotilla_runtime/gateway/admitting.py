"""Says to the workers, again and again, how many tasks may be at work over the whole fleet.

Every gateway says the same, because it is computed from the file of capacities and from what is in Redis.
What was said ends by itself: a gateway that is stuck stops no fleet.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import structlog
from pydantic import ValidationError

from flotilla_runtime.contract import Admission, FleetCapacity
from flotilla_runtime.contract.failure_texts import what_failed
from flotilla_runtime.gateway.problems import ProblemError

READ_EVERY_SECONDS: Final = 5.0
SAY_EVERY_SECONDS: Final = 3.0
HOLDS_SECONDS: Final = 15.0

log = structlog.get_logger(__name__)


class CapacityFile:
    """Reads the file anew every few seconds. What cannot be read leaves everything as it was."""

    def __init__(self, path: str, monotonic_seconds: Callable[[], float]) -> None:
        self._path = Path(path)
        self._clock = monotonic_seconds
        self._capacity = FleetCapacity()
        self._read_at = float("-inf")

    def now(self) -> FleetCapacity:
        """Return the capacity by the latest readable file; none without a file."""
        if self._clock() - self._read_at >= READ_EVERY_SECONDS:
            self._read_at = self._clock()
            try:
                self._capacity = FleetCapacity.model_validate_json(self._path.read_bytes())
            except FileNotFoundError:
                self._capacity = FleetCapacity()
            except (OSError, ValidationError) as problem:
                log.warning("capacity_unreadable", path=str(self._path), problem=what_failed(problem))
        return self._capacity


async def say_admission(
    decided: Callable[[], Awaitable[Admission]],
    say: Callable[[int | None, float], Awaitable[None]],
    every_seconds: float = SAY_EVERY_SECONDS,
) -> None:
    """Decide and say, forever. A Redis that does not answer is asked again later."""
    before = Admission()
    while True:
        try:
            now = await decided()
            if now.most is not None or before.most is not None:
                await say(now.most, HOLDS_SECONDS)
            if (now.most, now.limit, now.model) != (before.most, before.limit, before.model):
                log.info("admitted", most=now.most, limit=now.limit, model=now.model)
            before = now
        except ProblemError as problem:
            log.warning("admission_unsaid", problem=what_failed(problem))
        except Exception:
            log.exception("admission_unsaid")
        await asyncio.sleep(every_seconds)
