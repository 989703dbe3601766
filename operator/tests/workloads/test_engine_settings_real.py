"""Every setting of `spec.engine` on a real engine: it starts, it answers, and its own figures show the
setting; or it refuses, in the words that docs/engine.md quotes.
"""

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from engine.environment import EngineError, ensure
from engine.models import EMBEDDER, GENERATOR, ensure_models
from engine.serve import RunningEngine, running
from flotilla_operator.workloads.engine_arguments import engine_arguments
from flotilla_operator.workloads.engine_environment import merged_environment
from flotilla_operator.workloads.model_source import model_of
from local_cluster.processes import free_port
from tests.builders.model_replica_set import spec_of
from tests.support.engine_files import EngineFiles
from tests.support.waiting import eventually
from tests.workloads.engine_settings import ADAPTER, EMBEDDER_ADAPTER, SETTINGS, Setting

pytestmark = [pytest.mark.services, pytest.mark.timeout(600)]

GENERATES = {"model": {"name": "m", "source": "pvc://m/llama"}}
COUNTING = (
    "one, two, three, four, " * 40
).strip()  # more than two blocks of the cache, less than maxModelLen
WORD = 1000  # some token of the vocabulary
BATCH_TOKENS = 512  # of one step of the engine; as long as the longest sequence
BY_NAME = {setting.name: setting for setting in SETTINGS}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> EngineFiles:
    models = ensure_models()
    root = tmp_path_factory.mktemp("files")
    return EngineFiles.made(root, models / GENERATOR.name, models / EMBEDDER.name)


@contextmanager
def serving(setting: Setting, files: EngineFiles, log: Path, **more: Any) -> Iterator[RunningEngine]:
    engine = {"maxModelLen": 512, "maxNumSeqs": 2, **setting.engine, **more}
    spec = spec_of(**{**GENERATES, **setting.rest, "engine": engine})
    ours = files.arguments(engine_arguments(spec, model_of(spec).path))
    with pytest.MonkeyPatch.context() as patch:
        for variable in merged_environment([], spec):
            patch.setenv(variable["name"], variable["value"])
        with running(ensure(), ours, free_port(), log) as engine_process:
            yield engine_process


