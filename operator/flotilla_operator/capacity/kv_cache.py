"""What sequences take in the KV cache, and how many of them fit.

    bytes per token = 2 · layers · kv_heads · head_dim · bytes of a number

Grouped-query attention keeps fewer KV heads than it has heads; latent attention (MLA) keeps one vector for
all of them. A layer with a sliding window keeps no more than its window of a sequence. On each of `tensor`
accelerators lie kv_heads / tensor heads, and one where there are fewer heads than accelerators: those are
then kept several times (vLLM, `ModelConfig.get_num_kv_heads`). The pages of 16 tokens in which vLLM gives
memory out are left out: they take 8 tokens of a sequence on average, and as many of a prefix are not shared.
"""

import math
from dataclasses import dataclass

from flotilla_operator.capacity.shape import ModelShape

FP8_BYTES = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Parallel:
    """How one replica is cut: `tensor` accelerators compute a layer, `pipeline` stages share the layers."""

    tensor: int = 1
    pipeline: int = 1

    @property
    def accelerators(self) -> int:
        """How many one replica takes."""
        return self.tensor * self.pipeline


WHOLE = Parallel()


def kv_bytes_per_token(shape: ModelShape, number_bytes: float | None = None) -> int:
    """Bytes of one token in the KV cache of a whole replica, all layers; 0 for an encoder.

    `number_bytes` is that of the cache's own type, where it is another than the model's.
    """
    layers = shape.full_layers + shape.sliding_layers
    return round(layers * shape.kv_heads * shape.kv_numbers * (number_bytes or shape.number_bytes))


def kv_bytes_per_accelerator(
    shape: ModelShape, tokens: int, parallel: Parallel = WHOLE, number_bytes: float | None = None
) -> int:
    """Bytes of one sequence on the accelerator that holds most of it: one of the longest stage."""
    heads = max(1, math.ceil(shape.kv_heads / parallel.tensor)) if shape.kv_heads else 0
    in_layer = heads * shape.kv_numbers * (number_bytes or shape.number_bytes)
    full = math.ceil(shape.full_layers / parallel.pipeline)
    sliding = math.ceil(shape.sliding_layers / parallel.pipeline)
    return round(in_layer * (full * tokens + sliding * min(tokens, shape.sliding_window or tokens)))


def sequences_that_fit(free_bytes: int, *, sequence_bytes: int, own_bytes: int | None = None) -> float | None:
    """Sequences of one size in so much memory.

    Of each, `own_bytes` are its own, all where it is not said; the rest is a prefix that all of them share
    and that is kept once. None where a sequence takes nothing of its own, so that there is no such number.
    """
    own = sequence_bytes if own_bytes is None else own_bytes
    if own <= 0:
        return None
    return max(0.0, (free_bytes - (sequence_bytes - own)) / own)
