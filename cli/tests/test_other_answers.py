"""Mistakes of who types a command: a URL that is none, or one where something else than a gateway answers."""

import json
from typing import Any

import httpx2
import pytest

from flotilla_cli.main import main, parser

MOMENT = "2026-01-01T00:00:00Z"
TASK: dict[str, Any] = {"id": "t1", "status": "Running"}
COMMANDS = [
    ["ask", "why?"],
    ["tasks"],
    ["task", "show", "t1"],
    ["approve", "t1"],
    ["approve", "t1", "--call", "x"],
    ["resolve", "t1", "--happened"],
    ["resolve", "t1", "--happened", "--call", "x"],
    ["cancel", "t1"],
    ["replay", "t1"],
]


def answered_by(monkeypatch: pytest.MonkeyPatch, answer: httpx2.Response) -> None:
    """Let every client get this answer, whatever it asks."""
    transport = httpx2.MockTransport(lambda _: answer)
    monkeypatch.setattr(httpx2.Client, "_init_transport", lambda *_, **__: transport)


def failure(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The single line that a failing command prints."""
    assert main([*words]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    return told.err


def test_every_command_that_asks_a_gateway_is_in_the_table() -> None:
    choices: dict[str, Any] = next(iter(parser()._subparsers._group_actions)).choices  # type: ignore[union-attr,assignment]
    assert {words[0] for words in COMMANDS} == set(choices) - {"rebalance"}, "which asks kubectl alone"


@pytest.mark.holds(
    "tasks.md",
    "Its errors are one line that says what to do, also where no gateway answers or the URL is none",
)
@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(httpx2.Response(200, html="<html>Log in</html>"), id="a login page"),
        pytest.param(httpx2.Response(302, headers={"location": "/login"}), id="a redirect to one"),
        pytest.param(httpx2.Response(200, content=b"\xff\xfe{"), id="no text"),
        pytest.param(httpx2.Response(200, json={}), id="an object"),
        pytest.param(httpx2.Response(200, json=[]), id="a list"),
        pytest.param(httpx2.Response(200, json="ok"), id="a string"),
        pytest.param(httpx2.Response(200, content=b"null"), id="null"),
        pytest.param(httpx2.Response(204), id="nothing"),
        pytest.param(
            httpx2.Response(200, json={"id": 1, "status": "Waiting", "tasks": {}}), id="other types"
        ),
        pytest.param(httpx2.Response(200, json={"id": "t1", "tasks": [{"id": "t1"}]}), id="tasks of others"),
    ],
)
def test_what_is_none_of_the_task_api_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    answer: httpx2.Response,
) -> None:
    answered_by(monkeypatch, answer)
    told = failure(capsys, *words, "--url", "http://gateway")
    assert told.startswith("flotilla: http://gateway/v1/tasks")
    assert told.endswith(" answered what is none of the task API; check --url\n")


@pytest.mark.holds(
    "tasks.md",
    "Its errors are one line that says what to do, also where no gateway answers or the URL is none",
)
@pytest.mark.parametrize(
    "broken",
    [
        {"waitsFor": {"kind": "Approval"}},
        {"waitsFor": "Approval"},
        {"reason": 3},
        {"approvals": [{"call": "c"}]},
        {"approvals": {"call": "c"}},
        {"timeline": [{"event": "started"}]},
        {"timeline": [{"at": "soon", "event": "started"}]},
        {"timeline": [{"at": "2026-01-01T00:00:00", "event": "started"}]},
        {"timeline": [{"at": MOMENT, "event": "suspended", "waitsFor": {"kind": "Approval"}}]},
        {"criticalPath": [{"kind": "Tool"}]},
        {"criticalPath": [{"kind": "Tool", "seconds": "1"}]},
        {"usage": {"steps": 1}},
        {"usage": {"steps": 1, "tokens": 1, "costUSD": "much"}},
        {"time": {"queue": None}},
        {"time": [1]},
    ],
    ids=json.dumps,
)
def test_a_task_of_another_form_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], broken: dict[str, Any]
) -> None:
    answered_by(monkeypatch, httpx2.Response(200, json={**TASK, **broken}))
    assert "none of the task API" in failure(capsys, "task", "show", "t1", "--url", "http://gateway")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('{"detail": "not yours"}', "not yours"),
        ('{"detail": null}', '{"detail": null}'),
        ("[]", "[]"),
        ("null", "null"),
        ("<p>Denied</p>", "<p>Denied</p>"),
        ("", "Forbidden"),
    ],
)
def test_a_refusal_says_what_the_answer_says(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], body: str, said: str
) -> None:
    answered_by(monkeypatch, httpx2.Response(403, text=body))
    told = failure(capsys, "tasks", "--url", "http://gateway")
    assert told == f"flotilla: http://gateway/v1/tasks answered 403: {said}\n"


@pytest.mark.holds(
    "tasks.md",
    "Its errors are one line that says what to do, also where no gateway answers or the URL is none",
)
@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
@pytest.mark.parametrize(
    "url", ["http://[::1", "http://h:abc", "http://ä..b", "http://gateway..svc", "http://h\n"]
)
def test_a_url_that_is_none_is_one_line(
    capsys: pytest.CaptureFixture[str], words: list[str], url: str
) -> None:
    assert failure(capsys, *words, "--url", url).startswith("flotilla: --url is no URL: ")
