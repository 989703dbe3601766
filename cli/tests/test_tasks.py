"""The task client against a scripted gateway; the real gateway is asked in the end-to-end tests."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from flotilla_cli.main import main
from flotilla_cli.tasks import TaskFailedError, ask


class Gateway:
    """Gives `answers` one after the other, and notes the keys of submissions."""

    def __init__(self, *answers: tuple[int, object]) -> None:
        self.keys: list[str] = []
        self._answers: Iterator[tuple[int, object]] = iter(answers)
        self.agents: list[str | None] = []
        self.client = httpx2.Client(base_url="http://gateway", transport=httpx2.MockTransport(self._reply))

    def _reply(self, request: httpx2.Request) -> httpx2.Response:
        status, body = next(self._answers)
        if request.method == "POST":
            submission = json.loads(request.content)
            assert submission["input"] == "why?"
            self.keys.append(submission["idempotencyKey"])
            self.agents.append(submission.get("agent"))
        else:
            assert request.url.path == "/v1/tasks/t1"
        return httpx2.Response(status, json=body)


class Clock:
    """Moves when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


WAITING = (201, {"id": "t1", "status": "Waiting"})
RUNNING = (200, {"id": "t1", "status": "Running"})
WAITS = {"kind": "Effect", "call": "turn/1/tool/pay", "untilTime": "2026-01-02T03:04:05Z"}
SUSPENDED = (200, {"id": "t1", "status": "Suspended", "waitsFor": WAITS})
AWAY = (503, {"detail": "the fleet's task store does not answer"})
CITATIONS = [{"document": "b"}, {"document": "a.pdf", "page": 7}, {"document": "b"}, {"document": "a.pdf"}]
SUCCEEDED = (
    200,
    {"id": "t1", "status": "Succeeded", "result": {"answer": "Because.", "citations": CITATIONS}},
)


@pytest.mark.holds("tasks.md", "`flotilla ask` waits for the answer and shows its sources")
def test_an_answer_names_each_source_once_in_the_order_of_citation() -> None:
    clock = Clock()
    answer = ask(Gateway(WAITING, RUNNING, SUCCEEDED).client, "why?", clock=clock, sleep=clock.sleep)
    assert (answer.text, answer.documents, answer.seconds) == ("Because.", ("b", "a.pdf"), 0.5)
    assert [str(source) for source in answer.sources] == ["b", "a.pdf, page 7", "a.pdf"]


def test_a_gateway_that_is_away_for_a_while_is_asked_again_and_the_task_stays_one() -> None:
    clock, gateway = Clock(), Gateway(AWAY, AWAY, WAITING, AWAY, RUNNING, AWAY, SUCCEEDED)
    assert ask(gateway.client, "why?", clock=clock, sleep=clock.sleep).text == "Because."
    assert len(gateway.keys) == 3
    assert len(set(gateway.keys)) == 1


@pytest.mark.holds("tasks.md", "`flotilla ask` says what a task waits for")
def test_what_a_task_waits_for_is_told_once_while_it_waits() -> None:
    clock, told = Clock(), list[str]()
    gateway = Gateway(WAITING, SUSPENDED, SUSPENDED, RUNNING, SUCCEEDED)
    ask(gateway.client, "why?", clock=clock, sleep=clock.sleep, tell=told.append)
    assert told == [
        "task t1 is Suspended and waits for Effect (turn/1/tool/pay) until 2026-01-02T03:04:05Z; say whether "
        "the call happened: flotilla resolve t1"
    ]


