"""The two programs that run inside the engine's container, against an engine made of a few lines."""

import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from flotilla_operator.workloads import engine_checks
from flotilla_operator.workloads.engine_scripts import first_answer, until_idle
from flotilla_runtime import contract

METRICS = (
    "# HELP vllm:num_requests_running Number of requests.\n"
    'vllm:num_requests_running{model_name="llama"} %s\n'
    'vllm:num_requests_waiting{model_name="llama"} 0.0\n'
    "vllm:num_requests_running_created 99.0\n"
)
RESET = struct.pack("ii", 1, 0)  # close without a word of what is unsent


class Engine(ThreadingHTTPServer):
    """Answers with what the test set."""

    answer: Any = None
    status = 200
    in_flight = 0
    metrics = METRICS
    resets = False
    metrics_take_seconds = 0.0
    asked: dict[str, Any] | None = None
    authorization: str | None = None


class Handler(BaseHTTPRequestHandler):
    server: Engine

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.authorization = self.headers["Authorization"]
        self.server.asked = {"path": self.path, **json.loads(body)}
        self.respond(json.dumps(self.server.answer).encode())

    def do_GET(self) -> None:
        time.sleep(self.server.metrics_take_seconds)
        if self.server.resets:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self.connection.close()
            return
        self.respond(self.server.metrics.replace("%s", str(float(self.server.in_flight))).encode())

    def respond(self, body: bytes) -> None:
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def engine() -> Iterator[Engine]:
    server = Engine(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def run(
    script: str, engine: Engine | None, *arguments: str, deadline: str = "30", **variables: str
) -> subprocess.CompletedProcess[str]:
    port = engine.server_address[1] if engine else 1
    text = (
        script.replace("127.0.0.1:8000", f"127.0.0.1:{port}")
        .replace("ROUTERS_NOTICE_SECONDS = 3.0", "ROUTERS_NOTICE_SECONDS = 0.1")
        .replace("BETWEEN_LOOKS_SECONDS = 1.0", "BETWEEN_LOOKS_SECONDS = 0.1")
        .replace("ANSWER_TIMEOUT_SECONDS = 5.0", "ANSWER_TIMEOUT_SECONDS = 0.2")
    )
    environment = {
        **os.environ,
        engine_checks.ENV_SERVED_MODEL: "llama",
        engine_checks.ENV_DRAIN_DEADLINE: deadline,
        **variables,
    }
    return subprocess.run(
        [sys.executable, "-c", text, *arguments], env=environment, capture_output=True, text=True, timeout=30
    )


def test_the_scripts_know_the_engines_port_and_fit_the_probes_time() -> None:
    assert first_answer.ENGINE.endswith(f":{contract.PORT_ENGINE}")
    assert f":{contract.PORT_ENGINE}/" in until_idle.METRICS
    assert first_answer.TIMEOUT_SECONDS < engine_checks.FIRST_ANSWER_TIMEOUT_SECONDS


@pytest.mark.holds(
    "decisions/0006-a-first-answer.md", "A replica is ready after its first answer, not after `/health`"
)
@pytest.mark.parametrize(
    ("arguments", "answer", "asked"),
    [
        pytest.param(
            ("/v1/completions", "prompt"),
            {"choices": [{"text": "y"}]},
            {"path": "/v1/completions", "model": "llama", "prompt": "ready?", "max_tokens": 1},
            id="a first token",
        ),
        pytest.param(
            ("/v1/embeddings", "input"),
            {"data": [{"embedding": [0.1]}]},
            {"path": "/v1/embeddings", "model": "llama", "input": "ready?"},
            id="a first embedding",
        ),
    ],
)
def test_started_by_a_first_answer(
    engine: Engine, arguments: tuple[str, ...], answer: dict[str, Any], asked: dict[str, Any]
) -> None:
    engine.answer = answer
    done = run(engine_checks.FIRST_ANSWER, engine, *arguments)
    assert done.returncode == 0, done.stderr
    assert engine.asked == asked
    assert engine.authorization is None


def test_the_first_answer_is_asked_for_with_the_engines_key(engine: Engine) -> None:
    engine.answer = {"choices": [{"text": "y"}]}
    done = run(engine_checks.FIRST_ANSWER, engine, "/v1/completions", "prompt", VLLM_API_KEY="secret")
    assert done.returncode == 0, done.stderr
    assert engine.authorization == "Bearer secret"


@pytest.mark.parametrize("key", ["hush\n", " hush\r\n"])
def test_a_line_break_at_the_end_of_the_key_does_not_count(engine: Engine, key: str) -> None:
    engine.answer = {"choices": [{"text": "y"}]}
    done = run(engine_checks.FIRST_ANSWER, engine, "/v1/completions", "prompt", VLLM_API_KEY=key)
    assert (done.returncode, engine.authorization) == (0, "Bearer hush")


@pytest.mark.attack("A key with a line break at its end, or none, lets everybody into an engine, or nobody")
@pytest.mark.parametrize("key", ["hush\r\nX-Evil: 1", "hush é", " \n", "hush\x7f"])
def test_a_key_that_no_header_may_have_is_told_and_not_quoted(engine: Engine, key: str) -> None:
    done = run(engine_checks.FIRST_ANSWER, engine, "/v1/completions", "prompt", VLLM_API_KEY=key)
    assert done.returncode == 1
    assert "VLLM_API_KEY is empty or cannot be a header" in done.stderr
    assert "hush" not in done.stderr


@pytest.mark.holds(
    "decisions/0006-a-first-answer.md", "A replica is ready after its first answer, not after `/health`"
)
@pytest.mark.parametrize(
    ("status", "answer", "words"),
    [
        pytest.param(
            500, {}, "no answer yet: the engine answers 500", id="an engine that fails its first request"
        ),
        pytest.param(200, {"choices": []}, "an answer without a result", id="an empty answer"),
    ],
)
def test_not_started_without_one(engine: Engine, status: int, answer: Any, words: str) -> None:
    engine.status, engine.answer = status, answer
    done = run(engine_checks.FIRST_ANSWER, engine, "/v1/completions", "prompt")
    assert done.returncode == 1
    assert words in done.stderr


def test_not_started_while_nothing_listens() -> None:
    done = run(engine_checks.FIRST_ANSWER, None, "/v1/completions", "prompt")
    assert done.returncode == 1
    assert "no answer yet" in done.stderr


@pytest.mark.holds("draining.md", "An evicted engine waits in its preStop hook until it is idle")
@pytest.mark.holds(
    "decisions/0006-a-first-answer.md",
    "The stop hook waits until nothing runs or waits, at most until the deadline",
)
def test_a_stop_waits_for_what_is_in_flight(engine: Engine) -> None:
    engine.in_flight = 1

    def finish() -> None:
        engine.in_flight = 0

    threading.Timer(0.8, finish).start()
    began = time.monotonic()
    done = run(engine_checks.UNTIL_IDLE, engine)
    assert done.returncode == 0
    assert time.monotonic() - began >= 0.9


@pytest.mark.holds(
    "draining.md",
    "An engine that is busy, answers with an error or does not say what it has is not known to be idle",
)
def test_a_stop_waits_for_an_engine_that_is_too_busy_to_answer_in_time(engine: Engine) -> None:
    engine.metrics_take_seconds = 0.3
    began = time.monotonic()
    stopped = run(engine_checks.UNTIL_IDLE, engine, deadline="1")
    assert (stopped.returncode, stopped.stdout) == (0, "")
    assert time.monotonic() - began >= 1


@pytest.mark.holds(
    "draining.md",
    "An engine that is busy, answers with an error or does not say what it has is not known to be idle",
)
@pytest.mark.parametrize(
    "how",
    [
        pytest.param({"status": 500}, id="it answers with an error"),
        pytest.param({"resets": True}, id="it resets the connection"),
        pytest.param({"metrics": "no metrics here"}, id="it serves no metrics of vLLM's"),
        pytest.param({"metrics": "vllm:num_requests_running 0.0"}, id="it does not say what waits"),
        pytest.param({"metrics": METRICS.replace("%s", "many")}, id="its figure is no number"),
        pytest.param({"metrics": METRICS.replace("%s", "NaN")}, id="its figure is not a number"),
        pytest.param({"in_flight": 1}, id="a request runs"),
        pytest.param(
            {"metrics": METRICS.replace("%s", "1.0").replace("} 0.0", "} -1.0")},
            id="one runs and less than none waits, which adds up to idle",
        ),
    ],
)
def test_an_engine_is_not_known_to_be_idle_when(engine: Engine, how: dict[str, Any]) -> None:
    metrics = f"http://127.0.0.1:{engine.server_address[1]}/metrics"
    assert until_idle.is_idle(metrics)
    for name, value in how.items():
        setattr(engine, name, value)
    assert not until_idle.is_idle(metrics)


@pytest.mark.holds("draining.md", "A pod of a later stage waits for its group's leader")
@pytest.mark.parametrize(
    ("error", "idle"),
    [
        pytest.param(socket.EAI_AGAIN, False, id="a DNS that does not answer says nothing"),
        pytest.param(socket.EAI_FAIL, False, id="a DNS that fails says nothing"),
        pytest.param(socket.EAI_NONAME, True, id="a leader without a name has no pod any more"),
    ],
)
def test_a_stage_whose_leader_is_not_found(error: int, idle: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise socket.gaierror(error, "")

    monkeypatch.setattr(socket, "getaddrinfo", fails)
    assert until_idle.is_idle("http://leader.invalid:8000/metrics") is idle


@pytest.mark.holds("draining.md", "A pod of a later stage waits for its group's leader")
def test_a_stage_waits_for_its_leader(engine: Engine) -> None:
    engine.in_flight = 1
    port = engine.server_address[1]
    script = engine_checks.UNTIL_IDLE.replace("127.0.0.1:8000", f"127.0.0.1:{port}")
    began = time.monotonic()
    assert run(script, None, "localhost", deadline="1").returncode == 0
    assert time.monotonic() - began >= 1
    stopped = run(script, None, "127.0.0.2", deadline="10")
    assert "the engine is gone" in stopped.stdout, "it is not the engine beside it that is asked"


@pytest.mark.holds("draining.md", "A dead engine holds nothing up, and no wait is longer than the deadline")
@pytest.mark.holds(
    "decisions/0006-a-first-answer.md",
    "The stop hook waits until nothing runs or waits, at most until the deadline",
)
def test_a_stop_waits_no_longer_than_the_deadline(engine: Engine) -> None:
    engine.in_flight = 1
    began = time.monotonic()
    assert run(engine_checks.UNTIL_IDLE, engine, deadline="1").returncode == 0
    assert 1 <= time.monotonic() - began < 60


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_a_proxy_in_the_engines_environment_is_not_asked(engine: Engine, variable: str) -> None:
    nobody = {"NO_PROXY": "", "no_proxy": "", variable: "http://127.0.0.1:9"}
    engine.answer = {"choices": [{"text": "y"}]}
    started = run(engine_checks.FIRST_ANSWER, engine, "/v1/completions", "prompt", **nobody)
    assert (started.returncode, started.stderr) == (0, "")
    stopped = run(engine_checks.UNTIL_IDLE, engine, **nobody)
    assert (stopped.returncode, stopped.stdout) == (0, "")


@pytest.mark.holds("draining.md", "A dead engine holds nothing up, and no wait is longer than the deadline")
def test_a_dead_engine_holds_nothing_up() -> None:
    began = time.monotonic()
    done = run(engine_checks.UNTIL_IDLE, None)
    assert done.returncode == 0
    assert "the engine is gone" in done.stdout
    assert time.monotonic() - began < 60
