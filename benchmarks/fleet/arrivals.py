"""Requests that arrived at the effect server and at the models, as the checker sees them."""

from dataclasses import dataclass
from pathlib import Path

from fleet.calls import Kind
from fleet.generations import generations_of
from fleet.log import lines_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One request. `at` is in milliseconds since the epoch; `applied` says whether it had an effect."""

    at: int
    kind: str
    task: int
    step: str
    key: str = ""
    applied: bool = True


def arrivals_of(path: Path) -> list[Arrival]:
    """The arrivals in the log of the effect server."""
    return [Arrival(**line) for line in lines_of(path)]


def model_arrivals_of(path: Path) -> list[Arrival]:
    """The generations that began, in the log of the engine doubles."""
    return [
        Arrival(at=each.at, kind=Kind.MODEL, task=each.task, step=each.step)
        for each in generations_of(path)
        if each.is_whole is None
    ]
