"""Weights, KV cache and sequences: the reference numbers, well-known models, and what must hold of any."""

from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from flotilla_operator.capacity import (
    ConfigError,
    Parallel,
    WeightsFrom,
    kv_bytes_per_accelerator,
    kv_bytes_per_token,
    sequences_that_fit,
    shape_of,
)
from flotilla_operator.capacity.config import Fields
from flotilla_operator.capacity.fit import GIB
from flotilla_operator.capacity.parameters import parameters_of
from tests.builders.model_configs import (
    DEEPSEEK_V3,
    FALCON_7B,
    GEMMA2_9B,
    GEMMA3_4B,
    GPT_OSS_20B,
    LLAMA_8B,
    LLAMA_70B,
    MINILM,
    MISTRAL_7B,
    PUBLISHED,
    QWEN2_7B,
    SMOLLM2,
)

# requirements: 40 layers of 40 heads of 128 numbers of 2 bytes; 26 GiB of weights, 80 GiB, 6 GiB of overhead.
REFERENCE = {
    "model_type": "llama",
    "hidden_size": 5120,
    "intermediate_size": 13824,
    "num_hidden_layers": 40,
    "num_attention_heads": 40,
    "vocab_size": 32000,
    "torch_dtype": "float16",
}
FREE_BYTES = (80 - 26 - 6) * GIB


@pytest.mark.holds(
    "capacity.md", "The KV cache of one token follows the formula, with latent attention and FP8 too"
)
def test_the_reference_model_keeps_819200_bytes_of_a_token() -> None:
    assert kv_bytes_per_token(shape_of(REFERENCE)) == 819_200
    assert kv_bytes_per_accelerator(shape_of(REFERENCE), 2048) / 1e6 == pytest.approx(1677.7, abs=0.05)


@pytest.mark.holds(
    "capacity.md", "30 sequences of 2,048 tokens fit with 48 GiB free, 112 with a shared prefix of 1,500"
)
def test_thirty_reference_sequences_fit_and_112_with_a_shared_prefix() -> None:
    sequence = 2048 * 819_200
    alone = sequences_that_fit(FREE_BYTES, sequence_bytes=sequence)
    shared = sequences_that_fit(FREE_BYTES, sequence_bytes=sequence, own_bytes=(2048 - 1500) * 819_200)
    assert alone is not None
    assert shared is not None
    assert (int(alone), int(shared)) == (30, 112)
    assert int(shared) / int(alone) == pytest.approx(3.73, abs=0.005)


def test_the_weights_of_seventy_billion_parameters_in_two_bytes_are_140_gigabytes() -> None:
    assert shape_of(LLAMA_70B).weight_bytes / 1e9 == pytest.approx(141, abs=0.2)


@pytest.mark.holds("capacity.md", "Weights counted from the config are within 0.1 % for large models")
@pytest.mark.parametrize(
    ("config", "published"), [pytest.param(*row, id=name) for name, row in PUBLISHED.items()]
)
def test_the_parameters_are_those_that_are_published(config: dict[str, Any], published: int) -> None:
    within = 0.001 if published > 1e9 else 0.02
    assert parameters_of(Fields(config)).total == pytest.approx(published, rel=within)


@pytest.mark.holds(
    "capacity.md", "The KV cache of one token follows the formula, with latent attention and FP8 too"
)
@pytest.mark.parametrize(
    ("config", "kv_bytes"),
    [
        pytest.param(LLAMA_8B, 131_072, id="grouped queries: 8 of 32 heads"),
        pytest.param(LLAMA_70B, 327_680, id="grouped queries: 8 of 64 heads"),
        pytest.param(QWEN2_7B, 57_344, id="4 of 28 heads"),
        pytest.param(FALCON_7B, 8_192, id="one head for all, whatever num_kv_heads says"),
        pytest.param(DEEPSEEK_V3, 70_272, id="latent attention: 576 numbers in each of 61 layers"),
        pytest.param(GPT_OSS_20B, 49_152, id="heads of another width than hidden / heads"),
        pytest.param(SMOLLM2, 23_040, id="a small model"),
        pytest.param(MINILM, 0, id="an encoder keeps nothing"),
    ],
)
def test_the_cache_of_one_token(config: dict[str, Any], kv_bytes: int) -> None:
    assert kv_bytes_per_token(shape_of(config)) == kv_bytes