def answer(
    engine: RunningEngine, model: str = "m", prompt: str | list[int] = COUNTING, tokens: int = 16
) -> str:
    """So many tokens, whether the model would end before or not."""
    body = {"model": model, "prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
    request = Request(
        f"{engine.url}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urlopen(request, timeout=120) as response:
        text: str = json.load(response)["choices"][0]["text"]
    return text


def models(engine: RunningEngine) -> dict[str, dict[str, Any]]:
    """What the engine lists, by name."""
    with urlopen(f"{engine.url}/v1/models", timeout=30) as response:
        return {model["id"]: model for model in json.load(response)["data"]}


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


def guessed_at_a_time(engine: RunningEngine) -> int:
    counted = r'^vllm:spec_decode_num_accepted_tokens_per_pos_total{.*\bposition="(\d+)"'
    return len(set(re.findall(counted, metrics(engine), re.MULTILINE)))


@pytest.mark.parametrize(("name", "hits"), [("prefixCaching: true", True), ("prefixCaching: false", False)])
def test_a_prompt_is_found_again(name: str, hits: bool, files: EngineFiles, tmp_path: Path) -> None:
    with serving(BY_NAME[name], files, tmp_path / "log") as engine:
        assert answer(engine) == answer(engine)
        assert (total(engine, "vllm:prefix_cache_hits_total") > 0) is hits


@pytest.mark.parametrize(("name", "tokens"), [("maxModelLen", 128), ("extraArgs", 200)])
def test_longer_sequences_are_refused(name: str, tokens: int, files: EngineFiles, tmp_path: Path) -> None:
    with serving(BY_NAME[name], files, tmp_path / "log") as engine:
        assert models(engine)["m"]["max_model_len"] == tokens
        answer(engine, prompt=[WORD] * (tokens - 1), tokens=1)
        with pytest.raises(HTTPError, match="400"):
            answer(engine, prompt=[WORD] * tokens, tokens=1)


def test_so_many_sequences_are_worked_on_at_once(files: EngineFiles, tmp_path: Path) -> None:
    with (
        serving(BY_NAME["maxNumSeqs"], files, tmp_path / "log") as engine,
        ThreadPoolExecutor(4) as callers,
    ):
        answers = [callers.submit(answer, engine, tokens=128) for _ in range(4)]
        at_once = []
        while not all(one.done() for one in answers):
            at_once.append(total(engine, "vllm:num_requests_running"))
        assert all(one.result() for one in answers)
        assert max(at_once) == 2


@pytest.mark.parametrize(
    ("name", "split"), [("chunkedPrefill: true", True), ("chunkedPrefill: false", False)]
)
def test_a_prompt_is_split_where_a_batch_has_no_room_for_the_whole(
    name: str, split: bool, files: EngineFiles, tmp_path: Path
) -> None:
    """Two answers being written leave a batch one token short of the prompt: in parts it overtakes them, in
    one piece it waits until one of them has ended.
    """
    batches = ["--max-num-batched-tokens", str(BATCH_TOKENS)]
    with (
        serving(BY_NAME[name], files, tmp_path / "log", maxNumSeqs=3, extraArgs=batches) as engine,
        ThreadPoolExecutor(3) as callers,
    ):
        others = [callers.submit(answer, engine, prompt="one, two", tokens=300) for _ in range(2)]
        eventually(lambda: total(engine, "vllm:num_requests_running") == len(others))
        long = callers.submit(answer, engine, prompt=[WORD] * (BATCH_TOKENS - 1), tokens=1)
        assert (next(as_completed([*others, long])) is long) is split
        assert long.exception() is None


@pytest.mark.parametrize(
    ("name", "tokens", "right"),
    [
        ("speculative.method: NGram", 4, True),
        ("speculative.method: Draft", 3, True),
        ("speculative.method: Eagle", 4, False),
        ("speculative.method: Eagle, eagle3 in the name", 4, False),
        ("speculative.numTokens", 2, True),
    ],
)
def test_guesses_are_made_and_change_nothing(
    name: str, tokens: int, right: bool, files: EngineFiles, tmp_path: Path
) -> None:
    """Most are right of who can know: the prompt that counts and a draft that is the model itself."""
    with serving(BY_NAME[name], files, tmp_path / "log") as engine:
        assert answer(engine).startswith(" one, two, three, four")
        made, taken = (
            total(engine, f"vllm:spec_decode_num_{of}_tokens_total") for of in ("draft", "accepted")
        )
        assert made > 0
        assert (taken > made / 2) is right
        assert guessed_at_a_time(engine) == tokens


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("kvCacheDtype: Auto", "auto"),
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
        listed = models(engine)
        assert {name: model["parent"] for name, model in listed.items()} == {"m": None, ADAPTER["name"]: "m"}
        assert listed[ADAPTER["name"]]["root"] == f"{files.root}/claims/m/sql"
        assert answer(engine, ADAPTER["name"]) != answer(engine)


def test_an_adapter_embeds_in_its_own_way(files: EngineFiles, tmp_path: Path) -> None:
    with serving(BY_NAME["adapters, task: Embed"], files, tmp_path / "log") as engine:
        with_adapter, without = embedding(engine, EMBEDDER_ADAPTER["name"]), embedding(engine, "m")
        assert len(with_adapter) == len(without)
        assert max(abs(a - b) for a, b in zip(with_adapter, without, strict=True)) > 0.01


def test_its_variables_reach_it(files: EngineFiles, tmp_path: Path) -> None:
    """Twice the memory for the KV cache that the engine of these tests takes by itself."""
    with serving(BY_NAME["env"], files, tmp_path / "log") as engine:
        assert cache_config(engine, "kv_cache_memory_bytes") == str(2 * 1024**3)


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
        **BY_NAME["speculative.method: NGram"].engine,
        **BY_NAME["kvCacheDtype: FP8"].engine,
        **BY_NAME["adapters"].engine,
    }
    with serving(Setting(name="together", engine=engine), files, tmp_path / "log") as running_engine:
        assert answer(running_engine)
        assert answer(running_engine, ADAPTER["name"])
        assert total(running_engine, "vllm:spec_decode_num_draft_tokens_total") > 0
