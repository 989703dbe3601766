"""An engine double that records its generations: `python -m fleet.recorded_double LOG --config FILE …`.

Each line of the log is one generation that began, or one that ended, whole or broken off. So the log has the
model's own count of tokens. What a killed double had begun and not ended is told by its beginning alone.
"""

import asyncio
import itertools
import os
import re
import sys
import time
from pathlib import Path
from typing import Final

from engine_double.__main__ import serve
from engine_double.configuration import parse
from engine_double.work import FinishReason, Record, Request
from fleet.generations import Generation
from fleet.log import Log

MARKER: Final = re.compile(r"\[task (?P<task>\d+) (?P<step>[^\]]+)\]")


class Recorder:
    """Writes the log; what a prompt without a marker belongs to is task 0."""

    def __init__(self, path: Path) -> None:
        self._log = Log(path)
        self._under_way: dict[str, Generation] = {}
        self._numbers = itertools.count(1)

    def began(self, prompt: str, work: Request) -> None:
        """A generation begins."""
        named = MARKER.search(prompt)
        begun = Generation(
            id=f"{os.getpid()}-{next(self._numbers)}",
            at=time.time_ns() // 1_000_000,
            task=int(named["task"]) if named else 0,
            step=named["step"] if named else "",
            prompt_tokens=work.prompt_tokens,
        )
        self._under_way[work.id] = begun
        self._log.write(begun)

    def ended(self, record: Record) -> None:
        """A generation has ended."""
        begun = self._under_way.pop(record.request.id, None)
        if begun is not None:
            self._log.write(
                Generation(
                    id=begun.id,
                    at=time.time_ns() // 1_000_000,
                    task=begun.task,
                    step=begun.step,
                    prompt_tokens=begun.prompt_tokens,
                    generated_tokens=record.generated_tokens,
                    is_whole=record.reason is not FinishReason.ABORT,
                )
            )


def main() -> None:
    """Read the arguments, and serve until SIGTERM."""
    configuration, options, _ = parse(sys.argv[2:])
    asyncio.run(serve(configuration, options.host, options.port, Recorder(Path(sys.argv[1]))))


if __name__ == "__main__":
    main()