@pytest.mark.holds(
    "capacity.md", "The KV cache of one token follows the formula, with latent attention and FP8 too"
)
def test_an_eight_bit_cache_takes_half() -> None:
    shape = shape_of(LLAMA_8B)
    assert kv_bytes_per_token(shape, number_bytes=1) * 2 == kv_bytes_per_token(shape)


@pytest.mark.holds(
    "capacity.md", "Sliding windows bound what a layer keeps, layers without attention keep nothing"
)
@pytest.mark.parametrize(
    ("config", "full", "sliding", "window"),
    [
        pytest.param(MISTRAL_7B, 0, 32, 4096, id="all layers slide"),
        pytest.param(QWEN2_7B, 28, 0, None, id="a window that is not used"),
        pytest.param(
            {**QWEN2_7B, "use_sliding_window": True, "max_window_layers": 21},
            21,
            7,
            131072,
            id="the last ones",
        ),
        pytest.param(GEMMA2_9B, 21, 21, 4096, id="every second one, by the family"),
        pytest.param(GEMMA3_4B, 5, 29, 1024, id="five of six, by the family"),
        pytest.param(GPT_OSS_20B, 12, 12, 128, id="as listed"),
        pytest.param(
            {**GPT_OSS_20B, "layer_types": {"sliding_attention": 12, "full_attention": 12}},
            12,
            12,
            128,
            id="as counted",
        ),
        pytest.param(
            {**LLAMA_8B, "layer_types": ["linear_attention"] * 24 + ["full_attention"] * 8},
            8,
            0,
            None,
            id="layers without a cache",
        ),
    ],
)
def test_layers_with_a_window(config: dict[str, Any], full: int, sliding: int, window: int | None) -> None:
    shape = shape_of(config)
    assert (shape.full_layers, shape.sliding_layers, shape.sliding_window) == (full, sliding, window)


@pytest.mark.holds(
    "capacity.md", "Sliding windows bound what a layer keeps, layers without attention keep nothing"
)
def test_a_window_bounds_what_a_long_sequence_takes() -> None:
    shape = shape_of(MISTRAL_7B)
    at_window = kv_bytes_per_accelerator(shape, 4096)
    assert kv_bytes_per_accelerator(shape, 32768) == at_window == 4096 * kv_bytes_per_token(shape)


@pytest.mark.holds("capacity.md", "Weights and KV heads are split by tensor and stages as the page says")
@pytest.mark.parametrize(
    ("config", "tensor", "pipeline", "share"),
    [
        pytest.param(LLAMA_70B, 8, 1, 1 / 8, id="a head on each"),
        pytest.param(LLAMA_70B, 16, 1, 1 / 8, id="more accelerators than KV heads: each head is kept twice"),
        pytest.param(LLAMA_70B, 4, 2, 1 / 8, id="stages share the layers"),
        pytest.param(DEEPSEEK_V3, 8, 1, 1, id="the one vector of latent attention is on every accelerator"),
        pytest.param(SMOLLM2, 1, 4, 8 / 30, id="the longest of uneven stages"),
    ],
)
def test_the_cache_on_one_accelerator(
    config: dict[str, Any], tensor: int, pipeline: int, share: float
) -> None:
    shape = shape_of(config)
    parallel = Parallel(tensor=tensor, pipeline=pipeline)
    assert kv_bytes_per_accelerator(shape, 1000, parallel) == 1000 * kv_bytes_per_token(shape) * share


