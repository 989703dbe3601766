"""What a replica's memory holds, and whether the model fits it: facts that pods report, judged against the
spec.

    facts      the init containers of this revision's pods; else what the status keeps of the same source
    memory     hardware.py
    verdict    a model that does not fit is missing something that a person must mend, so no new replica is
               started for it; of those that exist and never served one is left to try, and one that ever
               served proves it wrong

The operator opens no model file. Where the user's own arguments change what is computed here, it judges
nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pydantic import ValidationError

from flotilla_operator.api.model_replica_set import KvCacheDtype, ModelReplicaSetSpec, ModelSize
from flotilla_operator.capacity import (
    Accelerator,
    ConfigError,
    FitReason,
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
from flotilla_operator.controllers.model_replica_set.demand import Demand
from flotilla_operator.controllers.model_replica_set.hardware import memory_gib_of, most_on_a_node
from flotilla_operator.controllers.model_replica_set.life import Phase
from flotilla_operator.controllers.model_replica_set.reasons import Reason
from flotilla_operator.controllers.model_replica_set.records import good_revision, has_been_ready
from flotilla_operator.controllers.model_replica_set.seen import Missing, Observed, SetSeen, Sizing
from flotilla_operator.controllers.model_replica_set.shared_prefix import why_ignored
from flotilla_operator.workloads.model_facts import reported
from flotilla_runtime import contract

UTILIZATION_ARGUMENT = "--gpu-memory-utilization"
VERDICTS = frozenset({Reason.MODEL_DOES_NOT_FIT, Reason.TENSOR_DOES_NOT_DIVIDE_HEADS})
# With any of these among spec.engine.extraArgs memory is not what the spec's own fields make it.
CHANGE_MEMORY = frozenset(
    """--config --cpu-offload-gb --data-parallel-size --decode-context-parallel-size --dtype --hf-overrides
    --kv-cache-dtype --kv-cache-memory-bytes --load-format --max-model-len --model --pipeline-parallel-size
    --quantization --tensor-parallel-size -dcp -dp -pp -q -tp""".split()  # noqa: SIM905
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """How a set's model is served; None where it is not known."""

    shape: ModelShape
    parallel: Parallel
    accelerator: Accelerator | None
    wanted: Wanted | None
    number_bytes: float | None
    ignored_prefix: str | None


def sized(observed: Observed, demand: Demand) -> Observed:
    """What was observed, with the sizes, and with what the model lacks among what is missing."""
    me = observed.me
    memory_gib = memory_gib_of(me.spec, observed.around)
    shape = _shape_known(me, demand.revision)
    if shape is None:
        return replace(
            observed, sizing=Sizing(accelerator_gib=memory_gib, ignored_prefix=why_ignored(me.spec, None))
        )
    served = _served(me.spec, shape, memory_gib)
    misfit = None
    if not _has_served(me, demand):
        misfit = _misfit(served, most_on_a_node(me.spec, observed.around))
    return replace(
        observed,
        missing=observed.missing if misfit is None else (*observed.missing, misfit),
        sizing=_sizing(served),
    )


def given_up(observed: Observed, demand: Demand) -> Mapping[str, str]:
    """The groups that go since the model does not fit, and why. At first nothing is known of a model, and all
    replicas get their pods; then those that never served give their accelerators back. The verdict rests on
    an estimate, so the first one tries on.
    """
    verdicts = [missing for missing in observed.missing if missing.reason in VERDICTS]
    if observed.me.spec.paused or not verdicts:
        return {}
    leaving = {removal.group.name for removal in demand.turnover.removals}
    trying = sorted(
        (g for g in demand.groups if g.lives and g.revision == demand.revision and g.name not in leaving),
        key=lambda group: (not group.may_have_requests, group.phase is not Phase.LOADING, group.created_at),
    )
    return {
        group.name: f"{verdicts[0].reason}: {trying[0].name} is left to try"
        for group in trying[1:]
        if not group.may_have_requests
    }


def _shape_known(me: SetSeen, revision: str) -> ModelShape | None:
    """From the pods of this revision, or from the status where it is of the same source."""
    pods = [
        pod
        for pod in me.pods
        if (pod["metadata"].get("labels") or {}).get(contract.LABEL_REVISION) == revision
    ]
    facts = reported(pods)
    if facts is not None:
        try:
            return shape_of(facts.config, facts.file_bytes, facts.stored_bytes)
        except ConfigError:
            return None
    return _shape_kept(me)


def _shape_kept(me: SetSeen) -> ModelShape | None:
    kept = ((me.manifest.get("status") or {}).get("capacity") or {}).get("model")
    try:
        size = ModelSize.model_validate(kept)
    except ValidationError:
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
    """The share of its memory that the engine is to use; None where arguments make memory another matter."""
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


def _has_served(me: SetSeen, demand: Demand) -> bool:
    """Whether a replica of this revision serves or has served."""
    if good_revision(me.manifest) == demand.revision or has_been_ready(me.manifest, demand.revision):
        return True
    started = ((me.manifest.get("status") or {}).get("capacity") or {}).get("startups") or ()
    return any(start.get("revision") == demand.revision for start in started) or any(
        group.phase is Phase.READY and group.revision == demand.revision for group in demand.groups
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


def _misfit(served: Served, per_node: int) -> Missing | None:
    """What keeps the engine from starting, in a sentence with what would fit."""
    shape, parallel = served.shape, served.parallel
    if not divides_heads(shape, parallel.tensor):
        return _missing(FitReason.TENSOR_DOES_NOT_DIVIDE_HEADS, heads_not_divided(shape, parallel))
    if served.accelerator is None or served.wanted is None:
        return None
    verdict = fit(shape, served.accelerator, served.wanted, parallel)
    if verdict.fits:
        return None
    found = remedies(shape, served.accelerator, served.wanted, parallel, per_node)
    return _missing(verdict.reason, explained(shape, served.accelerator, served.wanted, verdict, found))


def _missing(reason: FitReason, sentence: str) -> Missing:
    if reason is FitReason.TENSOR_DOES_NOT_DIVIDE_HEADS:
        field, shown = "spec.parallelism.tensor", Reason.TENSOR_DOES_NOT_DIVIDE_HEADS
    else:
        field, shown = "spec.parallelism", Reason.MODEL_DOES_NOT_FIT
    return Missing(field=field, reason=shown, message=sentence)
