"""Prints each step as it starts and, at the end, how many seconds each one took."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class Timeline:
    """Named steps with their seconds, in the order in which they ran."""

    steps: list[tuple[str, float]] = field(default_factory=list)

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Announce a step, and keep how long it took even when it fails."""
        print(f"── {title}", flush=True)
        started = time.monotonic()
        try:
            yield
        finally:
            seconds = time.monotonic() - started
            self.steps.append((title, seconds))
            print(f"   {seconds:.1f} s", flush=True)

    @property
    def total_seconds(self) -> float:
        """Sum over the steps."""
        return sum(seconds for _, seconds in self.steps)

    def table(self) -> str:
        """One line for each step, with its seconds and its share of the total."""
        total = self.total_seconds or 1.0
        width = max((len(title) for title, _ in self.steps), default=0)
        rows = [
            f"  {title:<{width}}  {seconds:7.1f} s  {seconds / total:4.0%}" for title, seconds in self.steps
        ]
        return "\n".join([*rows, f"  {'total':<{width}}  {total:7.1f} s"])
