"""The task client against a scripted gateway; the real gateway is asked in the end-to-end tests."""

import json
from collections.abc import Iterator

import httpx
import pytest

from flotilla_cli.main import main
from flotilla_cli.tasks import TaskFailedError, ask


def gateway(*answers: tuple[int, object]) -> httpx.Client:
    """A client whose gateway gives `answers` one after the other."""
    script: Iterator[tuple[int, object]] = iter(answers)

    def reply(request: httpx.Request) -> httpx.Response:
        status, body = next(script)
        if request.method == "POST":
            assert json.loads(request.content) == {"input": "why?"}
        return httpx.Response(status, json=body)

    return httpx.Client(base_url="http://gateway", transport=httpx.MockTransport(reply))


SUCCEEDED = {
    "id": "t1",
    "status": "Succeeded",
    "result": {"answer": "Because.", "citations": [{"document": "b"}, {"document": "a"}, {"document": "b"}]},
}


def test_an_answer_names_each_document_once_in_the_order_of_citation() -> None:
    client = gateway(
        (201, {"id": "t1", "status": "Queued"}), (200, {"id": "t1", "status": "Running"}), (200, SUCCEEDED)
    )
    answer = ask(client, "why?", clock=iter([0.0, 1.0, 2.0, 3.0]).__next__, sleep=lambda _: None)
    assert (answer.text, answer.documents, answer.seconds) == ("Because.", ("b", "a"), 3.0)


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        pytest.param([(401, {"detail": "no token"})], "answered 401: no token", id="refused at the gateway"),
        pytest.param(
            [(201, {"id": "t1", "status": "Failed", "reason": "MaxSteps"})],
            "ended Failed: MaxSteps",
            id="ended badly",
        ),
        pytest.param([(201, {"id": "t1", "status": "Running"})], "still Running after 5 s", id="not in time"),
    ],
)
def test_a_task_without_an_answer_says_why(answers: list[tuple[int, object]], message: str) -> None:
    with pytest.raises(TaskFailedError, match=message):
        ask(
            gateway(*answers),
            "why?",
            timeout_seconds=5,
            clock=iter([0.0, 6.0]).__next__,
            sleep=lambda _: None,
        )


def test_the_command_needs_the_gateways_address(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["ask", "why?"])
    assert stopped.value.code == 2
    assert "--url" in capsys.readouterr().err
