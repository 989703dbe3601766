"""Size of a replica's memory, and the verdict on the model: facts reported by pods, compared with the spec.

    facts      from the init containers of this revision's pods, or what the status keeps of the same source
    memory     from hardware.py
    verdict    a model that does not fit counts as something missing that a person must correct. No new
               replica is started. Of the existing replicas that never served, one goes on trying. A
               replica that served at any time proves the verdict wrong.

The operator opens no model file. Where the user's own arguments change the memory that is computed here, it
gives no verdict.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from flotilla_operator.api.model_replica_set import KvCacheDtype, ModelReplicaSetSpec
from flotilla_operator.capacity import (
    Accelerator,
    ConfigError,
    ModelShape,
    Parallel,
    Wanted,
    divides_heads,
    fit,
    kv_bytes_per_token,
    remedies,
    shape_of,
)
from flotilla_operator.capacity.explain import explained, heads_not_divided
from flotilla_operator.capacity.fit import UTILIZATION
from flotilla_operator.capacity.kv_cache import FP8_BYTES
from flotilla_operator.replicas.group import Phase, ReplicaGroup
from flotilla_operator.replicas.hardware import memory_gib_of, most_on_a_node
from flotilla_operator.replicas.intent import IntendedSet
from flotilla_operator.replicas.shared_prefix import why_ignored
from flotilla_operator.replicas.surroundings import Surroundings
from flotilla_runtime import contract

UTILIZATION_ARGUMENT = "--gpu-memory-utilization"
# With any of these in spec.engine.extraArgs, memory no longer follows from the fields of the spec.
CHANGE_MEMORY = frozenset(
    """--config --cpu-offload-gb --data-parallel-size --decode-context-parallel-size --dtype --hf-overrides
    --kv-cache-dtype --kv-cache-memory-bytes --load-format --max-model-len --model --pipeline-parallel-size
    --quantization --tensor-parallel-size -dcp -dp -pp -q -tp""".split()  # noqa: SIM905
)


class MisfitReason(StrEnum):
    """Reason that a person must mend."""

    MODEL_DOES_NOT_FIT = "ModelDoesNotFit"
    TENSOR_DOES_NOT_DIVIDE_HEADS = "TensorDoesNotDivideHeads"


@dataclass(frozen=True, slots=True, kw_only=True)
class Misfit:
    """Why an engine cannot start."""

    reason: MisfitReason
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizing:
    """Known figures of the memory of one replica; a figure that is not known is None.

    `ignored_prefix` says why the prefix that callers share is ignored, where it is. `misfit` is the verdict
    that the model does not fit.
    """

    shape: ModelShape | None = None
    kv_bytes_per_token: int | None = None
    accelerator_gib: float | None = None
    sequence_tokens: int | None = None
    sequences: float | None = None
    sequences_sharing_prefix: float | None = None
    ignored_prefix: str | None = None
    misfit: Misfit | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """How a set's model is served; a value that is not known is None."""

    shape: ModelShape
    parallel: Parallel
    accelerator: Accelerator | None
    wanted: Wanted | None
    number_bytes: float | None
    ignored_prefix: str | None


def sized(
    me: IntendedSet,
    groups: Sequence[ReplicaGroup],
    reported: contract.ModelFacts | None,
    around: Surroundings,
) -> Sizing:
    """Compute the figures of a set's memory; `reported` are the facts of the revision in force."""
    form = me.intent.form
    memory_gib = memory_gib_of(form, around)
    shape = _shape_known(me, reported)
    if shape is None:
        return Sizing(accelerator_gib=memory_gib, ignored_prefix=why_ignored(me.spec, None))
    served = _served(me.spec, shape, memory_gib)
    misfit = None if _has_served(me, groups) else _misfit(served, most_on_a_node(form, around))
    return replace(_sizing(served), misfit=misfit)


def _shape_known(me: IntendedSet, reported: contract.ModelFacts | None) -> ModelShape | None:
    """The model's shape, as pods report it, or from the status if that has the same source."""
    if reported is None:
        return _shape_kept(me)
    try:
        return shape_of(reported.config, reported.file_bytes, reported.stored_bytes)
    except ConfigError:
        return None


