"""Prints one line for each step with the seconds it took, and a line now and then while a long step runs.

A terminal also shows a step when it begins. A log file gets a line when a step ends, and one every
HEARTBEAT_SECONDS while it runs, so that a ten-minute build does not seem to hang.
"""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TextIO

HEARTBEAT_SECONDS = 20.0


@dataclass(slots=True, kw_only=True)
class Progress:
    """Prints steps and remembers what each took."""

    out: TextIO = field(default_factory=lambda: sys.stdout)
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time the block, and print its name and seconds as one line."""
        started = time.monotonic()
        finished = threading.Event()
        beat = threading.Thread(target=self._beat, args=(name, started, finished), daemon=True)
        if self.out.isatty():
            print(f"  … {name}", end="\r", file=self.out, flush=True)
        beat.start()
        mark = "✗"
        try:
            yield
            mark = "✓"
        finally:
            finished.set()
            beat.join()
            took = self.seconds[name] = time.monotonic() - started
            print(f"  {mark} {name:<52} {took:7.1f} s", file=self.out, flush=True)

    def note(self, text: str) -> None:
        """Print a line that is not a step."""
        print(f"    {text}", file=self.out, flush=True)

    def _beat(self, name: str, started: float, finished: threading.Event) -> None:
        while not finished.wait(HEARTBEAT_SECONDS):
            line = f"  … {name} ({time.monotonic() - started:.0f} s so far)"
            print(line, end="\r" if self.out.isatty() else "\n", file=self.out, flush=True)
