"""Explains a verdict in one sentence: what is needed, what exists, what is missing, and what would fit."""

from flotilla_operator.capacity.fit import GIB, Accelerator, Fit, FitReason, Remedies, Wanted, divides_heads
from flotilla_operator.capacity.kv_cache import Parallel
from flotilla_operator.capacity.shape import ModelShape


def gib(count: float) -> str:
    """Bytes in GiB, with one decimal."""
    return f"{count / GIB:.1f} GiB"


def explained(
    shape: ModelShape, accelerator: Accelerator, wanted: Wanted, verdict: Fit, found: Remedies
) -> str:
    """Why a model does not fit, and what to change in the set's spec."""
    if verdict.reason is FitReason.TENSOR_DOES_NOT_DIVIDE_HEADS:
        return heads_not_divided(shape, verdict.parallel)
    if verdict.reason is FitReason.MORE_STAGES_THAN_LAYERS:
        return (
            f"spec.parallelism.pipeline is {verdict.parallel.pipeline}, but the model has only "
            f"{shape.layers} layers; set it to at most {shape.layers}"
        )
    usable = f"an accelerator of {accelerator.memory_gib:g} GiB has {gib(verdict.for_model_bytes)} for both"
    return (
        f"the model does not fit: each accelerator needs {gib(verdict.weight_bytes)} for weights and "
        f"{gib(verdict.sequence_bytes)} for the KV cache of one sequence of {wanted.max_model_len} tokens; "
        f"{usable}, which is {gib(verdict.lacking_bytes)} too little; {_what_fits(accelerator, found)}"
    )


def heads_not_divided(shape: ModelShape, parallel: Parallel) -> str:
    """Say which values of tensor parallelism the model's heads allow."""
    able = ", ".join(str(tensor) for tensor in range(1, 17) if divides_heads(shape, tensor))
    return (
        f"spec.parallelism.tensor is {parallel.tensor}, but the model's {shape.attention_heads} attention "
        f"heads and {shape.kv_heads} KV heads cannot be spread evenly over {parallel.tensor} accelerators; "
        f"set it to one of {able}"
    )


def _what_fits(accelerator: Accelerator, found: Remedies) -> str:
    ways = []
    if found.parallel is not None:
        pipeline = found.parallel.pipeline
        stages = f" and spec.parallelism.pipeline {pipeline}" if pipeline > 1 else ""
        ways.append(f"spec.parallelism.tensor {found.parallel.tensor}{stages}")
    if found.max_model_len is not None:
        ways.append(f"spec.engine.maxModelLen {found.max_model_len}")
    if found.fp8_cache:
        ways.append("spec.engine.kvCacheDtype FP8")
    if not ways:
        return (
            f"no spec.parallelism makes it fit {accelerator.memory_gib:g} GiB accelerators; use accelerators "
            "with more memory, or a smaller or quantised model"
        )
    return f"it would fit with {', or with '.join(ways)}"
