"""Decides how many tasks may be at work over the whole fleet, from what its models have room for; pure.

A model has two limits. A task comes back to the KV cache that holds its history, so only so many tasks stay
warm. A task makes no call of the model while its tools run, so a slot is kept busy by 1 + (time between
calls / time of a call) tasks, and a quarter more are let. The smaller limit counts, and of all models the
smallest. What is not known limits nothing, and one task may always be at work.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from flotilla_runtime.contract import Admission, AdmissionLimit, ModelCapacity

MODEL: Final = "Model/"  # begins the names of parts that are models
# A history grows from nothing to its end, so the mean of all calls is half of what the last one needs.
GROWN_BY: Final = 2
# Times of tools and calls vary: with just enough tasks, slots are idle while calls wait for others.
MORE_TASKS: Final = 1.25
ROUNDING: Final = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredModel:
    """The calls of one model in the last hour, and how much of their time they only waited for a slot."""

    calls: int
    busy_ms: int
    waited_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Sums over the tasks that ended in the last hour. `work_ms` is their time on a worker."""

    work_ms: int = 0
    tokens: int = 0
    models: Mapping[str, MeasuredModel] = field(default_factory=dict)

    @property
    def tokens_per_call(self) -> float | None:
        """The mean of prompt and answer together."""
        calls = sum(model.calls for model in self.models.values())
        return self.tokens / calls if calls else None


def measured_of(windows: Iterable[Mapping[str, int]]) -> Measured:
    """The sums of the minutes."""
    minutes = list(windows)
    called = {name for minute in minutes for name in minute if name.startswith(f"calls:{MODEL}")}
    names = sorted(name.removeprefix(f"calls:{MODEL}") for name in called)
    return Measured(
        work_ms=sum(minute.get("work", 0) for minute in minutes),
        tokens=sum(minute.get("tokens", 0) for minute in minutes),
        models={name: _measured_model(name, minutes) for name in names},
    )


def admitted(models: Sequence[ModelCapacity], measured: Measured) -> Admission:
    """How many tasks may be at work, and which limit of which model decides."""
    limits = [_of_model(model, measured) for model in models if _counts(model, measured)]
    known = [(limit.most, limit) for limit in limits if limit.most is not None]
    return min(known, key=lambda pair: pair[0])[1] if known else Admission()


def _counts(model: ModelCapacity, measured: Measured) -> bool:
    """Not one that no task of the last hour has called, while others were."""
    return not measured.models or model.name in measured.models


def _of_model(model: ModelCapacity, measured: Measured) -> Admission:
    warm, per_slot = _warm(model, measured), _tasks_per_slot(model, measured)
    busy = None
    if model.slots is not None and per_slot is not None:
        busy = max(1, math.ceil(MORE_TASKS * model.slots * per_slot - ROUNDING))
    told = Admission(
        model=model.name,
        warm=warm,
        busy=busy,
        tasks_per_slot=None if per_slot is None else round(per_slot, 2),
    )
    if warm is not None and (busy is None or warm <= busy):
        return told.model_copy(update={"most": warm, "limit": AdmissionLimit.WARM_KV})
    if busy is not None:
        return told.model_copy(update={"most": busy, "limit": AdmissionLimit.SLOTS})
    return told


def _warm(model: ModelCapacity, measured: Measured) -> int | None:
    """How many tasks fit into the KV caches, by what tasks come to, or may come to until one has ended."""
    if model.kv_tokens is None:
        return None
    mean = measured.tokens_per_call
    needed = min(float(model.context_tokens), GROWN_BY * mean) if mean else model.context_tokens
    return max(1, math.floor(model.kv_tokens / max(1, needed) + ROUNDING))


def _tasks_per_slot(model: ModelCapacity, measured: Measured) -> float | None:
    """How many tasks keep one slot busy, if none of their calls waits for it."""
    found = measured.models.get(model.name)
    if found is None or not measured.work_ms or found.busy_ms <= found.waited_ms:
        return None
    needed_ms = found.busy_ms - found.waited_ms
    # Where calls of one task overlap, their waits do not add up to time of the task.
    work_ms = max(measured.work_ms - found.waited_ms, measured.work_ms * needed_ms / found.busy_ms)
    return work_ms / needed_ms


def _measured_model(name: str, minutes: Sequence[Mapping[str, int]]) -> MeasuredModel:
    def total(kind: str) -> int:
        return sum(minute.get(f"{kind}:{MODEL}{name}", 0) for minute in minutes)

    return MeasuredModel(calls=total("calls"), busy_ms=total("busy"), waited_ms=total("slot-wait"))
