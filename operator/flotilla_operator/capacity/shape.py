"""The figures of a model that decide how much memory its weights and KV cache take.

They come from a config.json and, where it is known, the size of the weight files. Which of the two gave the
size of the weights is kept, because the files are exact and the config is an estimate.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from flotilla_operator.capacity.config import Config, Fields
from flotilla_operator.capacity.parameters import (
    ENCODERS,
    HALF_BYTES,
    dtype_bytes,
    head_dim,
    kv_heads,
    latent_numbers,
    loaded_bytes,
    number_sizes,
    parameters_of,
    quantization_of,
)

FULL, SLIDING, CHUNKED = "full_attention", "sliding_attention", "chunked_attention"


class WeightsFrom(StrEnum):
    """Where the size of the weights comes from."""

    FILES = "Files"
    CONFIG = "Config"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """The figures of a model that decide its memory.

    `kv_numbers` counts what one layer keeps of one token for one KV head: key and value, 2 · head_dim. Latent
    attention counts as one KV head of kv_lora_rank + qk_rope_head_dim. `full_layers` and `sliding_layers` are
    the layers with a KV cache; layers of state-space models have none. An encoder keeps nothing and has no KV
    heads. `table_bytes` is the size of one embedding table, which the first stage of a pipeline holds.
    """

    weight_bytes: int
    weights_from: WeightsFrom
    table_bytes: int
    layers: int
    attention_heads: int
    kv_heads: int
    kv_numbers: int
    full_layers: int
    sliding_layers: int = 0
    sliding_window: int | None = None
    number_bytes: float = HALF_BYTES
    max_model_len: int | None = None


def shape_of(config: Config, file_bytes: int | None = None, stored_bytes: float | None = None) -> ModelShape:
    """The shape of a model; raises ConfigError.

    `file_bytes` is the size of its weight files. `stored_bytes` is the size of one number in them, for a
    config.json that does not give it.
    """
    fields = Fields(config)
    parameters = parameters_of(fields)
    layers = fields.needed("layers")
    latent = latent_numbers(fields)
    shape = ModelShape(
        weight_bytes=loaded_bytes(parameters, number_sizes(fields)),
        weights_from=WeightsFrom.CONFIG,
        table_bytes=round(parameters.table * HALF_BYTES),
        layers=layers,
        attention_heads=fields.needed("heads"),
        kv_heads=0 if fields.model_type in ENCODERS else 1 if latent else kv_heads(fields),
        kv_numbers=latent or 2 * head_dim(fields),
        max_model_len=fields.count("model_len"),
        **_cached_layers(fields, layers),
    )
    if file_bytes is None:
        return shape
    stored = dtype_bytes(fields) or stored_bytes or HALF_BYTES
    share = 1.0 if quantization_of(fields) else min(1.0, HALF_BYTES / stored)
    return replace(shape, weight_bytes=round(file_bytes * share), weights_from=WeightsFrom.FILES)


def _cached_layers(fields: Fields, layers: int) -> dict[str, Any]:
    """How many layers keep all tokens, and how many only a window of them."""
    window = fields.number("sliding_window") or fields.number("attention_chunk_size") or None
    kinds = fields.get("layer_types")
    if isinstance(kinds, list):
        kinds = {kind: kinds.count(kind) for kind in kinds}
    if kinds:
        sliding = (kinds.get(SLIDING, 0) + kinds.get(CHUNKED, 0)) if window else 0
        attending = kinds.get(FULL, 0) + kinds.get(SLIDING, 0) + kinds.get(CHUNKED, 0)
    else:
        attending = layers
        sliding = _sliding_layers(fields, layers) if window else 0
    return {
        "full_layers": attending - sliding,
        "sliding_layers": sliding,
        "sliding_window": window if sliding else None,
    }


def _sliding_layers(fields: Fields, layers: int) -> int:
    """How many layers have a window, for a config.json with a window but no list of layers."""
    pattern = fields.number("sliding_window_pattern")
    if pattern:
        return layers - layers // pattern
    if fields.model_type.startswith("qwen"):
        return max(0, layers - fields.number("max_window_layers")) if fields.get("use_sliding_window") else 0
    return 0 if fields.get("use_sliding_window") is False else layers
