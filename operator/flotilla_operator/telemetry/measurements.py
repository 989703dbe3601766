"""The targets to scrape and their latest measurements: the values between scraper and controllers.

A target that was never reached, or not for three intervals, has no measurement: it is unknown (None).
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

import structlog
from pydantic import BaseModel, ValidationError

Answer = TypeVar("Answer", bound=BaseModel)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One endpoint that answers in JSON; `key` names it in `Measurements`, for example a pod's UID."""

    key: str
    url: str
    interval_seconds: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One answer of a target, and its time."""

    at: datetime
    document: Any


@dataclass(slots=True)
class Measurements:
    """The latest measurement of every target."""

    _latest: dict[str, Measurement] = field(default_factory=dict)
    _unreadable: set[str] = field(default_factory=set)

    def latest(self, key: str) -> Measurement | None:
        """The latest measurement, or None when it is unknown or too old."""
        return self._latest.get(key)

    def answers(self, targets: Iterable[Target], model: type[Answer]) -> list[Answer]:
        """The latest answers of these targets, newest first, without those that do not match the model.

        A pod of another release, or one that is not ours at all, must not make a reconcile fail. An invalid
        answer is logged once, until the target has given a valid one.
        """
        found = []
        for target in targets:
            measurement = self._latest.get(target.key)
            if measurement is None:
                continue
            try:
                found.append((measurement.at, model.model_validate(measurement.document)))
            except ValidationError as error:
                self._note_unreadable(target, model, error)
            else:
                self._unreadable.discard(target.key)
        return [answer for _, answer in sorted(found, key=lambda entry: entry[0], reverse=True)]

    def record(self, key: str, measurement: Measurement) -> None:
        """Store a new measurement."""
        self._latest[key] = measurement

    def forget(self, key: str) -> None:
        """Drop the measurement of a target that is gone or did not answer for too long."""
        self._latest.pop(key, None)
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