@pytest.mark.holds(
    "tasks.md",
    "`flotilla approve` decides on a call that is named, or that it has shown in whole at a terminal",
)
def test_what_waits_for_approval_is_told_with_the_command_that_names_the_call() -> None:
    clock, told = Clock(), list[str]()
    waits = {"kind": "Approval", "call": "turn/1/tool/pay#approval"}
    suspended = (200, {"id": "t1", "status": "Suspended", "waitsFor": waits})
    ask(
        Gateway(WAITING, suspended, SUCCEEDED).client,
        "why?",
        clock=clock,
        sleep=clock.sleep,
        tell=told.append,
    )
    assert told == [
        "task t1 is Suspended and waits for Approval (turn/1/tool/pay#approval); somebody who may must "
        "decide: flotilla approve t1 --call 'turn/1/tool/pay#approval' (without --call, it shows the call)"
    ]


@pytest.mark.parametrize(
    ("result", "text"),
    [
        pytest.param({"answer": "Because."}, "Because.", id="without sources"),
        pytest.param("Because.", "Because.", id="a text"),
        pytest.param({"rows": 3}, '{"rows": 3}', id="something else"),
        pytest.param({"answer": "a", "citations": ["b"]}, '{"answer": "a", "citations": ["b"]}', id="others"),
        pytest.param(None, "null", id="nothing"),
    ],
)
def test_the_result_of_an_agent_of_ones_own_is_shown_as_it_is(result: object, text: str) -> None:
    clock = Clock()
    ended = (200, {"id": "t1", "status": "Succeeded", "result": result})
    answer = ask(Gateway(WAITING, ended).client, "why?", clock=clock, sleep=clock.sleep)
    assert (answer.text, answer.sources) == (text, ())


def test_a_question_may_go_to_another_agent_of_the_fleet() -> None:
    clock, gateway = Clock(), Gateway(WAITING, SUCCEEDED, WAITING, SUCCEEDED)
    for agent in (None, "writer"):
        ask(gateway.client, "why?", agent=agent, clock=clock, sleep=clock.sleep)
    assert gateway.agents == [None, "writer"]


def test_each_question_has_a_key_of_its_own() -> None:
    clock, gateway = Clock(), Gateway(WAITING, SUCCEEDED, WAITING, SUCCEEDED)
    for _ in range(2):
        ask(gateway.client, "why?", clock=clock, sleep=clock.sleep)
    assert len(set(gateway.keys)) == 2


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        pytest.param([(401, {"detail": "no token"})], "answered 401: no token", id="refused at the gateway"),
        pytest.param(
            [(201, {"id": "t1", "status": "Failed", "reason": "MaxSteps"})],
            "ended with status Failed: MaxSteps$",
            id="ended badly",
        ),
        pytest.param(
            [
                WAITING,
                (200, {"id": "t1", "status": "Failed", "reason": "ToolFailed", "message": "no index: 503"}),
            ],
            "ended with status Failed: ToolFailed: no index: 503$",
            id="ended badly, with words",
        ),
        pytest.param([WAITING, *[RUNNING] * 99], "still Running after 5 s", id="not in time"),
        pytest.param(
            [WAITING, *[SUSPENDED] * 99],
            r"still Suspended and waits for Effect \(turn/1/tool/pay\) until .*resolve t1 after 5 s",
            id="suspended",
        ),
        pytest.param([WAITING, *[AWAY] * 99], "answered 503: the fleet's task store", id="away for too long"),
    ],
)
def test_a_task_without_an_answer_says_why(answers: list[tuple[int, object]], message: str) -> None:
    clock = Clock()
    with pytest.raises(TaskFailedError, match=message):
        ask(Gateway(*answers).client, "why?", timeout_seconds=5, clock=clock, sleep=clock.sleep)


@pytest.mark.parametrize("content", [None, b"\xff\xfe"], ids=["missing", "no text"])
def test_a_token_file_that_cannot_be_read_is_one_line(
    tmp_path: Path, content: bytes | None, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    assert main(["ask", "--url", "http://gateway", "--token-file", str(path), "why?"]) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"flotilla: --token-file {path} cannot be read: ")
    assert told.count("\n") == 1


def test_the_command_needs_the_gateways_address(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["ask", "why?"])
    assert stopped.value.code == 2
    assert "--url" in capsys.readouterr().err
