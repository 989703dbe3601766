"""Makes the command line of vLLM from a spec.

Settings that the spec leaves at vLLM's defaults are not written. Every setting has a row in docs/engine.md,
which also says how an engine on CPUs treats it.
"""

import json
from collections.abc import Sequence

from flotilla_operator.api.model_replica_set import (
    Adapter,
    KvCacheDtype,
    ModelReplicaSetSpec,
    Speculative,
    SpeculativeMethod,
    Task,
)
from flotilla_operator.workloads.model_source import adapter_of, guesser_of
from flotilla_operator.workloads.stages import Stage
from flotilla_runtime import contract

KV_CACHE_DTYPES = {
    KvCacheDtype.FP8: "fp8",
    KvCacheDtype.FP8_E4M3: "fp8_e4m3",
    KvCacheDtype.FP8_E5M2: "fp8_e5m2",
}
SPECULATIVE_METHODS = {
    SpeculativeMethod.N_GRAM: "ngram",
    SpeculativeMethod.DRAFT: "draft_model",
    SpeculativeMethod.EAGLE: "eagle",
}
EAGLE_3 = "eagle3"
ADAPTER_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # the values that vLLM accepts for --max-lora-rank
ADAPTERS_AT_ONCE = 8  # in one batch; each takes memory beside the weights, even when no request uses it
BATCHED_TOKENS = 2048  # vLLM's smallest default for the tokens of one batch, for an engine behind an API


def engine_arguments(spec: ModelReplicaSetSpec, model_path: str, stage: Stage | None = None) -> list[str]:
    """The arguments of `vllm serve`, with the model first; for one stage of a group with several.

    When an argument is given twice, the last one wins, so the user's extra arguments come last.
    """
    engine = spec.engine
    arguments = [model_path, "--served-model-name", spec.model.name]
    arguments += ["--host", "::", "--port", str(contract.PORT_ENGINE)]
    if engine.max_model_len is not None:
        arguments += ["--max-model-len", str(engine.max_model_len)]
    arguments += ["--max-num-seqs", str(engine.max_num_seqs)]
    if spec.parallelism.tensor > 1:
        arguments += ["--tensor-parallel-size", str(spec.parallelism.tensor)]
    if stage is not None and stage.count > 1:
        arguments += _one_of_several(stage)
    if engine.kv_cache_dtype is not KvCacheDtype.AUTO:
        arguments += ["--kv-cache-dtype", KV_CACHE_DTYPES[engine.kv_cache_dtype]]
    if spec.model.task is Task.EMBED:
        arguments += ["--runner", "pooling"]
    arguments += _switch("prefix-caching", engine.prefix_caching, spec.model.task)
    arguments += _switch("chunked-prefill", engine.chunked_prefill, spec.model.task)
    if engine.speculative is not None:
        arguments += ["--speculative-config", _speculative(spec, engine.speculative)]
    if engine.kv_offload_gib:
        arguments += ["--kv-offloading-size", f"{engine.kv_offload_gib:.12g}"]
    if engine.adapters:
        arguments += _adapters(engine.adapters)
    arguments += _room_for_a_batch(spec)
    return [*arguments, *engine.extra_args]


def _one_of_several(stage: Stage) -> list[str]:
    """The arguments for vLLM's multi-node mode, in which each stage is a node and only the leader serves."""
    arguments = ["--pipeline-parallel-size", str(stage.count), "--distributed-executor-backend", "mp"]
    arguments += ["--nnodes", str(stage.count), "--node-rank", str(stage.number)]
    arguments += ["--master-addr", stage.leader_address, "--master-port", str(contract.PORT_ENGINE_RANKS)]
    return arguments if stage.leads else [*arguments, "--headless"]


def _switch(name: str, on: bool, task: Task) -> list[str]:
    """A switch of vLLM. Embedding models refuse to start with these turned on, so only "off" is written."""
    if on:
        return [f"--enable-{name}"] if task is Task.GENERATE else []
    return [f"--no-enable-{name}"]


def _speculative(spec: ModelReplicaSetSpec, speculative: Speculative) -> str:
    """The JSON of --speculative-config. For vLLM, EAGLE-3 is a separate method, recognised by its name."""
    method = SPECULATIVE_METHODS[speculative.method]
    guesser = guesser_of(spec)
    if speculative.method is SpeculativeMethod.EAGLE and EAGLE_3 in (speculative.model or "").lower():
        method = EAGLE_3
    config = {"method": method, "num_speculative_tokens": speculative.num_tokens}
    return json.dumps(config if guesser is None else {**config, "model": guesser.path})


def _adapters(adapters: Sequence[Adapter]) -> list[str]:
    """The arguments for adapters. All stay in host memory, so that no request waits for a read from disk."""
    highest = max(adapter.rank for adapter in adapters)
    return [
        "--enable-lora",
        *("--max-lora-rank", str(next(rank for rank in ADAPTER_RANKS if rank >= highest))),
        *("--max-loras", str(min(len(adapters), ADAPTERS_AT_ONCE))),
        *("--max-cpu-loras", str(len(adapters))),
        "--lora-modules",
        *(json.dumps({"name": adapter.name, "path": adapter_of(adapter).path}) for adapter in adapters),
    ]


def _room_for_a_batch(spec: ModelReplicaSetSpec) -> list[str]:
    """--max-num-batched-tokens, where vLLM's default can be less than vLLM itself requires.

    It requires one token for each sequence, with adapters and speculative decoding also one for each
    speculative token, and without chunked prefill a whole prompt.
    """
    engine = spec.engine
    each = 1 + (engine.speculative.num_tokens if engine.speculative is not None and engine.adapters else 0)
    needed = engine.max_num_seqs * each
    if needed <= BATCHED_TOKENS:
        return []
    prompt = 0 if engine.chunked_prefill else engine.max_model_len or 0
    return ["--max-num-batched-tokens", str(max(needed, prompt))]
