"""The double over HTTP: answers, streams, scripts, faults and metrics.

The simulation is in test_engine_double_simulator.py, the comparison with vLLM in test_engine_contract.py.
"""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientConnectionError, ClientPayloadError, ClientSession, ClientTimeout
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client.parser import text_string_to_metric_families

from engine_double.configuration import Configuration, Task, parse
from engine_double.server import Server
from engine_double.work import FinishReason, Record, Request
from tests.support.doubles import Client, Doubles, ask, chat, stream

WEATHER = {"name": "weather", "arguments": {"city": "Oslo"}}


@pytest.fixture
async def doubles() -> AsyncIterator[Doubles]:
    started = Doubles()
    yield started
    await started.stop()


async def sample(client: Client, name: str, **labels: str) -> float:
    async with client.get("/metrics") as response:
        text = await response.text()
    values = [
        found.value
        for family in text_string_to_metric_families(text)
        for found in family.samples
        if found.name == name and labels.items() <= found.labels.items()
    ]
    assert len(values) == 1, f"{name} {labels}: {values}"
    return values[0]


async def shows(client: Client, name: str, value: float, **labels: str) -> None:
    """Return once the metric has the value."""
    async with asyncio.timeout(60):
        while await sample(client, name, **labels) != value:  # noqa: ASYNC110 - it is in the server
            await asyncio.sleep(0.01)


async def test_a_reply_has_the_length_that_the_caller_allows(doubles: Doubles) -> None:
    client = await doubles.start(reply_tokens=20)
    _, whole = await ask(client, chat())
    assert whole["choices"][0]["finish_reason"] == "stop"
    assert whole["usage"]["completion_tokens"] == 20
    _, cut = await ask(client, chat(max_tokens=7))
    assert cut["choices"][0]["finish_reason"] == "length"
    assert cut["usage"]["completion_tokens"] == 7
    _, exact = await ask(client, chat(max_tokens=50, ignore_eos=True))
    assert exact["usage"]["completion_tokens"] == 50


async def test_a_stream_spells_out_what_the_whole_answer_says(doubles: Doubles) -> None:
    client = await doubles.start()
    _, whole = await ask(client, chat())
    chunks = await stream(client, chat(stream_options={"include_usage": True}))
    spoken = "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"])
    assert spoken == whole["choices"][0]["message"]["content"]
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1]["usage"]["completion_tokens"] == 32


async def test_a_script_is_followed_in_order_and_then_filler_comes(doubles: Doubles) -> None:
    client = await doubles.start(script=[{"content": "first"}, {"tool_calls": [WEATHER]}])
    _, first = await ask(client, chat())
    assert first["choices"][0]["message"]["content"] == "first"
    _, second = await ask(client, chat())
    message = second["choices"][0]["message"]
    assert second["choices"][0]["finish_reason"] == "tool_calls"
    assert message["content"] is None
    assert message["tool_calls"][0]["function"]["name"] == "weather"
    assert json.loads(message["tool_calls"][0]["function"]["arguments"]) == {"city": "Oslo"}
    _, third = await ask(client, chat())
    assert third["choices"][0]["message"]["content"].startswith("sail")


async def test_a_tool_call_is_streamed_in_pieces(doubles: Doubles) -> None:
    client = await doubles.start(script=[{"tool_calls": [WEATHER]}])
    chunks = await stream(client, chat())
    calls = [
        call
        for chunk in chunks
        for choice in chunk["choices"]
        for call in choice["delta"].get("tool_calls", ())
    ]
    assert calls[0]["function"] == {"name": "weather"}
    assert calls[0]["id"].startswith("chatcmpl-tool-")
    arguments = "".join(call["function"]["arguments"] for call in calls[1:])
    assert json.loads(arguments) == {"city": "Oslo"}


async def test_a_reply_with_a_pattern_waits_for_its_request_and_lasts(doubles: Doubles) -> None:
    client = await doubles.start()
    script = [
        {"content": "about wind", "matches": "wind", "times": None},
        {"content": "no", "matches": "storm", "status": 503},
    ]
    await ask(client, script, "/admin/replies")
    answers = [await ask(client, chat(text)) for text in ("calm", "wind", "more wind", "storm")]
    assert [status for status, _ in answers] == [200, 200, 200, 503]
    said = [body["choices"][0]["message"]["content"] for status, body in answers if status == 200]
    assert said[1:] == ["about wind", "about wind"]
    assert said[0] != "about wind"


async def test_what_was_asked_can_be_read_afterwards(doubles: Doubles) -> None:
    client = await doubles.start()
    async with client.post("/v1/chat/completions", json=chat("seen"), headers={"X-Session-Id": "s1"}):
        pass
    async with client.get("/admin/requests") as response:
        (seen,) = await response.json()
    assert seen["headers"]["X-Session-Id"] == "s1"
    assert seen["body"]["messages"][0]["content"] == "seen"


