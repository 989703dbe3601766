"""Tells a benchmark's record of the begin and the end of each generation, where there is a record."""

from typing import Final, Protocol

from engine_double.work import Record, Request


class Recorder(Protocol):
    """Keeps a record of generations."""

    def began(self, prompt: str, work: Request) -> None:
        """A generation begins."""

    def ended(self, record: Record) -> None:
        """A generation has ended, whole or broken off."""


class _Unrecorded:
    def began(self, prompt: str, work: Request) -> None:
        """Keep nothing."""

    def ended(self, record: Record) -> None:
        """Keep nothing."""


UNRECORDED: Final[Recorder] = _Unrecorded()
