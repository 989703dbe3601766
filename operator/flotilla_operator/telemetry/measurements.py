"""What was measured last, and where to measure: the values between the scraper and the controllers.

Unknown is None: a target that was never reached, or not for three intervals, has no measurement. The previous
one is kept too, because some proofs (a drained engine is idle) need two in a row.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeVar

import structlog
from pydantic import BaseModel, ValidationError

Answer = TypeVar("Answer", bound=BaseModel)

log = structlog.get_logger(__name__)


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
    _unreadable: set[str] = field(default_factory=set)

    def latest(self, key: str) -> Measurement | None:
        """The newest measurement that is not stale, or None for unknown."""
        return self._latest.get(key)

    def answers(self, targets: Iterable[Target], model: type[Answer]) -> list[Answer]:
        """What these targets answered last, the newest first; an answer that cannot be read is unknown.

        A pod of an older or newer release, or one that is not ours at all, must not stop anybody's
        reconcile. It is said once in the log, until the target answers properly.
        """
        found = []
        for target in targets:
            measurement = self._latest.get(target.key)
            if measurement is None or measurement.document is None:
                continue
            try:
                found.append((measurement.at, model.model_validate(measurement.document)))
            except ValidationError as error:
                self._note_unreadable(target, model, error)
            else:
                self._unreadable.discard(target.key)
        return [answer for _, answer in sorted(found, key=lambda entry: entry[0], reverse=True)]

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
        self._unreadable.discard(key)

    def _note_unreadable(self, target: Target, model: type[BaseModel], error: ValidationError) -> None:
        if target.key in self._unreadable:
            return
        self._unreadable.add(target.key)
        first = error.errors(include_url=False, include_input=False)[0]
        log.warning(
            "answer_unreadable",
            url=target.url,
            expected=model.__name__,
            field=".".join(str(part) for part in first["loc"]),
            error=first["msg"],
        )