@pytest.mark.parametrize(
    ("body", "status", "parameter"),
    [
        pytest.param(chat("x" * 4 * 9000), 400, "input_tokens", id="a prompt longer than the context"),
        pytest.param(chat(max_tokens=9000), 400, "max_tokens", id="a reply longer than the context"),
        pytest.param(chat() | {"model": "other"}, 404, "model", id="a model that is not served"),
        pytest.param({"model": "m"}, 400, "body.messages", id="no messages"),
    ],
)
async def test_a_bad_request_is_refused_in_openais_form(
    doubles: Doubles, body: dict[str, Any], status: int, parameter: str
) -> None:
    client = await doubles.start()
    answered, refusal = await ask(client, body)
    assert answered == status
    assert refusal["error"]["code"] == status
    assert refusal["error"]["param"] == parameter


async def test_text_that_is_not_json_is_refused(doubles: Doubles) -> None:
    client = await doubles.start()
    async with client.post("/v1/chat/completions", data=b"{no json") as response:
        assert response.status == 400


async def test_embeddings_are_unit_vectors_in_the_order_asked(doubles: Doubles) -> None:
    client = await doubles.start(task=Task.EMBED, embedding_dimension=64)
    _, both = await ask(client, {"model": "m", "input": ["red sail", "blue tide"]}, "/v1/embeddings")
    _, one = await ask(client, {"model": "m", "input": "blue tide"}, "/v1/embeddings")
    vectors = [entry["embedding"] for entry in both["data"]]
    assert vectors[1] == one["data"][0]["embedding"]
    assert sum(value * value for value in vectors[0]) == pytest.approx(1.0)
    status, _ = await ask(client, chat())
    assert status == 404


async def test_a_full_batch_shows_in_running_and_waiting(doubles: Doubles) -> None:
    client = await doubles.start(max_num_seqs=2, decode_step_seconds=0.05)
    asked = [asyncio.create_task(ask(client, chat(max_tokens=20))) for _ in range(5)]
    await shows(client, "vllm:num_requests_waiting", 3)
    assert await sample(client, "vllm:num_requests_running") == 2
    assert await sample(client, "vllm:kv_cache_usage_perc") > 0
    await asyncio.gather(*asked)
    assert await sample(client, "vllm:num_requests_running") == 0
    assert await sample(client, "vllm:request_success_total", finished_reason="length") == 5
    assert await sample(client, "vllm:time_to_first_token_seconds_count") == 5
    assert await sample(client, "vllm:generation_tokens_total") == 100


async def test_the_next_turn_of_a_conversation_hits_the_cache(doubles: Doubles) -> None:
    client = await doubles.start()
    first = chat("question " * 100)
    _, answer = await ask(client, first)
    said = answer["choices"][0]["message"]
    turn = {**first, "messages": [*first["messages"], said, {"role": "user", "content": "and?"}]}
    await ask(client, turn)
    hits = await sample(client, "vllm:prefix_cache_hits_total")
    assert hits >= answer["usage"]["total_tokens"] - 16


async def test_a_caller_who_goes_away_frees_the_engine(doubles: Doubles) -> None:
    server = TestServer(Server(Configuration(model="m", decode_step_seconds=0.01)).application())
    async with TestClient(server) as client:
        asking = asyncio.create_task(ask(client, chat(max_tokens=5000, ignore_eos=True)))
        await shows(client, "vllm:num_requests_running", 1)
        asking.cancel()
        await shows(client, "vllm:request_success_total", 1, finished_reason="abort")
        assert await sample(client, "vllm:num_requests_running") == 0


async def test_failures_come_as_told_and_then_stop(doubles: Doubles) -> None:
    client = await doubles.start(faults={"fail_next": 2, "fail_status": 503})
    assert [(await ask(client, chat()))[0] for _ in range(3)] == [503, 503, 200]
    await ask(client, {"fail_every": 2}, "/admin/faults")
    assert [(await ask(client, chat()))[0] for _ in range(4)] == [200, 500, 200, 500]


async def test_a_cut_stream_ends_without_a_goodbye(doubles: Doubles) -> None:
    client = await doubles.start(faults={"cut_streams_after_tokens": 3})
    with pytest.raises((ClientPayloadError, ClientConnectionError)):
        await stream(client, chat())


async def test_a_hanging_engine_answers_health_and_goes_on_where_it_stopped(doubles: Doubles) -> None:
    client = await doubles.start(faults={"hang": "Requests"})
    asked = asyncio.create_task(ask(client, chat()))
    await asyncio.sleep(0.2)
    assert not asked.done()
    async with client.get("/health") as response:
        assert response.status == 200
    await ask(client, {}, "/admin/faults")
    status, _ = await asyncio.wait_for(asked, 60)
    assert status == 200


async def test_an_engine_that_hangs_altogether_does_not_answer_health(doubles: Doubles) -> None:
    client = await doubles.start(faults={"hang": "Everything"})
    with pytest.raises(asyncio.TimeoutError):
        await client.get("/health", timeout=ClientTimeout(total=0.2))


