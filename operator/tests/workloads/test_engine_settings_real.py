"""Every setting of `spec.engine` on a real engine: it starts, it answers, and its own figures show the
setting; or it refuses, in the words that docs/engine.md quotes.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from engine.environment import EngineError, ensure
from engine.models import EMBEDDER, GENERATOR, ensure_models
from engine.serve import RunningEngine, running
from flotilla_operator.workloads.engine_arguments import engine_arguments
from flotilla_operator.workloads.model_source import model_of
from local_cluster.processes import free_port
from tests.builders.model_replica_set import spec_of
from tests.support.engine_files import EngineFiles
from tests.workloads.engine_settings import ADAPTER, EMBEDDER_ADAPTER, SETTINGS, Setting

pytestmark = [pytest.mark.services, pytest.mark.timeout(600)]

GENERATES = {"model": {"name": "m", "source": "pvc://m/llama"}}
COUNTING = (
    "one, two, three, four, " * 40
).strip()  # more than two blocks of the cache, less than maxModelLen
BY_NAME = {setting.name: setting for setting in SETTINGS}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> EngineFiles:
    models = ensure_models()
    root = tmp_path_factory.mktemp("files")
    return EngineFiles.made(root, models / GENERATOR.name, models / EMBEDDER.name)


@contextmanager
def serving(setting: Setting, files: EngineFiles, log: Path) -> Iterator[RunningEngine]:
    engine = {"maxModelLen": 512, "maxNumSeqs": 2, **setting.engine}
    spec = spec_of(**{**GENERATES, **setting.rest, "engine": engine})
    ours = files.arguments(engine_arguments(spec, model_of(spec).path))
    with running(ensure(), ours, free_port(), log) as engine_process:
        yield engine_process


def answer(engine: RunningEngine, model: str = "m", prompt: str = COUNTING) -> str:
    body = {"model": model, "prompt": prompt, "max_tokens": 16, "temperature": 0}
    request = Request(
        f"{engine.url}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urlopen(request, timeout=120) as response:
        text: str = json.load(response)["choices"][0]["text"]
    return text


def embedding(engine: RunningEngine, model: str) -> list[float]:
    body = {"model": model, "input": "a contract of sale"}
    request = Request(
        f"{engine.url}/v1/embeddings", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urlopen(request, timeout=120) as response:
        numbers: list[float] = json.load(response)["data"][0]["embedding"]
    return numbers


def total(engine: RunningEngine, metric: str) -> float:
    found = re.findall(rf"^{metric}(?:{{.*}})? (\S+)$", metrics(engine), re.MULTILINE)
    return sum(map(float, found))


def metrics(engine: RunningEngine) -> str:
    with urlopen(f"{engine.url}/metrics", timeout=30) as response:
        text: str = response.read().decode()
    return text


def cache_config(engine: RunningEngine, label: str) -> str:
    (value,) = set(
        re.findall(rf'^vllm:cache_config_info{{.*\b{label}="([^"]*)"', metrics(engine), re.MULTILINE)
    )
    return str(value)


@pytest.mark.parametrize(("name", "hits"), [("prefixCaching: true", True), ("prefixCaching: false", False)])
def test_a_prompt_is_found_again(name: str, hits: bool, files: EngineFiles, tmp_path: Path) -> None:
    with serving(BY_NAME[name], files, tmp_path / "log") as engine:
        assert answer(engine) == answer(engine)
        assert (total(engine, "vllm:prefix_cache_hits_total") > 0) is hits


def test_prompts_are_not_split(files: EngineFiles, tmp_path: Path) -> None:
    """That they are split without the setting is vLLM's own log's word, too."""
    with serving(BY_NAME["chunkedPrefill: false"], files, tmp_path / "log") as engine:
        assert answer(engine).startswith(" one, two, three, four")
        assert "Chunked prefill is enabled" not in engine.log.read_text(errors="replace")


@pytest.mark.parametrize("name", ["speculative: NGram", "speculative: Draft", "speculative: Eagle"])
def test_guesses_are_made_and_change_nothing(name: str, files: EngineFiles, tmp_path: Path) -> None:
    with serving(BY_NAME[name], files, tmp_path / "log") as engine:
        assert answer(engine).startswith(" one, two, three, four")
        assert total(engine, "vllm:spec_decode_num_draft_tokens_total") > 0


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("kvCacheDtype: FP8", "fp8"),
        ("kvCacheDtype: FP8E4M3", "fp8_e4m3"),
        ("kvCacheDtype: FP8E5M2", "fp8_e5m2"),
    ],
)
def test_the_cache_has_the_type(name: str, dtype: str, files: EngineFiles, tmp_path: Path) -> None:
    with serving(BY_NAME[name], files, tmp_path / "log") as engine:
        assert answer(engine)
        assert cache_config(engine, "cache_dtype") == dtype


def test_an_adapter_is_a_model_of_its_own(files: EngineFiles, tmp_path: Path) -> None:
    with serving(BY_NAME["adapters"], files, tmp_path / "log") as engine:
        with urlopen(f"{engine.url}/v1/models", timeout=30) as response:
            listed = {model["id"]: model["parent"] for model in json.load(response)["data"]}
        assert listed == {"m": None, ADAPTER["name"]: "m"}
        assert answer(engine, ADAPTER["name"]) != answer(engine)


def test_an_adapter_embeds_in_its_own_way(files: EngineFiles, tmp_path: Path) -> None:
    with serving(BY_NAME["adapters, task: Embed"], files, tmp_path / "log") as engine:
        with_adapter, without = embedding(engine, EMBEDDER_ADAPTER["name"]), embedding(engine, "m")
        assert len(with_adapter) == len(without)
        assert max(abs(a - b) for a, b in zip(with_adapter, without, strict=True)) > 0.01


@pytest.mark.parametrize(
    "setting", [setting for setting in SETTINGS if setting.refusal], ids=lambda setting: setting.name
)
def test_what_is_refused_is_refused_in_these_words(
    setting: Setting, files: EngineFiles, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with pytest.raises(EngineError), serving(setting, files, log):
        raise AssertionError(f"{setting.name} runs: say so in docs/engine.md")
    assert (setting.refusal or "") in log.read_text(errors="replace")


def test_all_that_runs_together(files: EngineFiles, tmp_path: Path) -> None:
    engine: dict[str, Any] = {
        **BY_NAME["speculative: NGram"].engine,
        **BY_NAME["kvCacheDtype: FP8"].engine,
        **BY_NAME["adapters"].engine,
    }
    with serving(Setting(name="together", engine=engine), files, tmp_path / "log") as running_engine:
        assert answer(running_engine)
        assert answer(running_engine, ADAPTER["name"])
        assert total(running_engine, "vllm:spec_decode_num_draft_tokens_total") > 0
