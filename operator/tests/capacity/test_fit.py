"""Whether a model fits, what lacks and what would fit; the sentences stand here word by word."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from flotilla_operator.capacity import (
    Accelerator,
    Fit,
    FitReason,
    ModelShape,
    Parallel,
    Wanted,
    divides_heads,
    fit,
    longest,
    remedies,
    shape_of,
    smallest,
)
from flotilla_operator.capacity.explain import explained
from flotilla_operator.capacity.fit import GIB, UTILIZATION, WORKING_GIB
from tests.builders.model_configs import (
    DEEPSEEK_V3,
    LLAMA_8B,
    LLAMA_70B,
    MINILM,
    MISTRAL_7B,
    PUBLISHED,
    QWEN2_7B,
    SMOLLM2,
)
from tests.support.generated import seldom_drawn

H100 = Accelerator(memory_gib=80)
H200 = Accelerator(memory_gib=141)
T4 = Accelerator(memory_gib=16)
SHAPES = [shape_of(config) for config, _ in PUBLISHED.values()]


def sentence(
    config: dict[str, Any], accelerator: Accelerator, wanted: Wanted, *, tensor: int, pipeline: int = 1
) -> str:
    shape, parallel = shape_of(config), Parallel(tensor=tensor, pipeline=pipeline)
    verdict = fit(shape, accelerator, wanted, parallel)
    assert not verdict.fits
    return explained(shape, accelerator, wanted, verdict, remedies(shape, accelerator, wanted, parallel, 8))


@pytest.mark.parametrize(
    ("config", "accelerator", "length", "parallel", "reason"),
    [
        pytest.param(LLAMA_8B, H100, 131072, (1, 1), FitReason.FITS, id="8B on one H100, all its length"),
        pytest.param(LLAMA_8B, T4, 8192, (1, 1), FitReason.WEIGHTS_TOO_LARGE, id="8B on one T4"),
        pytest.param(LLAMA_8B, T4, 8192, (2, 1), FitReason.FITS, id="8B on two T4"),
        pytest.param(LLAMA_70B, H100, 32768, (1, 1), FitReason.WEIGHTS_TOO_LARGE, id="70B on one H100"),
        pytest.param(
            LLAMA_70B, H100, 131072, (2, 1), FitReason.SEQUENCE_TOO_LONG, id="70B on two, all its length"
        ),
        pytest.param(LLAMA_70B, H100, 8192, (2, 1), FitReason.FITS, id="70B on two, short"),
        pytest.param(LLAMA_70B, H100, 131072, (2, 2), FitReason.FITS, id="70B on two stages of two"),
        pytest.param(
            QWEN2_7B, H100, 4096, (8, 1), FitReason.TENSOR_DOES_NOT_DIVIDE_HEADS, id="28 heads on eight"
        ),
        pytest.param(
            QWEN2_7B,
            H100,
            4096,
            (7, 1),
            FitReason.TENSOR_DOES_NOT_DIVIDE_HEADS,
            id="28 heads on seven, but 4 KV heads",
        ),
        pytest.param(
            SMOLLM2, H100, 4096, (1, 31), FitReason.MORE_STAGES_THAN_LAYERS, id="31 stages of 30 layers"
        ),
        pytest.param(MINILM, T4, 512, (1, 1), FitReason.FITS, id="an encoder"),
    ],
)
def test_verdicts(
    config: dict[str, Any],
    accelerator: Accelerator,
    length: int,
    parallel: tuple[int, int],
    reason: FitReason,
) -> None:
    tensor, pipeline = parallel
    wanted = Wanted(max_model_len=length)
    verdict = fit(shape_of(config), accelerator, wanted, Parallel(tensor=tensor, pipeline=pipeline))
    assert verdict.reason is reason
    assert verdict.fits == (verdict.reason is FitReason.FITS)


@pytest.mark.holds(
    "capacity.md",
    '"What would fit" names the fewest stages, then the fewest accelerators, and it fits; a '
    "shorter `maxModelLen` and FP8 are named too",
)
@pytest.mark.parametrize(
    ("config", "accelerator", "length", "expected"),
    [
        pytest.param(LLAMA_8B, H100, 8192, (1, 1), id="8B on one H100"),
        pytest.param(LLAMA_8B, T4, 8192, (2, 1), id="8B on two T4"),
        pytest.param(LLAMA_70B, H100, 131072, (4, 1), id="70B on four H100, three do not divide 64 heads"),
        pytest.param(LLAMA_70B, T4, 8192, (8, 2), id="70B on T4: two nodes of eight"),
        pytest.param(DEEPSEEK_V3, H100, 32768, (8, 2), id="DeepSeek V3 on two nodes of H100"),
        pytest.param(DEEPSEEK_V3, H200, 32768, (8, 1), id="DeepSeek V3 on one node of H200"),
        pytest.param(DEEPSEEK_V3, T4, 32768, (8, 7), id="any number of stages up to the API's sixteen"),
    ],
)
def test_the_smallest_parallelism(
    config: dict[str, Any], accelerator: Accelerator, length: int, expected: tuple[int, int]
) -> None:
    found = smallest(shape_of(config), accelerator, Wanted(max_model_len=length), per_node=8)
    assert found is not None
    assert (found.tensor, found.pipeline) == expected


def test_nothing_is_small_enough_for_a_model_that_no_sixteen_stages_hold() -> None:
    assert smallest(shape_of(DEEPSEEK_V3), Accelerator(memory_gib=6), Wanted(max_model_len=1024), 8) is None


@pytest.mark.holds(
    "capacity.md",
    "A model that does not fit makes `SpecValid` False with the reason, the GiB that lack and what would fit",
)
def test_a_model_that_does_not_fit_says_what_lacks_and_what_would_fit() -> None:
    assert sentence(LLAMA_70B, H100, Wanted(max_model_len=131072), tensor=2) == (
        "the model does not fit: each accelerator needs 65.7 GiB for weights and 20.0 GiB for the KV cache "
        "of one sequence of 131072 tokens; an accelerator of 80 GiB has 71.6 GiB for both, which is 14.1 GiB "
        "too little; it would fit with spec.parallelism.tensor 4, or with spec.engine.maxModelLen 37888"
    )


@pytest.mark.holds(
    "capacity.md",
    '"What would fit" names the fewest stages, then the fewest accelerators, and it fits; a '
    "shorter `maxModelLen` and FP8 are named too",
)
def test_an_eight_bit_cache_is_proposed_where_it_would_do() -> None:
    assert sentence(LLAMA_70B, H100, Wanted(max_model_len=65536), tensor=2).endswith(
        "it would fit with spec.parallelism.tensor 4, or with spec.engine.maxModelLen 37888, or with "
        "spec.engine.kvCacheDtype FP8"
    )


def test_weights_alone_that_do_not_fit_are_helped_by_parallelism_only() -> None:
    assert sentence(LLAMA_70B, T4, Wanted(max_model_len=8192), tensor=4).endswith(
        "which is 20.8 GiB too little; it would fit with spec.parallelism.tensor 8 and "
        "spec.parallelism.pipeline 2"
    )


def test_a_model_that_nothing_holds_says_so() -> None:
    assert sentence(DEEPSEEK_V3, Accelerator(memory_gib=6), Wanted(max_model_len=1024), tensor=8).endswith(
        "no spec.parallelism makes it fit 6 GiB accelerators; use accelerators with more memory, or a "
        "smaller or quantised model"
    )


@pytest.mark.holds("capacity.md", "A tensor that does not divide the attention heads has its own reason")
def test_a_tensor_that_does_not_divide_the_heads_names_those_that_do() -> None:
    assert sentence(QWEN2_7B, H100, Wanted(max_model_len=4096), tensor=8) == (
        "spec.parallelism.tensor is 8, but the model's 28 attention heads and 4 KV heads cannot be spread "
        "evenly over 8 accelerators; set it to one of 1, 2, 4"
    )


def test_more_stages_than_layers_is_said() -> None:
    assert sentence(SMOLLM2, H100, Wanted(max_model_len=64), tensor=1, pipeline=31) == (
        "spec.parallelism.pipeline is 31, but the model has only 30 layers; set it to at most 30"
    )


def tight(shape: ModelShape, length: int, tensor: int, share: float | None) -> Accelerator:
    """One that holds the weights and this share of one sequence; None is one that holds hardly anything."""
    if share is None:
        return Accelerator(memory_gib=2.2)
    wanted = Wanted(max_model_len=length)
    needed = fit(shape, Accelerator(memory_gib=0), wanted, Parallel(tensor=tensor))
    for_model_gib = (needed.weight_bytes + share * needed.sequence_bytes) / GIB
    return Accelerator(memory_gib=max(3.0, (for_model_gib + WORKING_GIB) / UTILIZATION))


TIGHT = (
    st.sampled_from(SHAPES),
    st.integers(16, 200_000),
    st.sampled_from([1, 2, 4, 8, 3]),
    st.sampled_from([None, -0.1, 0.1, 0.3, 0.5, 0.7, 0.9, 1.1]),
)


@settings(max_examples=40)
@given(*TIGHT, st.integers(1, 8))
def test_more_memory_shorter_sequences_and_more_accelerators_never_hurt(
    shape: ModelShape, length: int, tensor: int, share: float | None, pipeline: int
) -> None:
    parallel, wanted = Parallel(tensor=tensor, pipeline=pipeline), Wanted(max_model_len=length)
    accelerator = tight(shape, length, tensor, share)
    here = fit(shape, accelerator, wanted, parallel)
    better = [
        fit(shape, Accelerator(memory_gib=accelerator.memory_gib + 1), wanted, parallel),
        fit(shape, accelerator, Wanted(max_model_len=length - 1), parallel),
        fit(shape, accelerator, wanted, Parallel(tensor=tensor, pipeline=pipeline + 1)),
    ]
    if divides_heads(shape, 2 * tensor):
        better.append(fit(shape, accelerator, wanted, Parallel(tensor=2 * tensor, pipeline=pipeline)))
    for other in better:
        assert other.lacking_bytes <= here.lacking_bytes + 1
        assert min(other.kv_bytes, other.weight_bytes, other.sequence_bytes, other.lacking_bytes) >= 0


def proposed(shape: ModelShape, length: int, tensor: int, share: float | None) -> Iterator[str]:
    accelerator, wanted = tight(shape, length, tensor, share), Wanted(max_model_len=length)
    parallel = Parallel(tensor=tensor)
    if fit(shape, accelerator, wanted, parallel).fits:
        return
    found = remedies(shape, accelerator, wanted, parallel, per_node=8)
    yield "no parallelism" if found.parallel is None else "another parallelism"
    yield "no shorter sequence" if found.max_model_len is None else "a shorter sequence"
    yield "an 8-bit cache" if found.fp8_cache else "no 8-bit cache"


def test_models_are_drawn_for_which_each_remedy_helps_and_helps_not() -> None:
    expected = (
        "another parallelism",
        "no parallelism",
        "a shorter sequence",
        "no shorter sequence",
        "an 8-bit cache",
        "no 8-bit cache",
    )
    assert seldom_drawn(expected, proposed, *TIGHT) == {}


@pytest.mark.holds(
    "capacity.md",
    '"What would fit" names the fewest stages, then the fewest accelerators, and it fits; a '
    "shorter `maxModelLen` and FP8 are named too",
)
@settings(max_examples=40)
@given(*TIGHT)
def test_what_is_proposed_fits_and_what_fits_is_proposed(
    shape: ModelShape, length: int, tensor: int, share: float | None
) -> None:
    accelerator, parallel = tight(shape, length, tensor, share), Parallel(tensor=tensor)

    def fits(tokens: int, how: Parallel = parallel, number_bytes: float | None = None) -> bool:
        wanted = Wanted(max_model_len=tokens, kv_number_bytes=number_bytes)
        return fit(shape, accelerator, wanted, how).fits

    found = remedies(shape, accelerator, Wanted(max_model_len=length), parallel, per_node=8)
    ways = (Parallel(tensor=t, pipeline=p) for p in range(1, 17) for t in range(1, 9))
    assert found.parallel == next((way for way in ways if fits(length, way)), None)
    lengths = [tokens for tokens in range(1024, length + 1, 1024) if fits(tokens)]
    assert found.max_model_len == max(lengths, default=None)
    assert found.fp8_cache == (shape.kv_heads > 0 and fits(length, number_bytes=1))


@pytest.mark.holds(
    "capacity.md",
    '"What would fit" names the fewest stages, then the fewest accelerators, and it fits; a '
    "shorter `maxModelLen` and FP8 are named too",
)
def test_the_longest_sequence_fills_what_is_left() -> None:
    shape = shape_of(LLAMA_70B)
    parallel = Parallel(tensor=2)
    found = longest(shape, H100, Wanted(max_model_len=131072), parallel)
    assert found is not None
    assert fit(shape, H100, Wanted(max_model_len=found), parallel).fits
    assert not fit(shape, H100, Wanted(max_model_len=found + 1024), parallel).fits


@pytest.mark.holds("capacity.md", "2 GiB of each accelerator are kept for activations")
def test_an_accelerator_keeps_a_share_and_working_memory_for_the_engine() -> None:
    assert H100.for_model_bytes / GIB == pytest.approx(80 * 0.92 - 2)
    assert Accelerator(memory_gib=1).for_model_bytes == 0


def sharing(config: dict[str, Any], parallel: Parallel, length: int, shared: int | None) -> Fit:
    wanted = Wanted(max_model_len=length, shared_prefix_tokens=shared)
    return fit(shape_of(config), H100, wanted, parallel)


@pytest.mark.holds(
    "capacity.md",
    "`sequencesPerReplica` and `sequencesPerReplicaSharingPrefix` of the example are 15.5 and 20.3",
)
@pytest.mark.parametrize(
    ("config", "tensor", "length", "shared", "alone", "together"),
    [
        pytest.param(
            # (71.6 - 32.855 - 0.625) / (2.5 - 0.625) GiB.
            *(LLAMA_70B, 4, 32768, 8192, 15.5, 20.3),
            id="a quarter of each sequence is kept once",
        ),
        pytest.param(LLAMA_70B, 4, 32768, 0, 15.5, 15.5, id="nothing is shared"),
        pytest.param(LLAMA_70B, 4, 32768, None, 15.5, None, id="nothing is told"),
        pytest.param(LLAMA_70B, 4, 32768, 32768, 15.5, None, id="nothing is left of a sequence"),
        pytest.param(
            *(MISTRAL_7B, 1, 32768, 8192, 116.2, 116.2),
            id="what has slid out of the window is shared by nobody",
        ),
        pytest.param(
            # 58.1 GiB; the window of 4,096 tokens takes 0.5 GiB, and 0.25 GiB of it are kept once.
            *(MISTRAL_7B, 1, 4096, 2048, 116.2, 231.4),
            id="half of the window is shared",
        ),
        pytest.param(MINILM, 1, 512, 100, None, None, id="an encoder keeps nothing"),
    ],
)
def test_sequences_with_and_without_a_shared_prefix(
    config: dict[str, Any],
    tensor: int,
    length: int,
    shared: int | None,
    alone: float | None,
    together: float | None,
) -> None:
    found = sharing(config, Parallel(tensor=tensor), length, shared)
    counts = (found.sequences, found.sequences_sharing_prefix)
    assert tuple(None if count is None else round(count, 1) for count in counts) == (alone, together)


SHARING = (
    st.sampled_from([config for config, _ in PUBLISHED.values()]),
    st.sampled_from([Parallel(), Parallel(tensor=4), Parallel(tensor=8, pipeline=2)]),
    st.integers(2, 200_000).flatmap(lambda length: st.tuples(st.just(length), st.integers(0, length - 1))),
)


@settings(max_examples=50)
@given(*SHARING)
def test_what_is_shared_changes_neither_the_verdict_nor_the_number_that_share_nothing(
    config: dict[str, Any], parallel: Parallel, tokens: tuple[int, int]
) -> None:
    length, shared = tokens
    none, some = sharing(config, parallel, length, 0), sharing(config, parallel, length, shared)
    assert none.sequences_sharing_prefix == none.sequences == some.sequences
    assert some.reason is none.reason


@settings(max_examples=50)
@given(*SHARING)
def test_the_more_is_shared_the_more_sequences_fit(
    config: dict[str, Any], parallel: Parallel, tokens: tuple[int, int]
) -> None:
    length, shared = tokens
    verdicts = [sharing(config, parallel, length, prefix) for prefix in (0, shared, length - 1)]
    assume(verdicts[0].fits and verdicts[0].sequences is not None)
    counts = [count for verdict in verdicts if (count := verdict.sequences_sharing_prefix) is not None]
    assert len(counts) == 3
    assert all(later >= earlier * (1 - 1e-9) for earlier, later in pairwise(counts))
