"""The engine double held against real vLLM: metrics, answers, streams and errors.

Both real engines of the example (tests.support.real_engines) and doubles with the same arguments are asked
the same things; names, types, labels and JSON keys are compared, never values. What the double alone does is
in test_engine_double_server.py.
"""

import json
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.support.engine_pairs import WEATHER, Pair, chat, events, pair, shape
from tests.support.real_engines import EXAMPLE_ENGINES, PodsEngine
from tests.support.waiting import eventually

pytestmark = [pytest.mark.services, pytest.mark.timeout(900), EXAMPLE_ENGINES]

# The double knows only some of what vLLM says about its cache.
LABELS_OF_WHICH_SOME_ARE_ENOUGH = {"vllm:cache_config_info"}


@pytest.fixture(scope="module")
def generators(generator: PodsEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    yield from pair(generator, tmp_path_factory.mktemp("double"))


@pytest.fixture(scope="module")
def embedders(embedder: PodsEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    yield from pair(embedder, tmp_path_factory.mktemp("double"))


def families(client: httpx2.Client) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(client.get("/metrics").text)}


def label_sets(family: Metric) -> dict[str, set[frozenset[str]]]:
    """For each sample's name the names of its labels."""
    seen: dict[str, set[frozenset[str]]] = {}
    for sample in family.samples:
        seen.setdefault(sample.name, set()).add(frozenset(sample.labels))
    return seen


@pytest.mark.parametrize("name", ["generators", "embedders"])
def test_every_metric_of_the_double_is_one_of_vllms(name: str, request: pytest.FixtureRequest) -> None:
    both: Pair = request.getfixturevalue(name)
    before = families(both.real)
    if name == "generators":
        both.both("/v1/chat/completions", chat())
    else:
        both.both("/v1/embeddings", {"input": "a text"})
    after, imitated = families(both.real), families(both.double)
    real = before | after
    differences = [
        f"{family.name}: vLLM has {real[family.name].type if family.name in real else 'no such metric'}"
        for family in imitated.values()
        if family.name not in real or family.type != real[family.name].type
    ]
    assert differences == []
    for family in imitated.values():
        wanted = label_sets(real[family.name])
        for sample, labels in label_sets(family).items():
            if family.name in LABELS_OF_WHICH_SOME_ARE_ENOUGH:
                assert all(mine <= max(wanted[sample]) for mine in labels), sample
            else:
                assert labels == wanted[sample], sample


def test_the_metrics_that_flotilla_reads_move_in_both(generators: Pair) -> None:
    """A request that was served shows in the same counters of both."""
    moving = [
        "vllm:prompt_tokens_total",
        "vllm:generation_tokens_total",
        "vllm:prefix_cache_queries_total",
        "vllm:time_to_first_token_seconds_count",
        "vllm:e2e_request_latency_seconds_count",
        "vllm:request_success_total",
    ]
    before = [totals(client) for client in (generators.real, generators.double)]
    generators.both("/v1/chat/completions", chat("Count to three.", max_tokens=12))
    for client, old in zip((generators.real, generators.double), before, strict=True):
        eventually(partial(moved, client, old, moving))


def moved(client: httpx2.Client, old: dict[str, float], names: list[str]) -> bool:
    """Whether all of these counters went up."""
    new = totals(client)
    return [name for name in names if new[name] <= old[name]] == []


def totals(client: httpx2.Client) -> dict[str, float]:
    sums: dict[str, float] = {}
    for family in families(client).values():
        for sample in family.samples:
            sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
    return sums


@pytest.mark.parametrize(
    ("path", "body"),
    [
        pytest.param("/v1/chat/completions", chat(), id="a chat"),
        pytest.param("/v1/completions", {"prompt": "One, two,", "max_tokens": 4}, id="a completion"),
    ],
)
def test_a_whole_answer_has_the_same_keys(generators: Pair, path: str, body: dict[str, Any]) -> None:
    real, double = generators.both(path, body)
    assert shape(double.json()) == shape(real.json())


def test_embeddings_have_the_same_keys_and_length(embedders: Pair) -> None:
    real, double = embedders.both("/v1/embeddings", {"input": ["one text", "another"]})
    assert shape(double.json()) == shape(real.json())
    assert {len(each.json()["data"][1]["embedding"]) for each in (real, double)} == {384}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        pytest.param("/v1/chat/completions", chat(), id="a chat"),
        pytest.param(
            *("/v1/chat/completions", chat(stream_options={"include_usage": True})), id="a chat with usage"
        ),
        pytest.param(
            "/v1/completions",
            {"prompt": "One, two,", "max_tokens": 4, "stream_options": {"include_usage": True}},
            id="a completion with usage",
        ),
    ],
)
def test_a_stream_has_the_same_first_middle_and_last_chunks(
    generators: Pair, path: str, body: dict[str, Any]
) -> None:
    real, double = generators.both(path, {**body, "stream": True})
    assert double.headers["content-type"] == real.headers["content-type"]
    theirs, mine = events(real), events(double)
    for place in (0, 1, -2, -1):
        assert shape(mine[place]) == shape(theirs[place]), f"chunk {place}"


