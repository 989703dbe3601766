"""Whether a model fits its accelerators, how much memory it lacks, and what would fit.

Memory of one accelerator, as vLLM accounts for it (`gpu_worker.determine_available_memory`):

    usable       memory · utilization
    weights      the share of the largest stage, divided by tensor
    working      activations, CUDA graphs and NCCL's buffers
    KV cache     the rest; vLLM does not start unless one sequence of maxModelLen tokens fits

vLLM measures `working` at its start, so it is not known before. WORKING_GIB stands for it here. A verdict
within about a GiB of the limit may therefore be wrong; a replica that serves proves more.
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
        """The memory for weights and KV cache together."""
        return max(0, round((self.memory_gib * self.utilization - self.working_gib) * GIB))


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """How a model is to be served: the longest sequence, the type of the KV cache where it differs from the
    model's, and how many tokens all sequences share at their beginning, if that is known.
    """

    max_model_len: int
    kv_number_bytes: float | None = None
    shared_prefix_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """The verdict for one way to divide a replica, with the figures of its fullest accelerator.

    `own_bytes` are the bytes of a sequence without its shared prefix; None when no shared prefix is given.
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
        """Memory that is left for the KV cache beside the weights."""
        return max(0, self.for_model_bytes - self.weight_bytes)

    @property
    def lacking_bytes(self) -> int:
        """By how much each accelerator is too small for the weights and one sequence; 0 when it is not."""
        return max(0, self.weight_bytes + self.sequence_bytes - self.for_model_bytes)

    @property
    def sequences(self) -> float | None:
        """How many sequences of the longest length fit; None for a model without a KV cache."""
        return sequences_that_fit(self.kv_bytes, sequence_bytes=self.sequence_bytes)

    @property
    def sequences_sharing_prefix(self) -> float | None:
        """How many of them fit when their common prefix is kept once; None when no prefix is given."""
        if self.own_bytes is None:
            return None
        return sequences_that_fit(self.kv_bytes, sequence_bytes=self.sequence_bytes, own_bytes=self.own_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedies:
    """Changes that make the model fit, each one alone; None or False marks one that does not help."""

    parallel: Parallel | None
    max_model_len: int | None
    fp8_cache: bool


def fit(shape: ModelShape, accelerator: Accelerator, wanted: Wanted, parallel: Parallel) -> Fit:
    """Whether a replica that is divided like this fits."""

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
    """The weights on each accelerator of the largest stage, with the embedding table that it holds."""
    if parallel.pipeline == 1:
        return math.ceil(shape.weight_bytes / parallel.tensor)
    table = min(shape.table_bytes, shape.weight_bytes)
    in_layers = max(0, shape.weight_bytes - 2 * table)
    stage = in_layers * math.ceil(shape.layers / parallel.pipeline) / shape.layers + table
    return math.ceil(min(stage, shape.weight_bytes) / parallel.tensor)


def divides_heads(shape: ModelShape, tensor: int) -> bool:
    """Whether vLLM can spread the heads evenly over the accelerators of one stage.

    KV heads are spread evenly too, or each is kept by the same number of accelerators. The single vector of
    latent attention can always be.
    """
    if shape.attention_heads % tensor:
        return False
    return not shape.kv_heads or shape.kv_heads % tensor == 0 or tensor % shape.kv_heads == 0


def smallest(shape: ModelShape, accelerator: Accelerator, wanted: Wanted, per_node: int) -> Parallel | None:
    """The division of a replica that fits with the fewest stages, then with the fewest accelerators.

    The accelerators of one stage share a node's fast interconnect; each further stage needs the slower
    network.
    """
    fitting = (p for p in _ways(shape, per_node) if fit(shape, accelerator, wanted, p).fits)
    return min(fitting, key=lambda p: (p.pipeline, p.tensor), default=None)


def remedies(
    shape: ModelShape, accelerator: Accelerator, wanted: Wanted, parallel: Parallel, per_node: int
) -> Remedies:
    """Find changes that make the model fit: parallelism, shorter sequences or an 8-bit KV cache."""
    small_numbers = replace(wanted, kv_number_bytes=FP8_BYTES)
    keeps_more = kv_bytes_per_token(shape, wanted.kv_number_bytes) > kv_bytes_per_token(shape, FP8_BYTES)
    return Remedies(
        parallel=smallest(shape, accelerator, wanted, per_node),
        max_model_len=longest(shape, accelerator, wanted, parallel),
        fp8_cache=keeps_more and fit(shape, accelerator, small_numbers, parallel).fits,
    )


def longest(shape: ModelShape, accelerator: Accelerator, wanted: Wanted, parallel: Parallel) -> int | None:
    """The longest sequence that fits, a multiple of 1,024 tokens and no longer than wanted."""
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
