"""Sizing arithmetic: takes a model's own figures, returns memory, sequences and what fits. Pure."""

from flotilla_operator.capacity.config import CapacityError, ConfigError
from flotilla_operator.capacity.fit import (
    Accelerator,
    Fit,
    FitReason,
    Remedies,
    Wanted,
    divides_heads,
    fit,
    longest,
    remedies,
    smallest,
)
from flotilla_operator.capacity.kv_cache import (
    Parallel,
    kv_bytes_per_accelerator,
    kv_bytes_per_token,
    sequences_that_fit,
)
from flotilla_operator.capacity.shape import ModelShape, WeightsFrom, shape_of

__all__ = [
    "Accelerator",
    "CapacityError",
    "ConfigError",
    "Fit",
    "FitReason",
    "ModelShape",
    "Parallel",
    "Remedies",
    "Wanted",
    "WeightsFrom",
    "divides_heads",
    "fit",
    "kv_bytes_per_accelerator",
    "kv_bytes_per_token",
    "longest",
    "remedies",
    "sequences_that_fit",
    "shape_of",
    "smallest",
]
