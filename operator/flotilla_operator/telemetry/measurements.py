"""What was measured last, and where to measure: the values between the scraper and the controllers.

Unknown is None: a target that was never reached, or not for three intervals, has no measurement.
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
    """One answer."""

    at: datetime
    document: Any


@dataclass(slots=True)
class Measurements:
    """The latest measurement of every target."""

    _latest: dict[str, Measurement] = field(default_factory=dict)
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
        """Take a new measurement."""
        self._latest[key] = measurement

    def forget(self, key: str) -> None:
        """The target is gone or its measurement stale: unknown from now on."""
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
