"""Every setting of `spec.engine` on a real engine: it starts, it answers, and its own figures show the
setting; or it refuses, in the words that docs/engine.md quotes.

A start of an engine takes 20 s of processor time, so each engine here has many settings that do not
contradict each other. Refusals are starts as well and change only with vLLM; types of the cache run only on
some processors. Both are tested by `make test-all`; that vLLM's parser reads each setting, by `make test`
(test_engine_arguments_real.py).
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from engine.environment import EngineError, ensure
from engine.serve import RunningEngine, running
from flotilla_operator.workloads.engine_arguments import engine_arguments
from flotilla_operator.workloads.engine_environment import merged_environment
from flotilla_operator.workloads.model_source import model_of
from local_cluster.processes import free_port
from tests.builders.model_replica_set import spec_of
from tests.support.engine_files import EngineFiles
from tests.support.real_engines import EXAMPLE_ENGINES, KEY, PodsEngine, SharedEngine
from tests.support.waiting import eventually
from tests.workloads.engine_settings import ADAPTER, BY_NAME, EMBEDDER_ADAPTER, SETTINGS, Setting

pytestmark = [pytest.mark.services, pytest.mark.timeout(600)]
OWN_ENGINE = pytest.mark.xdist_group("engine settings")

GENERATES = {"model": {"name": "m", "source": "pvc://m/llama"}}
COUNTING = ("one, two, three, four, " * 12).strip()
LONG_COUNTING = ("one, two, three, four, " * 40).strip()  # more than two blocks of the cache
WORD = 1000  # some token of the vocabulary
BATCH_TOKENS = 512  # of one step of the engine; as long as the longest sequence
SMALL_BATCHES = {"maxNumSeqs": 3, "extraArgs": ["--max-num-batched-tokens", str(BATCH_TOKENS)]}
SMALL_CACHE = ["--kv-cache-memory-bytes", str(256 * 1024**2)]  # enough, and one GiB is the default
HAS_AVX_512 = any(flag in Path("/proc/cpuinfo").read_text() for flag in ("avx512f", "amx_tile"))

ON = SharedEngine(
    name="n-grams, switches on",
    settings=(
        "prefixCaching: true",
        "chunkedPrefill: true",
        "speculative.method: NGram",
        "speculative.numTokens",
        "adapters",
    ),
    besides=SMALL_BATCHES,
)
OFF = SharedEngine(
    name="a draft, switches off",
    settings=("prefixCaching: false", "chunkedPrefill: false", "speculative.method: Draft", "env"),
    besides=SMALL_BATCHES,
    rare=True,
)
SHORT = SharedEngine(
    name="Eagle, short sequences",
    settings=("maxModelLen", "maxNumSeqs", "speculative.method: Eagle", "kvCacheDtype: Auto"),
)
LAST_WINS = SharedEngine(
    name="Eagle 3, an argument that wins",
    settings=("extraArgs", "speculative.method: Eagle, eagle3 in the name"),
    rare=True,
)
FP8 = SharedEngine(
    name="FP8 with guesses and adapters", settings=("kvCacheDtype: FP8",), besides=ON.engine(), rare=True
)
E4M3 = SharedEngine(name="FP8E4M3", settings=("kvCacheDtype: FP8E4M3",), rare=True)
E5M2 = SharedEngine(name="FP8E5M2", settings=("kvCacheDtype: FP8E5M2",), rare=True)
ENGINES = (ON, OFF, SHORT, LAST_WINS, FP8, E4M3, E5M2)
ENGINE_OF = {setting: engine for engine in ENGINES for setting in engine.settings}
ON_THE_EMBEDDER = "adapters, task: Embed"
# The settings that a test shows, by its name, whether or not this processor runs all of them.
SHOWN_BY = {"test_an_adapter_embeds_in_its_own_way": {ON_THE_EMBEDDER}}
Test = TypeVar("Test", bound=Callable[..., None])


def refusal_here(setting: Setting) -> str | None:
    """The words with which vLLM refuses it on this machine; None where it runs."""
    return setting.refusal or (None if HAS_AVX_512 else setting.refusal_without_avx_512)


REFUSED_HERE = [setting for setting in SETTINGS if refusal_here(setting)]


@contextmanager
def serving(
    engine: dict[str, Any], rest: dict[str, Any], files: EngineFiles, log: Path
) -> Iterator[RunningEngine]:
    spec = spec_of(**{**GENERATES, **rest, "engine": {"maxModelLen": 512, "maxNumSeqs": 2, **engine}})
    ours = [*files.arguments(engine_arguments(spec, model_of(spec).path)), *SMALL_CACHE]
    variables = {variable["name"]: variable["value"] for variable in merged_environment([], spec)}
    with running(ensure(), ours, free_port(), log, variables) as engine_process:
        yield engine_process


@pytest.fixture(scope="module")
def engine(
    request: pytest.FixtureRequest, engine_files: EngineFiles, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningEngine]:
    """One of `ENGINES`; pytest puts the tests of one together."""
    shared: SharedEngine = request.param
    log = tmp_path_factory.mktemp("engine") / "log"
    with serving(shared.engine(), {}, engine_files, log) as started:
        yield started


def on_its_engine(*cases: Sequence[Any], values: tuple[str, ...] = ()) -> Callable[[Test], Test]:
    """Each case begins with the name of a setting and goes on with its `values`."""
    rows = []
    for name, *rest in cases:
        shared = ENGINE_OF[name]
        marks = [OWN_ENGINE, pytest.mark.rare] if shared.rare else [OWN_ENGINE]
        if refusal_here(BY_NAME[name]) is None:
            rows.append(pytest.param(shared, *rest, id=name, marks=marks))
    table = pytest.mark.parametrize(("engine", *values), rows, indirect=["engine"], scope="module")

    def with_its_table(test: Test) -> Test:
        SHOWN_BY[test.__name__] = {name for name, *_ in cases}
        with_rows: Test = table(test)
        return with_rows

    return with_its_table


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
    """Models that the engine lists, by name."""
    with urlopen(f"{engine.url}/v1/models", timeout=30) as response:
        return {model["id"]: model for model in json.load(response)["data"]}


def embedding(engine: RunningEngine, model: str) -> list[float]:
    body = {"model": model, "input": "a contract of sale"}
    request = Request(
        f"{engine.url}/v1/embeddings",
        json.dumps(body).encode(),
        {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"},
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


@pytest.mark.holds("engine.md", "Each setting runs on a real engine as its row says")
@EXAMPLE_ENGINES
def test_an_adapter_embeds_in_its_own_way(embedder: PodsEngine) -> None:
    """On the engine that other modules use too, which has this adapter."""
    with_adapter = embedding(embedder.engine, EMBEDDER_ADAPTER["name"])
    without = embedding(embedder.engine, embedder.model)
    assert len(with_adapter) == len(without)
    assert max(abs(a - b) for a, b in zip(with_adapter, without, strict=True)) > 0.01


@pytest.mark.holds("engine.md", "Each setting runs on a real engine as its row says")
@on_its_engine(("prefixCaching: true", True), ("prefixCaching: false", False), values=("hits",))
def test_a_prompt_is_found_again(engine: RunningEngine, hits: bool) -> None:
    assert answer(engine, prompt=LONG_COUNTING) == answer(engine, prompt=LONG_COUNTING)
    assert (total(engine, "vllm:prefix_cache_hits_total") > 0) is hits


@pytest.mark.holds("engine.md", "Each setting runs on a real engine as its row says")
@on_its_engine(("maxModelLen", 128), ("extraArgs", 200), values=("tokens",))
def test_longer_sequences_are_refused(engine: RunningEngine, tokens: int) -> None:
    assert models(engine)["m"]["max_model_len"] == tokens
    answer(engine, prompt=[WORD] * (tokens - 1), tokens=1)
    with pytest.raises(HTTPError, match="400"):
        answer(engine, prompt=[WORD] * tokens, tokens=1)


@pytest.mark.holds("engine.md", "Each setting runs on a real engine as its row says")
@on_its_engine(("maxNumSeqs",))
def test_so_many_sequences_are_worked_on_at_once(engine: RunningEngine) -> None:
    with ThreadPoolExecutor(4) as callers:
        answers = [callers.submit(answer, engine, prompt="one, two", tokens=32) for _ in range(4)]
        at_once = []
        while not all(one.done() for one in answers):
            at_once.append(total(engine, "vllm:num_requests_running"))
        assert all(one.result() for one in answers)
        assert max(at_once) == 2


@pytest.mark.holds("engine.md", "Each setting runs on a real engine as its row says")
@on_its_engine(("chunkedPrefill: true", True), ("chunkedPrefill: false", False), values=("split",))
def test_a_prompt_is_split_where_a_batch_has_no_room_for_the_whole(
    engine: RunningEngine, split: bool
) -> None:
    """Two answers being written leave a batch one token short of the prompt: in parts it overtakes them, in
    one piece it waits until one of them has ended.
    """
    with ThreadPoolExecutor(3) as callers:
        others = [callers.submit(answer, engine, prompt="one, two", tokens=200) for _ in range(2)]
        eventually(lambda: total(engine, "vllm:num_requests_running") == len(others))
        long = callers.submit(answer, engine, prompt=[WORD] * (BATCH_TOKENS - 1), tokens=1)
        assert (next(as_completed([*others, long])) is long) is split
        assert long.exception() is None


@pytest.mark.holds("engine.md", "Each setting runs on a real engine as its row says")
@on_its_engine(
    ("speculative.method: NGram", 2, True),
    ("speculative.method: Draft", 3, True),
    ("speculative.method: Eagle", 4, False),
    ("speculative.method: Eagle, eagle3 in the name", 4, False),
    ("speculative.numTokens", 2, True),
    values=("tokens", "right"),
)
def test_guesses_are_made_and_change_nothing(engine: RunningEngine, tokens: int, right: bool) -> None:
    """Most are right of who can know: the prompt that counts and a draft that is the model itself."""
    made, taken = (total(engine, f"vllm:spec_decode_num_{of}_tokens_total") for of in ("draft", "accepted"))
    assert answer(engine).startswith(" one, two, three, four")
    made = total(engine, "vllm:spec_decode_num_draft_tokens_total") - made
    taken = total(engine, "vllm:spec_decode_num_accepted_tokens_total") - taken
    assert made > 0
    assert (taken > made / 2) is right
    assert guessed_at_a_time(engine) == tokens


@pytest.mark.holds("engine.md", "Each setting runs on a real engine as its row says")
@on_its_engine(
    ("kvCacheDtype: Auto", "auto"),
    ("kvCacheDtype: FP8", "fp8"),
    ("kvCacheDtype: FP8E4M3", "fp8_e4m3"),
    ("kvCacheDtype: FP8E5M2", "fp8_e5m2"),
    values=("dtype",),
)
def test_the_cache_has_the_type(engine: RunningEngine, dtype: str) -> None:
    assert answer(engine)
    assert cache_config(engine, "cache_dtype") == dtype


@pytest.mark.holds("engine.md", "Each setting runs on a real engine as its row says")
@on_its_engine(("adapters",))
def test_an_adapter_is_a_model_of_its_own(engine: RunningEngine, engine_files: EngineFiles) -> None:
    listed = models(engine)
    assert {name: model["parent"] for name, model in listed.items()} == {"m": None, ADAPTER["name"]: "m"}
    assert listed[ADAPTER["name"]]["root"] == f"{engine_files.root}/claims/m/sql"
    assert answer(engine, ADAPTER["name"]) != answer(engine)


@pytest.mark.holds("engine.md", "Each setting runs on a real engine as its row says")
@on_its_engine(("env",))
def test_its_variables_reach_it(engine: RunningEngine) -> None:
    """With this one it tells what it was started with, on a path that it does not have else."""
    with urlopen(f"{engine.url}/server_info", timeout=30) as response:
        assert json.load(response)["vllm_config"]


@pytest.mark.holds("engine.md", "Settings that go together run together on one engine")
@on_its_engine(("adapters",), ("kvCacheDtype: FP8",))
def test_all_that_runs_together(engine: RunningEngine) -> None:
    """Guesses and adapters, with the model's own type of cache and with a smaller one."""
    before = total(engine, "vllm:spec_decode_num_draft_tokens_total")
    assert answer(engine)
    assert answer(engine, ADAPTER["name"])
    assert total(engine, "vllm:spec_decode_num_draft_tokens_total") > before


@pytest.mark.holds("engine.md", "A setting that the CPU refuses is refused in the quoted words")
@OWN_ENGINE
@pytest.mark.rare
@pytest.mark.parametrize("setting", REFUSED_HERE, ids=lambda setting: setting.name)
def test_what_is_refused_is_refused_in_these_words(
    setting: Setting, engine_files: EngineFiles, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with pytest.raises(EngineError), serving(dict(setting.engine), dict(setting.rest), engine_files, log):
        raise AssertionError(f"{setting.name} runs: say so in docs/engine.md")
    assert (refusal_here(setting) or "") in log.read_text(errors="replace")


def test_every_setting_that_runs_is_one_of_an_engine() -> None:
    run = {setting.name for setting in SETTINGS if setting.refusal is None}
    assert run == ENGINE_OF.keys() | {ON_THE_EMBEDDER} == set().union(*SHOWN_BY.values())
