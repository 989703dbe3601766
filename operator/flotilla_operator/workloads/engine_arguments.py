"""The command line of vLLM that a spec asks for, apart from the pod that carries it.

Only what the spec says is written out: what is left to vLLM's defaults stays theirs.
"""

from flotilla_operator.api.model_replica_set import KvCacheDtype, ModelReplicaSetSpec, Task
from flotilla_runtime import contract

KV_CACHE_DTYPES = {
    KvCacheDtype.FP8: "fp8",
    KvCacheDtype.FP8_E4M3: "fp8_e4m3",
    KvCacheDtype.FP8_E5M2: "fp8_e5m2",
}


def engine_arguments(spec: ModelReplicaSetSpec, model_path: str) -> list[str]:
    """vLLM's arguments. The user's come last, and the last one of a name wins."""
    engine = spec.engine
    arguments = ["--model", model_path, "--served-model-name", spec.model.name]
    arguments += ["--host", "::", "--port", str(contract.PORT_ENGINE)]
    if engine.max_model_len is not None:
        arguments += ["--max-model-len", str(engine.max_model_len)]
    arguments += ["--max-num-seqs", str(engine.max_num_seqs)]
    if spec.parallelism.tensor > 1:
        arguments += ["--tensor-parallel-size", str(spec.parallelism.tensor)]
    if engine.kv_cache_dtype is not KvCacheDtype.AUTO:
        arguments += ["--kv-cache-dtype", KV_CACHE_DTYPES[engine.kv_cache_dtype]]
    if spec.model.task is Task.EMBED:
        arguments += ["--runner", "pooling"]
    arguments += _switch("prefix-caching", engine.prefix_caching, spec.model.task)
    arguments += _switch("chunked-prefill", engine.chunked_prefill, spec.model.task)
    return [*arguments, *engine.extra_args]


def _switch(name: str, on: bool, task: Task) -> list[str]:
    """A switch of vLLM's; encoders refuse to have these turned on, so there only "off" is said."""
    if on:
        return [f"--enable-{name}"] if task is Task.GENERATE else []
    return [f"--no-enable-{name}"]
