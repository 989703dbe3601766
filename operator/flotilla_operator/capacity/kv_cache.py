"""Size of a sequence in the KV cache, and the number of sequences that fit.

    bytes per token = 2 · layers · kv_heads · head_dim · bytes of a number

Grouped-query attention keeps fewer KV heads than attention heads; latent attention (MLA) keeps one vector for
all of them. A layer with a sliding window keeps no more of a sequence than its window. Each of `tensor`
accelerators keeps kv_heads / tensor heads, and at least one: with fewer heads than accelerators, heads are
kept several times (vLLM, `ModelConfig.get_num_kv_heads`). vLLM gives memory out in pages of 16 tokens, which
is not counted here: on average a sequence wastes 8 tokens, and as many tokens of a prefix are not shared.
"""

import math
from dataclasses import dataclass

from flotilla_operator.capacity.shape import ModelShape

FP8_BYTES = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Parallel:
    """How a replica is divided: each layer over `tensor` accelerators, all layers over `pipeline` stages."""

    tensor: int = 1
    pipeline: int = 1

    @property
    def accelerators(self) -> int:
        return self.tensor * self.pipeline


WHOLE = Parallel()


def kv_bytes_per_token(shape: ModelShape, number_bytes: float | None = None) -> int:
    """Bytes of one token in the KV cache of a whole replica, all layers; 0 for an encoder.

    `number_bytes` is the size of a number in the cache, where it differs from the model's.
    """
    layers = shape.full_layers + shape.sliding_layers
    return round(layers * shape.kv_heads * shape.kv_numbers * (number_bytes or shape.number_bytes))


def kv_bytes_per_accelerator(
    shape: ModelShape, tokens: int, parallel: Parallel = WHOLE, number_bytes: float | None = None
) -> int:
    """Bytes of one sequence on an accelerator of the stage that has the most layers."""
    heads = max(1, math.ceil(shape.kv_heads / parallel.tensor)) if shape.kv_heads else 0
    in_layer = heads * shape.kv_numbers * (number_bytes or shape.number_bytes)
    full = math.ceil(shape.full_layers / parallel.pipeline)
    sliding = math.ceil(shape.sliding_layers / parallel.pipeline)
    return round(in_layer * (full * tokens + sliding * min(tokens, shape.sliding_window or tokens)))


def sequences_that_fit(free_bytes: int, *, sequence_bytes: int, own_bytes: int | None = None) -> float | None:
    """How many sequences of one size fit into this memory.

    Each sequence needs `own_bytes` for itself (all of its bytes by default); the rest is a prefix that all
    sequences share and that is kept once. None when a sequence needs nothing for itself, since then there is
    no limit.
    """
    own = sequence_bytes if own_bytes is None else own_bytes
    if own <= 0:
        return None
    return max(0.0, (free_bytes - (sequence_bytes - own)) / own)
