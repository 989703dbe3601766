"""A verdict in one sentence: what is needed, what there is, what lacks, and what would fit."""

from flotilla_operator.capacity.fit import GIB, Accelerator, Fit, FitReason, Remedies, Wanted, divides_heads
from flotilla_operator.capacity.kv_cache import Parallel
from flotilla_operator.capacity.shape import ModelShape


def gib(count: float) -> str:
    """Bytes as people read them."""
    return f"{count / GIB:.1f} GiB"


def explained(
    shape: ModelShape, accelerator: Accelerator, wanted: Wanted, verdict: Fit, found: Remedies
) -> str:
    """Why a model does not fit, and what to change in the set's spec."""
    if verdict.reason is FitReason.TENSOR_DOES_NOT_DIVIDE_HEADS:
        return heads_not_divided(shape, verdict.parallel)
    if verdict.reason is FitReason.MORE_STAGES_THAN_LAYERS:
        return (
            f"pipeline {verdict.parallel.pipeline} is more than the model's {shape.layers} layers; "
            f"set spec.parallelism.pipeline to at most {shape.layers}"
        )
    usable = f"{accelerator.memory_gib:g} GiB accelerator has {gib(verdict.for_model_bytes)} for both"
    return (
        f"{gib(verdict.weight_bytes)} of weights and {gib(verdict.sequence_bytes)} of KV cache for one "
        f"sequence of {wanted.max_model_len} tokens do not fit: each {usable}, so "
        f"{gib(verdict.lacking_bytes)} lack on each; {_what_fits(accelerator, found)}"
    )


def heads_not_divided(shape: ModelShape, parallel: Parallel) -> str:
    """Which tensor parallelism the model's heads allow."""
    able = ", ".join(str(tensor) for tensor in range(1, 17) if divides_heads(shape, tensor))
    return (
        f"tensor {parallel.tensor} does not divide the model's {shape.attention_heads} attention heads and "
        f"{shape.kv_heads} KV heads; set spec.parallelism.tensor to one of {able}"
    )


def _what_fits(accelerator: Accelerator, found: Remedies) -> str:
    ways = []
    if found.parallel is not None:
        pipeline = f" with pipeline {found.parallel.pipeline}" if found.parallel.pipeline > 1 else ""
        ways.append(f"tensor {found.parallel.tensor}{pipeline}")
    if found.max_model_len is not None:
        ways.append(f"maxModelLen {found.max_model_len}")
    if found.fp8_cache:
        ways.append("kvCacheDtype FP8")
    if not ways:
        return (
            f"no parallelism inside one node makes it fit {accelerator.memory_gib:g} GiB accelerators; "
            "choose larger ones, or a smaller or quantised model"
        )
    return f"what would fit: {', or '.join(ways)}"
