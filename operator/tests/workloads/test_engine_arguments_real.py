"""Every command line we render is read by the pinned vLLM's own parser, and vLLM can make its settings of it.

Values that the parser read are held against the spec, so an argument that vLLM takes for something else is
noticed. What a running engine makes of the settings: test_engine_settings_real.py.
"""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.environment import ensure
from flotilla_operator.api.model_replica_set import ModelReplicaSetSpec
from flotilla_operator.capacity.fit import UTILIZATION
from flotilla_operator.workloads.engine_arguments import engine_arguments
from flotilla_operator.workloads.model_source import model_of
from flotilla_operator.workloads.stages import Stage
from flotilla_runtime import contract
from tests.builders.model_replica_set import spec_of
from tests.support.engine_files import EngineFiles
from tests.workloads.engine_settings import SETTINGS, Setting

# One process of pytest-xdist for all of them: importing vLLM takes it seconds.
pytestmark = [pytest.mark.services, pytest.mark.timeout(300), pytest.mark.xdist_group("vllm arguments")]

WORKER = Path(__file__).parents[1] / "support" / "vllm_arguments.py"
MODEL = {"name": "m", "source": "pvc://m/llama"}
DTYPES = {"Auto": "auto", "FP8": "fp8", "FP8E4M3": "fp8_e4m3", "FP8E5M2": "fp8_e5m2"}
METHODS = {"NGram": "ngram", "Draft": "draft_model", "Eagle": "eagle"}
Ask = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def ask(engine_files: EngineFiles) -> Iterator[Ask]:
    """Asks vLLM about the command line of a spec; its answer must have no problem."""
    engine = ensure()
    variables = {"PYTHONPATH": str(engine.packages), "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    process = subprocess.Popen(
        [str(engine.python), str(WORKER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **variables},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    asked, answered = process.stdin, process.stdout

    def about(spec: ModelReplicaSetSpec, stage: Stage | None = None) -> dict[str, Any]:
        arguments = engine_files.arguments(engine_arguments(spec, model_of(spec).path, stage))
        asked.write(json.dumps(arguments) + "\n")
        asked.flush()
        answer = json.loads(answered.readline())
        assert answer["problem"] is None, f"{answer['problem']}\n{arguments}"
        read: dict[str, Any] = answer["read"]
        return {key: _as_in_the_pod(value, engine_files.root) for key, value in read.items()}

    yield about
    process.kill()
    process.wait(60)


def _as_in_the_pod(value: Any, root: Path) -> Any:
    if isinstance(value, str):
        return value.removeprefix(str(root))
    if isinstance(value, dict):
        return {key: _as_in_the_pod(inner, root) for key, inner in value.items()}
    return value


def expected(spec: ModelReplicaSetSpec) -> dict[str, Any]:
    """Settings that vLLM must have read, said without the code that renders them."""
    engine, embeds = spec.engine, spec.model.task == "Embed"
    values: dict[str, Any] = {
        "model": "/claims/m/minilm" if embeds else "/claims/m/llama",
        "served_model_name": ["m"],
        "runner": "pooling" if embeds else "auto",
        "max_model_len": int(engine.extra_args[-1]) if engine.extra_args else engine.max_model_len,
        "max_num_seqs": engine.max_num_seqs,
        "tensor_parallel_size": spec.parallelism.tensor,
        "kv_cache_dtype": DTYPES[engine.kv_cache_dtype],
        "kv_offloading_size": engine.kv_offload_gib or None,
        "enable_lora": bool(engine.adapters) or None,
        "lora_modules": {a.name: a.source.replace("pvc://", "/claims/") for a in engine.adapters},
        "speculative_config": None,
    }
    for name, on in (("prefix_caching", engine.prefix_caching), ("chunked_prefill", engine.chunked_prefill)):
        values[f"enable_{name}"] = None if on and embeds else on
    if engine.speculative is not None:
        speculative = engine.speculative
        third = "eagle3" in (speculative.model or "")
        config = {
            "method": "eagle3" if third else METHODS[speculative.method],
            "num_speculative_tokens": speculative.num_tokens,
        }
        model = {"model": (speculative.model or "").replace("pvc://", "/claims/")}
        values["speculative_config"] = config | (model if speculative.model else {})
    return values


def check(ask: Ask, spec: ModelReplicaSetSpec) -> dict[str, Any]:
    read = ask(spec)
    assert {name: read[name] for name in expected(spec)} == expected(spec)
    return read


def together(*chosen: Setting) -> ModelReplicaSetSpec:
    rest: dict[str, Any] = {"model": MODEL}
    engine: dict[str, Any] = {"maxModelLen": 256, "maxNumSeqs": 4}
    for setting in chosen:
        rest, engine = {**rest, **setting.rest}, {**engine, **setting.engine}
    return spec_of(engine=engine, **rest)


@pytest.mark.holds("engine.md", "vLLM's own parser reads every command line that we render")
@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_each_setting_alone(ask: Ask, setting: Setting) -> None:
    check(ask, together(setting))


@pytest.mark.holds("engine.md", "vLLM's own parser reads every command line that we render")
def test_every_two_settings_of_a_generator(ask: Ask) -> None:
    generators = [setting for setting in SETTINGS if "model" not in setting.rest]
    for pair in combinations(generators, 2):
        check(ask, together(*pair))


def test_all_that_go_together(ask: Ask) -> None:
    names = {
        "prefixCaching: true",
        "speculative.method: Draft",
        "kvOffloadGiB",
        "kvCacheDtype: FP8",
        "adapters",
    }
    read = check(ask, together(*(setting for setting in SETTINGS if setting.name in names)))
    assert (read["max_loras"], read["max_cpu_loras"], read["max_lora_rank"]) == (1, 1, 8)


def test_many_adapters_stay_in_memory_and_few_share_a_batch(ask: Ask) -> None:
    adapters = [{"name": f"a{number}", "source": "pvc://m/sql", "rank": number} for number in range(1, 65)]
    read = check(ask, spec_of(model=MODEL, engine={"adapters": adapters, "maxModelLen": 256}))
    assert (read["max_loras"], read["max_cpu_loras"], read["max_lora_rank"]) == (8, 64, 64)


@pytest.mark.holds(
    "groups.md",
    "A replica with pipeline stages is one pod for each stage, joined by vLLM's own mode for several nodes",
)
@pytest.mark.parametrize("number", [0, 1])
def test_each_stage_of_a_group_joins_the_others(ask: Ask, number: int) -> None:
    stage = Stage(group="llama-abcde", number=number, count=2, service="llama-engine", namespace="default")
    read = ask(spec_of(model=MODEL, parallelism={"tensor": 3, "pipeline": 2}), stage)
    assert (read["tensor_parallel_size"], read["pipeline_parallel_size"], read["nnodes"]) == (3, 2, 2)
    assert (read["node_rank"], read["headless"]) == (number, number > 0)
    assert read["distributed_executor_backend"] == "mp"
    assert read["master_addr"] == "llama-abcde.llama-engine.default.svc"
    assert read["master_port"] == contract.PORT_ENGINE_RANKS


def test_names_of_folders_may_hold_what_separates_arguments(ask: Ask) -> None:
    adapters = [{"name": "sql", "source": "pvc://m/a=b, c"}]
    read = ask(spec_of(model=MODEL, engine={"adapters": adapters}))
    assert read["lora_modules"] == {"sql": "/claims/m/a=b, c"}


@pytest.mark.holds(
    "capacity.md", "0.92 of the memory is used, or what `--gpu-memory-utilization` says; it is vLLM's default"
)
def test_the_share_of_memory_is_the_engines_default(ask: Ask) -> None:
    """Value that the capacity's arithmetic goes by, since no argument of ours says it."""
    assert ask(spec_of(model=MODEL))["gpu_memory_utilization"] == UTILIZATION


guessing = st.one_of(
    st.fixed_dictionaries({"method": st.just("NGram")}),
    st.fixed_dictionaries({"method": st.just("Draft"), "model": st.just("pvc://m/small")}),
    st.fixed_dictionaries(
        {"method": st.just("Eagle"), "model": st.sampled_from(["pvc://m/eagle", "pvc://m/eagle3"])}
    ),
).flatmap(lambda chosen: st.integers(1, 16).map(lambda tokens: {**chosen, "numTokens": tokens}))
adapting = st.lists(
    st.fixed_dictionaries({"source": st.just("pvc://m/sql"), "rank": st.integers(1, 512)}), max_size=12
).map(lambda some: [{**adapter, "name": f"a{number}"} for number, adapter in enumerate(some)])
engines = st.fixed_dictionaries(
    {
        "maxModelLen": st.integers(17, 8192),  # of the model of these tests, which is shorter than others
        "maxNumSeqs": st.integers(1, 4096),
        "prefixCaching": st.booleans(),
        "chunkedPrefill": st.booleans(),
        "kvCacheDtype": st.sampled_from(sorted(DTYPES)),
    },
    optional={
        "kvOffloadGiB": st.floats(0.01, 100_000).map(lambda size: round(size, 2)),
        "speculative": guessing,
        "adapters": adapting,
    },
)


@pytest.mark.holds("engine.md", "vLLM's own parser reads every command line that we render")
@pytest.mark.holds(
    "engine.md", "`--max-num-batched-tokens` is rendered where vLLM's own batch would be too small"
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(engine=engines)
def test_whatever_the_api_takes_vllm_takes(ask: Ask, engine: dict[str, Any]) -> None:
    check(ask, spec_of(model=MODEL, engine=engine, accelerator={"resource": "nvidia.com/gpu"}))