def _shape_kept(me: IntendedSet) -> ModelShape | None:
    size = me.memory.model
    if size is None:
        return None
    if (size.source, size.revision) != (me.spec.model.source, me.spec.model.revision):
        return None
    return ModelShape(**size.model_dump(exclude={"source", "revision"}))


def _served(spec: ModelReplicaSetSpec, shape: ModelShape, memory_gib: float | None) -> Served:
    number_bytes = None if spec.engine.kv_cache_dtype is KvCacheDtype.AUTO else FP8_BYTES
    share = _utilization(spec.engine.extra_args)
    accelerator = None
    if memory_gib is not None and share is not None:
        accelerator = Accelerator(memory_gib=memory_gib, utilization=share)
    length = None if share is None else spec.engine.max_model_len or shape.max_model_len
    ignored_prefix = why_ignored(spec, length)
    wanted = None
    if length:
        shared = spec.traffic.shared_prefix_tokens if ignored_prefix is None else None
        wanted = Wanted(max_model_len=length, kv_number_bytes=number_bytes, shared_prefix_tokens=shared)
    return Served(
        shape=shape,
        parallel=Parallel(tensor=spec.parallelism.tensor, pipeline=spec.parallelism.pipeline or 1),
        accelerator=accelerator,
        wanted=wanted,
        number_bytes=number_bytes,
        ignored_prefix=ignored_prefix,
    )


def _utilization(arguments: Sequence[str]) -> float | None:
    """The share of memory that the engine may use; None when arguments change how memory is computed."""
    share = UTILIZATION
    words = iter([word for argument in arguments for word in argument.split("=", 1)])
    for word in words:
        name = word.replace("_", "-") if word.startswith("-") else word
        if name in CHANGE_MEMORY:
            return None
        if name == UTILIZATION_ARGUMENT:
            try:
                share = float(next(words, ""))
            except ValueError:
                return None
    return share


def _has_served(me: IntendedSet, groups: Sequence[ReplicaGroup]) -> bool:
    """Whether a replica of this revision serves or has served."""
    if me.memory.rollout.good == me.revision or me.memory.has_been_ready(me.revision):
        return True
    return any(start.revision == me.revision for start in me.memory.startups) or any(
        group.phase is Phase.READY and group.revision == me.revision for group in groups
    )


def _sizing(served: Served) -> Sizing:
    verdict = None
    if served.accelerator is not None and served.wanted is not None:
        verdict = fit(served.shape, served.accelerator, served.wanted, served.parallel)
    fitting = verdict if verdict is not None and verdict.fits else None
    return Sizing(
        shape=served.shape,
        kv_bytes_per_token=kv_bytes_per_token(served.shape, served.number_bytes),
        accelerator_gib=served.accelerator.memory_gib if served.accelerator else None,
        sequence_tokens=served.wanted.max_model_len if served.wanted else None,
        sequences=fitting.sequences if fitting else None,
        sequences_sharing_prefix=fitting.sequences_sharing_prefix if fitting else None,
        ignored_prefix=served.ignored_prefix,
    )


def _misfit(served: Served, per_node: int) -> Misfit | None:
    """Return the reason why the engine cannot start, as a sentence that says what would fit."""
    shape, parallel = served.shape, served.parallel
    if not divides_heads(shape, parallel.tensor):
        return Misfit(
            reason=MisfitReason.TENSOR_DOES_NOT_DIVIDE_HEADS,
            message=heads_not_divided(shape, parallel),
        )
    if served.accelerator is None or served.wanted is None:
        return None
    verdict = fit(shape, served.accelerator, served.wanted, parallel)
    if verdict.fits:
        return None
    found = remedies(shape, served.accelerator, served.wanted, parallel, per_node)
    message = explained(shape, served.accelerator, served.wanted, verdict, found)
    return Misfit(reason=MisfitReason.MODEL_DOES_NOT_FIT, message=message)
