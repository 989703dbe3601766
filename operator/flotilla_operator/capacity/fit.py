"""Whether a model fits its accelerators, what lacks, and what would fit.

On one accelerator, as vLLM accounts for it (`gpu_worker.determine_available_memory`):

    usable       memory · utilization
    weights      the largest stage's share, divided by tensor
    working      activations, CUDA graphs and NCCL's buffers
    KV cache     what is left; vLLM refuses to start unless one sequence of maxModelLen tokens fits

`working` is measured by vLLM at its start and not known before. WORKING_GIB is what is taken for it here, so
a verdict within a GiB or so of the limit may be wrong, and a replica that serves is a better one.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from flotilla_operator.capacity.kv_cache import (
    FP8_BYTES,
    Parallel,
    kv_bytes_per_accelerator,
    kv_bytes_per_token,
    sequences_that_fit,
)
from flotilla_operator.capacity.shape import ModelShape

GIB = 1024**3
UTILIZATION = 0.92  # vLLM's default of --gpu-memory-utilization; a test holds it to the pinned release
WORKING_GIB = 2.0
MAX_TENSOR = 16  # the API's own bounds
MAX_PIPELINE = 16
LENGTH_STEP = 1024


class FitReason(StrEnum):
    """Why a model fits or does not."""

    FITS = "Fits"
    TENSOR_DOES_NOT_DIVIDE_HEADS = "TensorDoesNotDivideHeads"
    MORE_STAGES_THAN_LAYERS = "MoreStagesThanLayers"
    WEIGHTS_TOO_LARGE = "WeightsTooLarge"
    SEQUENCE_TOO_LONG = "SequenceTooLong"


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """One accelerator, and the share of its memory that the engine may use."""

    memory_gib: float
    utilization: float = UTILIZATION
    working_gib: float = WORKING_GIB

    @property
    def for_model_bytes(self) -> int:
        """What is there for weights and KV cache."""
        return max(0, round((self.memory_gib * self.utilization - self.working_gib) * GIB))


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """How a model is to be served: the longest sequence, the type of the KV cache if not the model's, and how
    much of their beginning all sequences share, if it is told.
    """

    max_model_len: int
    kv_number_bytes: float | None = None
    shared_prefix_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """The verdict for one way to cut a replica, with its figures for the fullest accelerator.

    `own_bytes` are those of a sequence's bytes that it does not share, None where no shared prefix is told.
    """

    reason: FitReason
    parallel: Parallel
    for_model_bytes: int
    weight_bytes: int
    sequence_bytes: int
    own_bytes: int | None = None

    @property
    def fits(self) -> bool:
        """Whether the engine would start."""
        return self.reason is FitReason.FITS

    @property
    def kv_bytes(self) -> int:
        """What is left for the KV cache beside the weights."""
        return max(0, self.for_model_bytes - self.weight_bytes)

    @property
    def lacking_bytes(self) -> int:
        """By how much each accelerator is too small for the weights and one sequence, 0 where it is not."""
        return max(0, self.weight_bytes + self.sequence_bytes - self.for_model_bytes)

    @property
    def sequences(self) -> float | None:
        """How many sequences of the longest length fit, None for a model without a KV cache."""
        return sequences_that_fit(self.kv_bytes, sequence_bytes=self.sequence_bytes)

    @property
    def sequences_sharing_prefix(self) -> float | None:
        """How many of them fit with their prefix kept once, None where no prefix is told."""
        if self.own_bytes is None:
            return None
        return sequences_that_fit(self.kv_bytes, sequence_bytes=self.sequence_bytes, own_bytes=self.own_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedies:
    """What would fit: each alone would do, and None is what does not help."""

    parallel: Parallel | None
    max_model_len: int | None
    fp8_cache: bool


def fit(shape: ModelShape, accelerator: Accelerator, wanted: Wanted, parallel: Parallel) -> Fit:
    """Whether a replica that is cut like this fits."""

    def kv_bytes(tokens: int) -> int:
        return kv_bytes_per_accelerator(shape, max(0, tokens), parallel, wanted.kv_number_bytes)

    length, shared = wanted.max_model_len, wanted.shared_prefix_tokens
    figures = Fit(
        reason=FitReason.FITS,
        parallel=parallel,
        for_model_bytes=accelerator.for_model_bytes,
        weight_bytes=weight_bytes_per_accelerator(shape, parallel),
        sequence_bytes=kv_bytes(length),
        own_bytes=None if shared is None else kv_bytes(length - shared),
    )
    return replace(figures, reason=_reason(shape, figures))


def weight_bytes_per_accelerator(shape: ModelShape, parallel: Parallel) -> int:
    """The weights on each accelerator of the largest stage, which holds an embedding table beside its
    layers.
    """
    if parallel.pipeline == 1:
        return math.ceil(shape.weight_bytes / parallel.tensor)
    table = min(shape.table_bytes, shape.weight_bytes)
    in_layers = max(0, shape.weight_bytes - 2 * table)
    stage = in_layers * math.ceil(shape.layers / parallel.pipeline) / shape.layers + table
    return math.ceil(min(stage, shape.weight_bytes) / parallel.tensor)


def divides_heads(shape: ModelShape, tensor: int) -> bool:
    """Whether vLLM can spread the heads: an equal number of them on each accelerator.

    KV heads are spread evenly too, or each is kept by an equal number of accelerators; the one vector of
    latent attention always can be.
    """
    if shape.attention_heads % tensor:
        return False
    return not shape.kv_heads or shape.kv_heads % tensor == 0 or tensor % shape.kv_heads == 0


def smallest(shape: ModelShape, accelerator: Accelerator, wanted: Wanted, per_node: int) -> Parallel | None:
    """The way to cut a replica that takes the fewest stages, and of those the fewest accelerators.

    The accelerators of a stage share a node's fast interconnect; another stage is another node, and slower.
    """
    fitting = (p for p in _ways(shape, per_node) if fit(shape, accelerator, wanted, p).fits)
    return min(fitting, key=lambda p: (p.pipeline, p.tensor), default=None)


def remedies(
    shape: ModelShape, accelerator: Accelerator, wanted: Wanted, parallel: Parallel, per_node: int
) -> Remedies:
    """What would make it fit, from the outside in: other parallelism, shorter sequences, smaller numbers."""
    small_numbers = replace(wanted, kv_number_bytes=FP8_BYTES)
    keeps_more = kv_bytes_per_token(shape, wanted.kv_number_bytes) > kv_bytes_per_token(shape, FP8_BYTES)
    return Remedies(
        parallel=smallest(shape, accelerator, wanted, per_node),
        max_model_len=longest(shape, accelerator, wanted, parallel),
        fp8_cache=keeps_more and fit(shape, accelerator, small_numbers, parallel).fits,
    )


def longest(shape: ModelShape, accelerator: Accelerator, wanted: Wanted, parallel: Parallel) -> int | None:
    """The longest sequence that fits, in whole thousands (1,024) of tokens and no longer than wanted."""
    steps = range(LENGTH_STEP, wanted.max_model_len + 1, LENGTH_STEP)
    low, high = 0, len(steps)
    while low < high:
        middle = (low + high) // 2
        shorter = replace(wanted, max_model_len=steps[middle])
        if fit(shape, accelerator, shorter, parallel).fits:
            low = middle + 1
        else:
            high = middle
    return steps[low - 1] if low else None


def _ways(shape: ModelShape, per_node: int) -> Iterator[Parallel]:
    for tensor in range(1, min(per_node, MAX_TENSOR) + 1):
        if divides_heads(shape, tensor):
            for pipeline in range(1, min(shape.layers, MAX_PIPELINE) + 1):
                yield Parallel(tensor=tensor, pipeline=pipeline)


def _reason(shape: ModelShape, figures: Fit) -> FitReason:
    if not divides_heads(shape, figures.parallel.tensor):
        return FitReason.TENSOR_DOES_NOT_DIVIDE_HEADS
    if figures.parallel.pipeline > shape.layers:
        return FitReason.MORE_STAGES_THAN_LAYERS
    if figures.weight_bytes > figures.for_model_bytes:
        return FitReason.WEIGHTS_TOO_LARGE
    if figures.lacking_bytes:
        return FitReason.SEQUENCE_TOO_LONG
    return FitReason.FITS
