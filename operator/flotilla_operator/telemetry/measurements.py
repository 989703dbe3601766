"""What was measured last, and where to measure: the values between the scraper and the controllers.

Unknown is None: a target that was never reached, or not for three intervals, has no measurement. The previous
one is kept too, because some proofs (a drained engine is idle) need two in a row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any


class Format(StrEnum):
    """How a target answers."""

    PROMETHEUS = "Prometheus"
    JSON = "JSON"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One endpoint; `key` names it in `Measurements`, for example a pod's UID or the URL itself.

    `metrics` are the names worth keeping of Prometheus text; None keeps all.
    """

    key: str
    url: str
    format: Format = Format.PROMETHEUS
    interval_seconds: float = 5.0
    metrics: frozenset[str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One line of Prometheus text."""

    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One answer: `samples` by metric name for Prometheus text, `document` for JSON."""

    at: datetime
    samples: Mapping[str, Sequence[Sample]] = field(default_factory=dict)
    document: Any = None

    def total(self, name: str, **labels: str) -> float | None:
        """The sum of a metric's samples that carry these labels; None when there is none."""
        matching = [
            sample.value
            for sample in self.samples.get(name, ())
            if all(sample.labels.get(label) == value for label, value in labels.items())
        ]
        return sum(matching) if matching else None


@dataclass(slots=True)
class Measurements:
    """The two latest measurements of every target."""

    _latest: dict[str, Measurement] = field(default_factory=dict)
    _previous: dict[str, Measurement] = field(default_factory=dict)

    def latest(self, key: str) -> Measurement | None:
        """The newest measurement that is not stale, or None for unknown."""
        return self._latest.get(key)

    def previous(self, key: str) -> Measurement | None:
        """The one before it."""
        return self._previous.get(key)

    def record(self, key: str, measurement: Measurement) -> None:
        """Take a new measurement."""
        if (held := self._latest.get(key)) is not None:
            self._previous[key] = held
        self._latest[key] = measurement

    def forget(self, key: str) -> None:
        """The target is gone or its measurement stale: unknown from now on."""
        self._latest.pop(key, None)
        self._previous.pop(key, None)