@pytest.mark.holds("capacity.md", "A model stored in 32-bit numbers is counted with 16")
@pytest.mark.parametrize(
    ("config", "gib"),
    [
        pytest.param({}, 14.96, id="two bytes"),
        pytest.param({"torch_dtype": "float32"}, 14.96, id="stored with four, computed with two"),
        pytest.param({"quantization_config": {"quant_method": "fp8"}}, 8.46, id="fp8"),
        pytest.param(
            {"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 128}},
            5.34,
            id="AWQ, 4 bits",
        ),
        pytest.param({"quantization_config": {"quant_method": "gptq", "bits": 8}}, 8.46, id="GPTQ, 8 bits"),
        pytest.param(
            {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
            5.62,
            id="bitsandbytes",
        ),
        pytest.param(
            {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}},
            8.46,
            id="bitsandbytes, 8 bits",
        ),
        pytest.param(
            {
                "quantization_config": {
                    "quant_method": "compressed-tensors",
                    "config_groups": {"group_0": {"weights": {"num_bits": 4, "group_size": 128}}},
                }
            },
            5.34,
            id="compressed-tensors, 4 bits",
        ),
        pytest.param({"quantization_config": {"quant_method": "modelopt_fp4"}}, 5.62, id="NVFP4"),
        pytest.param(
            {"quantization_config": {"quant_method": "of tomorrow"}}, 14.96, id="a method nobody knows"
        ),
    ],
)
def test_the_weights_by_their_numbers_size(config: dict[str, Any], gib: float) -> None:
    shape = shape_of({**LLAMA_8B, **config})
    assert shape.weight_bytes / GIB == pytest.approx(gib, abs=0.01)
    assert shape.weights_from is WeightsFrom.CONFIG


def test_only_the_experts_of_mxfp4_are_small() -> None:
    assert shape_of(GPT_OSS_20B).weight_bytes / GIB == pytest.approx(12.8, abs=0.05)


@pytest.mark.holds("capacity.md", "Weights are the sizes of the weight files where they are known")
@pytest.mark.holds("capacity.md", "A model stored in 32-bit numbers is counted with 16")
@pytest.mark.parametrize(
    ("config", "stored", "loaded"),
    [
        pytest.param(LLAMA_8B, None, 1000, id="as they are"),
        pytest.param(GEMMA2_9B, None, 500, id="four bytes a number are halved when loaded"),
        pytest.param(MINILM, 4.0, 500, id="the files say it where the config does not"),
        pytest.param(MINILM, None, 1000, id="nobody says it: nothing is taken off"),
        pytest.param(
            {**GEMMA2_9B, "quantization_config": {"quant_method": "awq", "bits": 4}},
            None,
            1000,
            id="quantised numbers are not halved",
        ),
    ],
)
def test_the_size_of_the_files_goes_before_the_config(
    config: dict[str, Any], stored: float | None, loaded: int
) -> None:
    shape = shape_of(config, file_bytes=1000, stored_bytes=stored)
    assert (shape.weight_bytes, shape.weights_from) == (loaded, WeightsFrom.FILES)


@pytest.mark.holds("capacity.md", "What is not known is absent and never 0")
@pytest.mark.parametrize("lacking", ["hidden_size", "num_hidden_layers", "num_attention_heads"])
def test_a_config_without_what_is_needed_is_an_error_that_names_it(lacking: str) -> None:
    with pytest.raises(ConfigError, match=lacking) as refused:
        shape_of({key: value for key, value in LLAMA_8B.items() if key != lacking})
    assert refused.value.field == "config.json"


@settings(max_examples=30)
@given(
    st.sampled_from([config for config, _ in PUBLISHED.values()]),
    st.integers(1, 16),
    st.integers(1, 12),
    st.integers(1, 200_000),
)
def test_more_tokens_never_take_less_and_more_accelerators_never_more(
    config: dict[str, Any], tensor: int, pipeline: int, tokens: int
) -> None:
    shape = shape_of(config)
    here = kv_bytes_per_accelerator(shape, tokens, Parallel(tensor=tensor, pipeline=pipeline))
    assert (
        0 <= here <= kv_bytes_per_accelerator(shape, tokens + 1, Parallel(tensor=tensor, pipeline=pipeline))
    )
    assert kv_bytes_per_accelerator(shape, tokens, Parallel(tensor=tensor + 1, pipeline=pipeline)) <= here
    assert kv_bytes_per_accelerator(shape, tokens, Parallel(tensor=tensor, pipeline=pipeline + 1)) <= here


@settings(max_examples=30)
@given(st.integers(0, 10**12), st.integers(1, 10**11), st.integers(1, 10**11))
def test_a_shared_prefix_never_costs_a_second_sequence(free: int, one: int, other: int) -> None:
    own, sequence = sorted((one, other))
    alone = sequences_that_fit(free, sequence_bytes=sequence)
    shared = sequences_that_fit(free, sequence_bytes=sequence, own_bytes=own)
    assert alone is not None
    assert shared is not None
    assert shared >= 0
    assert sequences_that_fit(free, sequence_bytes=sequence, own_bytes=sequence) == alone
    assume(alone >= 1)
    assert shared >= alone * (1 - 1e-9)


@pytest.mark.holds("capacity.md", "What is not known is absent and never 0")
@pytest.mark.parametrize("nothing", [{"sequence_bytes": 0}, {"sequence_bytes": 9, "own_bytes": 0}])
def test_what_takes_nothing_has_no_number(nothing: dict[str, int]) -> None:
    assert sequences_that_fit(GIB, **nothing) is None