def test_a_tool_call_has_the_same_keys_whole_and_streamed(generators: Pair) -> None:
    choice = {"type": "function", "function": {"name": "weather"}}
    # Greedy: a sampled run of white space, which JSON allows, would fill the answer before the call ends.
    body = chat("The weather in Oslo?", tools=[WEATHER], tool_choice=choice, max_tokens=120, temperature=0)
    real, double = generators.both("/v1/chat/completions", body)
    call = real.json()["choices"][0]["message"]["tool_calls"][0]
    assert shape(double.json()["choices"][0]["message"]["tool_calls"][0]) == shape(call)
    streams = generators.both("/v1/chat/completions", {**body, "stream": True})
    theirs, mine = (
        {
            json.dumps(shape(call), sort_keys=True)
            for chunk in events(each)
            for choice in chunk["choices"]
            for call in choice["delta"].get("tool_calls") or ()
        }
        for each in streams
    )
    assert mine == theirs


LONG = "word " * 6000


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        pytest.param("/v1/chat/completions", chat(LONG), 400, id="a prompt longer than the context"),
        pytest.param(
            "/v1/chat/completions", chat(max_tokens=9000), 400, id="a reply longer than the context"
        ),
        pytest.param("/v1/chat/completions", chat() | {"model": "other"}, 404, id="a model not served"),
        pytest.param("/v1/chat/completions", {"max_tokens": 4}, 400, id="no messages"),
        pytest.param("/v1/nothing", {}, 404, id="an unknown path"),
        pytest.param("/v1/embeddings", {"input": "text"}, 404, id="embeddings of a model that talks"),
    ],
)
def test_an_error_has_the_same_status_and_keys(
    generators: Pair, path: str, body: dict[str, Any], status: int
) -> None:
    real, double = generators.both(path, body)
    assert (real.status_code, double.status_code) == (status, status)
    assert shape(double.json()) == shape(real.json())
    if "error" in real.json():
        assert double.json()["error"]["type"] == real.json()["error"]["type"]
        assert double.json()["error"]["param"] == real.json()["error"]["param"]


def test_bytes_that_are_no_json_are_refused_and_the_next_request_is_answered(generators: Pair) -> None:
    broken = generators.real.post(
        "/v1/chat/completions", content=b"{not json", headers={"Content-Type": "application/json"}
    )
    assert broken.status_code == 400
    assert broken.json()["error"]["message"]
    good = generators.real.post("/v1/chat/completions", json={"model": generators.model, **chat()})
    assert good.json()["usage"]["completion_tokens"] > 0


@pytest.mark.holds(
    "router.md", "The guard lets nobody without the key past `/health` and `/metrics` in real vLLM"
)
@pytest.mark.parametrize(
    ("path", "status"),
    [
        pytest.param("/v1/models", 401, id="what is OpenAI's is guarded"),
        pytest.param("/invocations", 401, id="what is SageMaker's too"),
        pytest.param("/tokenize", 401, id="and what only computes"),
        pytest.param("/docs", 401, id="and what only tells"),
        pytest.param("/health", 200, id="the probes' path is open"),
        pytest.param("/metrics", 200, id="the metrics are open"),
    ],
)
def test_without_the_key_nothing_is_answered(generators: Pair, path: str, status: int) -> None:
    for headers in ({"Authorization": ""}, {"Authorization": "Bearer other"}):
        for client in (generators.real, generators.double):
            assert client.get(path, headers=headers).status_code == status


