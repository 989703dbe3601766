"""The targets to scrape and their latest measurements: the values between scraper and controllers.

What a target answered is kept only until it has been validated. After that, only the valid fields are kept,
so that an answer which is none of ours takes no memory.

A target that was never reached, or not for three intervals, has no measurement: it is unknown (None).
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Generic, TypeVar

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
    """One answer of a target, and its time. `document` is None once it has been validated."""

    at: datetime
    document: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered(Generic[Answer]):
    """A valid answer of a target, and its time."""

    at: datetime
    answer: Answer


def newest_first(answers: Iterable[Answered[Answer] | None]) -> list[Answered[Answer]]:
    """The answers of the targets that are known, the newest first."""
    known = [answered for answered in answers if answered is not None]
    return sorted(known, key=lambda answered: answered.at, reverse=True)


def first_known(answers: Iterable[Answered[Answer] | None]) -> Answer | None:
    """The answer of the first target that is known."""
    return next((answered.answer for answered in answers if answered is not None), None)


@dataclass(slots=True)
class Measurements:
    """The latest measurement of every target. Each is validated once, however often it is read."""

    _latest: dict[str, Measurement] = field(default_factory=dict)
    _valid: dict[str, Answered[Any]] = field(default_factory=dict)
    _unreadable: set[str] = field(default_factory=set)

    def latest(self, key: str) -> Measurement | None:
        """The latest measurement, or None when it is unknown or too old."""
        return self._latest.get(key)

    def answers(self, targets: Iterable[Target], model: type[Answer]) -> tuple[Answered[Answer] | None, ...]:
        """The latest answer of each target, in their order; None for one that is unknown or not valid.

        A pod of another release, or one that is not ours at all, must not make a reconcile fail. An invalid
        answer is logged once, until the target has given a valid one.
        """
        return tuple(self._answer(target, model) for target in targets)

    def record(self, key: str, measurement: Measurement) -> None:
        """Store a new measurement."""
        self._latest[key] = measurement
        self._valid.pop(key, None)

    def forget(self, key: str) -> None:
        """Drop the measurement of a target that is gone or did not answer for too long."""
        self._latest.pop(key, None)
        self._valid.pop(key, None)
        self._unreadable.discard(key)

    def _answer(self, target: Target, model: type[Answer]) -> Answered[Answer] | None:
        measurement = self._latest.get(target.key)
        if measurement is None:
            return None
        held = self._valid.get(target.key)
        if held is not None and isinstance(held.answer, model):
            return held
        self._latest[target.key] = replace(measurement, document=None)
        try:
            answered = Answered(at=measurement.at, answer=model.model_validate(measurement.document))
        except ValidationError as error:
            self._note_unreadable(target, model, error)
            return None
        self._valid[target.key] = answered
        self._unreadable.discard(target.key)
        return answered

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
