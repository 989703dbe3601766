"""The contract for admission: what the models of a fleet have room for, and how many tasks may be at work."""

from enum import StrEnum
from typing import Final

from flotilla_runtime.contract.names import CONFIG_DIRECTORY
from flotilla_runtime.contract.sections import Section, WireModel

CAPACITY_FILE: Final = "capacity.json"
CAPACITY_PATH: Final = f"{CONFIG_DIRECTORY}/{CAPACITY_FILE}"


class ModelCapacity(Section):
    """The capacity of all ready replicas of one model; None is unknown, and limits nothing.

    `kv_tokens` fit into their KV caches. A task of the fleet may come to `context_tokens`. `slots` is how
    many calls they compute at the same time.
    """

    name: str
    context_tokens: int
    kv_tokens: float | None = None
    slots: int | None = None


class FleetCapacity(Section):
    """The file at CAPACITY_PATH, which gateways read anew every few seconds: models with known capacity."""

    models: tuple[ModelCapacity, ...] = ()


class AdmissionLimit(StrEnum):
    """The reason for the limit on tasks at work."""

    NOTHING = "Nothing"  # no model has a known capacity
    WARM_KV = "WarmKV"  # with more tasks, they push each other's histories out of the KV cache
    SLOTS = "Slots"  # with more tasks, calls only wait for a slot


class Admission(WireModel):
    """How many tasks may be at work over the whole fleet, and why; `most` None is any number.

    `warm` tasks fit into the KV caches of `model`, and `busy` tasks fill its slots: each is None where it is
    unknown. `tasks_per_slot` fill one slot while times do not vary.
    """

    most: int | None = None
    limit: AdmissionLimit = AdmissionLimit.NOTHING
    model: str | None = None
    warm: int | None = None
    busy: int | None = None
    tasks_per_slot: float | None = None