def test_with_the_key_the_real_engine_answers_as_sagemaker_asks(generators: Pair) -> None:
    answer = generators.real.post("/invocations", json={"model": generators.model, **chat()})
    assert answer.json()["usage"]["completion_tokens"] > 0
    assert generators.real.post("/invocations", json={}, headers={"Authorization": ""}).status_code == 401


def test_a_text_too_long_to_embed_is_refused_by_both(embedders: Pair) -> None:
    real, double = embedders.both("/v1/embeddings", {"input": LONG})
    assert (real.status_code, double.status_code) == (400, 400)
    assert shape(double.json()) == shape(real.json())


def test_the_list_of_models_has_the_same_keys(generators: Pair) -> None:
    real, double = generators.real.get("/v1/models"), generators.double.get("/v1/models")
    assert shape(double.json() | {"data": [{**double.json()["data"][0]}]}) == shape(real.json())
    assert double.json()["data"][0]["max_model_len"] == real.json()["data"][0]["max_model_len"] == 4096


def test_the_real_model_answers_from_a_given_context(generators: Pair) -> None:
    question = {
        "temperature": 0,
        "max_tokens": 40,
        "messages": [
            {
                "role": "system",
                "content": "Answer from the context. Context: max_connections determines the maximum number "
                "of concurrent connections to the database server. The default is typically 100 connections.",
            },
            {"role": "user", "content": "What is the default of max_connections?"},
        ],
    }
    answer = generators.real.post("/v1/chat/completions", json={"model": generators.model, **question})
    assert "100" in answer.json()["choices"][0]["message"]["content"]


def test_the_examples_engine_keeps_its_model_from_repeating_itself(generators: Pair) -> None:
    """Its callers need not ask for it, and may ask for something else."""

    def answer(**asked: float) -> str:
        question = chat("Name twenty fruits, one a line.", temperature=0, max_tokens=120, **asked)
        reply = generators.real.post("/v1/chat/completions", json={"model": generators.model, **question})
        text: str = reply.json()["choices"][0]["message"]["content"]
        return text

    assert answer() == answer(frequency_penalty=0.5)
    assert answer() != answer(frequency_penalty=0)


def test_the_real_embeddings_put_related_texts_closer(embedders: Pair) -> None:
    texts = ["a small cat", "a young kitten", "database replication"]
    answer = embedders.real.post("/v1/embeddings", json={"model": embedders.model, "input": texts})
    cat, kitten, database = (entry["embedding"] for entry in answer.json()["data"])

    def close(one: list[float], other: list[float]) -> float:
        return sum(a * b for a, b in zip(one, other, strict=True))

    assert close(cat, kitten) > 0.5 > close(cat, database)


def test_two_engines_on_one_machine_bind_to_no_core(generator: PodsEngine, embedder: PodsEngine) -> None:
    """Every thread of both may run on every core; bound, both would have chosen the same one."""
    everywhere = os.sched_getaffinity(0)
    for served in (generator, embedder):
        threads = [thread for process in family(served.engine.process_id) for thread in threads_of(process)]
        assert len(threads) > 10
        assert all(affinity == everywhere for affinity in map(affinity_of, threads) if affinity)


def family(process_id: int) -> list[int]:
    """A process and all its descendants."""
    children = Path(f"/proc/{process_id}/task/{process_id}/children").read_text().split()
    return [process_id, *(member for child in children for member in family(int(child)))]


def threads_of(process_id: int) -> list[int]:
    return [int(thread.name) for thread in Path(f"/proc/{process_id}/task").iterdir()]


def affinity_of(thread: int) -> set[int]:
    try:
        return os.sched_getaffinity(thread)
    except ProcessLookupError:
        return set()