async def test_frozen_metrics_keep_their_values_and_failing_ones_say_so(doubles: Doubles) -> None:
    client = await doubles.start()
    await ask(client, {"metrics": "Frozen"}, "/admin/faults")
    await ask(client, chat())
    assert await sample(client, "vllm:generation_tokens_total") == 0
    await ask(client, {"metrics": "Error"}, "/admin/faults")
    async with client.get("/metrics") as response:
        assert response.status == 500
    await ask(client, {}, "/admin/faults")
    assert await sample(client, "vllm:generation_tokens_total") == 32


def test_vllms_arguments_start_the_double_too() -> None:
    configuration, options, ignored = parse(
        [
            *("/models/m", "--served-model-name", "m", "--port", "8001", "--runner", "pooling"),
            *("--max-model-len", "131072", "--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
            *("--no-enable-prefix-caching", "--enable-chunked-prefill"),
        ]
    )
    assert (configuration.model, configuration.task, options.port) == ("m", Task.EMBED, 8001)
    assert configuration.max_model_len == 131072
    assert configuration.kv_blocks * configuration.block_tokens >= 131072
    assert not configuration.prefix_caching
    assert "--tool-call-parser" in ignored


def test_faults_given_as_an_argument_replace_those_of_the_file(tmp_path: Path) -> None:
    config = tmp_path / "double.json"
    config.write_text(json.dumps({"model": "m", "faults": {"fail_next": 2}}))
    configuration, _, ignored = parse(['--faults={"fail_every": 4}', f"--config={config}"])
    assert (configuration.faults.fail_next, configuration.faults.fail_every) == (0, 4)
    assert ignored == []


def test_a_context_that_does_not_fit_the_cache_is_refused() -> None:
    with pytest.raises(ValueError, match="raise kv_blocks"):
        Configuration(max_model_len=100, kv_blocks=2)


async def test_the_program_starts_late_crashes_on_demand_and_stops_on_sigterm(
    tmp_path: Path, unused_tcp_port: int
) -> None:
    config = tmp_path / "double.json"
    config.write_text(json.dumps({"model": "m", "faults": {"start_delay_seconds": 0.5}}))
    command = [sys.executable, "-m", "engine_double", "--config", str(config)]
    command += ["--host", "::", "--port", str(unused_tcp_port)]
    url = f"http://127.0.0.1:{unused_tcp_port}"
    for crash in (True, False):
        began = time.monotonic()
        process = await asyncio.create_subprocess_exec(*command, cwd=Path(__file__).parents[1])
        try:
            async with ClientSession() as session:
                await _until_healthy(session, url)
                assert time.monotonic() - began > 0.5
                if crash:
                    with pytest.raises(ClientConnectionError):
                        await session.post(f"{url}/admin/crash")
                    assert await asyncio.wait_for(process.wait(), 60) == 139
                else:
                    process.terminate()
                    assert await asyncio.wait_for(process.wait(), 60) == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def _until_healthy(session: ClientSession, url: str) -> None:
    async with asyncio.timeout(120):
        while True:
            try:
                async with session.get(f"{url}/health"):
                    return
            except ClientConnectionError:
                await asyncio.sleep(0.05)


@dataclass(slots=True)
class Notes:
    """A record in memory."""

    begun: list[tuple[str, int]] = field(default_factory=list)
    done: list[tuple[str, int, FinishReason]] = field(default_factory=list)
    both_ended: asyncio.Event = field(default_factory=asyncio.Event)

    def began(self, prompt: str, work: Request) -> None:
        self.begun.append((prompt, work.prompt_tokens))

    def ended(self, record: Record) -> None:
        self.done.append((record.request.id, record.generated_tokens, record.reason))
        if len(self.done) == 2:
            self.both_ended.set()


async def test_a_recorder_is_told_of_each_generation_with_its_tokens(doubles: Doubles) -> None:
    notes = Notes()
    client = await doubles.start(recorder=notes, reply_tokens=5)
    _, whole = await ask(client, chat("hello"))
    async with client.post(
        "/v1/chat/completions", json=chat("again", stream=True, ignore_eos=True)
    ) as response:
        await response.content.readline()
        response.close()
    async with asyncio.timeout(5):
        await notes.both_ended.wait()
    assert ["hello" in prompt for prompt, _ in notes.begun] == [True, False]
    assert notes.begun[0][1] == whole["usage"]["prompt_tokens"]
    assert notes.done[0] == (whole["id"], 5, FinishReason.STOP)
    assert notes.done[1][2] is FinishReason.ABORT


async def test_each_byte_of_a_prompt_can_be_a_token(doubles: Doubles) -> None:
    client = await doubles.start(byte_tokens=True)
    _, short = await ask(client, chat("aaaa"))
    _, long = await ask(client, chat("भभभभ"))
    assert long["usage"]["prompt_tokens"] - short["usage"]["prompt_tokens"] == 4 * 3 - 4
    _, counted = await ask(client, chat("भभभभ"), "/tokenize")
    assert counted["count"] == long["usage"]["prompt_tokens"]
