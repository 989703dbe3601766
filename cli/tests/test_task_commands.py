"""The commands about tasks against a scripted gateway; gateway tests in runtime/ ask a real one."""

import io
import json
import sys
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from flotilla_cli import task_commands
from flotilla_cli.approval_texts import arguments_of
from flotilla_cli.main import parser
from flotilla_cli.task_texts import plain, task_page
from flotilla_cli.tasks import TaskFailedError

APPROVAL: dict[str, Any] = {
    "call": "turn/1/tool/pay#approval",
    "target": "pay",
    "arguments": {"euro": 5},
    "untilTime": None,
}
EVENTS: list[dict[str, Any]] = [
    {"at": "2026-01-01T00:00:00Z", "event": "submitted"},
    {"at": "2026-01-01T00:00:00.500Z", "event": "started", "worker": "w1", "attempt": 1},
    {"at": "2026-01-01T00:00:01Z", "event": "callStarted", "call": "tool/pay", "target": "pay"},
    {
        "at": "2026-01-01T00:00:02Z",
        "event": "callEnded",
        "call": "tool/pay",
        "target": "pay",
        "outcome": "Failed",
        "problem": "no money",
        "seconds": 1.0,
    },
]
TASK: dict[str, Any] = {
    "id": "t1",
    "status": "Suspended",
    "waitsFor": {"kind": "Approval", "call": APPROVAL["call"], "untilTime": "2026-01-02T00:00:00Z"},
    "reason": None,
    "tenant": "red",
    "priority": "Interactive",
    "submittedAt": "2026-01-01T00:00:00Z",
    "input": "pay ann",
    "usage": {"steps": 2, "tokens": 30, "costUSD": 0.5},
    "time": {"queue": 0.5, "model": 1.0, "tool": 1.0, "other": 0.0},
    "approvals": [APPROVAL],
    "timeline": EVENTS,
}
UNKNOWN: dict[str, Any] = {
    **TASK,
    "waitsFor": {"kind": "Effect", "call": "tool/pay", "untilTime": None},
    "approvals": [],
}
RECEIPT = {"id": "t1", "status": "Waiting"}


class Gateway:
    """Answers GET with a task or a page and POST with `answer`; keeps what was posted."""

    def __init__(self, task: Any = TASK, answer: Any = RECEIPT, status: int = 200) -> None:
        self.posted: list[tuple[str, Any]] = []
        self.asked: list[str] = []
        self.status = status
        self._task, self._answer = task, answer
        self.client = httpx2.Client(base_url="http://gateway", transport=httpx2.MockTransport(self._reply))

    def _reply(self, request: httpx2.Request) -> httpx2.Response:
        if request.method == "GET":
            self.asked.append(str(request.url).removeprefix("http://gateway"))
            return httpx2.Response(200, json=self._task)
        self.posted.append((request.url.path, json.loads(request.content or b"null")))
        return httpx2.Response(self.status, json=self._answer)


def done(ask: Callable[..., tuple[dict[str, Any], str]], gateway: Gateway, *words: str) -> str:
    return ask(gateway.client, parser().parse_args([*words, "--url", "http://gateway"]))[1]


@pytest.mark.holds(
    "tasks.md", "`flotilla` lists and shows tasks, decides, resolves, cancels and replays, by URL"
)
def test_tasks_are_listed_as_asked_for() -> None:
    gateway = Gateway({"tasks": [TASK], "nextCursor": "t0"})
    text = done(task_commands.tasks, gateway, "tasks", "--status", "Suspended", "--waits-for", "Approval")
    assert gateway.asked == ["/v1/tasks?status=Suspended&waitsFor=Approval"]
    heading, row, more = text.splitlines()
    assert heading.split()[:2] == ["ID", "STATUS"]
    assert row.split() == [
        *("t1", "Suspended", "Approval", "turn/1/tool/pay#approval", "red", "Interactive"),
        "2026-01-01T00:00:00Z",
    ]
    assert more == "more: --cursor t0"
    assert done(task_commands.tasks, Gateway({"tasks": [], "nextCursor": None}), "tasks") == "no tasks"


@pytest.mark.holds(
    "tasks.md", "`flotilla` lists and shows tasks, decides, resolves, cancels and replays, by URL"
)
def test_a_task_is_shown_with_its_timeline_and_how_to_decide() -> None:
    lines = done(task_commands.show, Gateway(), "task", "show", "t1").splitlines()
    assert lines[1].split()[:2] == ["status", "Suspended"]
    shown = lines.index("▌ waits for approval")
    assert lines[shown + 2 : shown + 5] == ["    {", '      "euro": 5', "    }"]
    assert "▌ flotilla approve t1 --call 'turn/1/tool/pay#approval'" in lines
    assert lines[-1].split() == ["2.00", "callEnded", "tool/pay", "pay", "Failed", "no", "money", "1.00", "s"]
    assert lines[-3].split() == ["0.50", "started", "attempt", "1,", "w1"]


@pytest.mark.holds(
    "observability.md",
    "The critical path is the longest chain of calls and waits, never longer than the task, in the "
    "API and marked in the timeline",
)
def test_the_critical_path_is_told_and_marked_in_the_timeline() -> None:
    steps = [
        {"call": None, "kind": "Queue", "target": None, "seconds": 0.5, "task": None},
        {"call": "tool/pay", "kind": "Tool", "target": "pay", "seconds": 1.0, "task": None},
        {"call": "ask", "kind": "Spawn", "target": "", "seconds": 0.25, "task": "t7"},
    ]
    lines = task_page({**TASK, "criticalPath": steps}).splitlines()
    first = lines.index("critical path: 1.75 s in 3 steps")
    assert [line.split() for line in lines[first + 1 : first + 4]] == [
        ["1.00", "s", "Tool", "tool/pay", "pay"],
        ["0.50", "s", "Queue"],
        ["0.25", "s", "Spawn", "ask", "task", "t7"],
    ]
    assert lines[-1].split()[:4] == ["*", "2.00", "callEnded", "tool/pay"]
    assert not lines[-3].startswith("*")
    assert "critical path: 20.00 s in 20 steps, the longest 10" in task_page(
        {**TASK, "criticalPath": [steps[1]] * 20}
    )


@pytest.mark.holds(
    "tasks.md", "`flotilla` lists and shows tasks, decides, resolves, cancels and replays, by URL"
)
@pytest.mark.parametrize(
    ("words", "body"),
    [
        pytest.param([], {"approved": True}, id="approved"),
        pytest.param(["--refuse", "--comment", "no"], {"approved": False, "comment": "no"}, id="refused"),
    ],
)
def test_a_decision_is_sent(words: list[str], body: dict[str, Any]) -> None:
    gateway = Gateway()
    text = done(task_commands.approve, gateway, "approve", "t1", "--call", "x", *words)
    assert gateway.posted == [("/v1/tasks/t1/approve", {"call": "x", **body})]
    assert "the task is Waiting" in text


class Terminal(io.StringIO):
    """A terminal at which this is typed, or that shows what is printed."""

    def isatty(self) -> bool:
        return True


@pytest.mark.holds(
    "tasks.md",
    "`flotilla approve` decides on a call that is named, or that it has shown in whole at a terminal",
)
@pytest.mark.attack("The arguments of a call are so long that who approves it does not see their end")
@pytest.mark.parametrize(
    ("typed", "words", "approved"),
    [
        pytest.param("y\n", [], True, id="yes"),
        pytest.param("Yes\n", ["--refuse"], False, id="yes, it is refused"),
        pytest.param("n\n", [], None, id="no"),
        pytest.param("\n", [], None, id="nothing"),
        pytest.param("", [], None, id="the end of the input"),
        pytest.param(None, [], None, id="no terminal"),
        pytest.param(None, ["--refuse"], None, id="no terminal, refused"),
    ],
)
def test_a_call_that_is_not_named_is_shown_in_whole_before_anything_is_decided(
    monkeypatch: pytest.MonkeyPatch, typed: str | None, words: list[str], approved: bool | None
) -> None:
    told = io.StringIO() if typed is None else Terminal()
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n") if typed is None else Terminal(typed))
    monkeypatch.setattr(sys, "stderr", told)
    evil = f"{'x' * 200_000} and \x1b[2Kthe rest\u202e"
    gateway = Gateway({**TASK, "approvals": [{**APPROVAL, "target": "p\ray", "arguments": {"a": evil}}]})
    if approved is None:
        option = "".join(f" {word}" for word in words)
        end = "" if typed is not None else rf".*; run flotilla approve t1 --call '{APPROVAL['call']}'{option}"
        with pytest.raises(TaskFailedError, match=f"^nothing is decided{end}$"):
            done(task_commands.approve, gateway, "approve", "t1", *words)
        assert gateway.posted == []
    else:
        done(task_commands.approve, gateway, "approve", "t1", *words)
        assert [body for _, body in gateway.posted] == [{"call": APPROVAL["call"], "approved": approved}]
    shown = told.getvalue()
    assert arguments_of(shown) == {"a": evil}
    assert r"…(200,000 times x)… and \u001b[2Kthe rest\u202e" in shown.replace("\n    ↪ ", "")
    if typed is not None:
        assert r"this call of p\ray for the tenant red? (y/n): " in shown.splitlines()[-1], "the target again"


@pytest.mark.holds(
    "tasks.md", "`flotilla` lists and shows tasks, decides, resolves, cancels and replays, by URL"
)
def test_it_is_said_whether_a_call_happened() -> None:
    gateway = Gateway(UNKNOWN)
    done(task_commands.resolve, gateway, "resolve", "t1", "--happened", "--result", '{"paid": 5}')
    done(task_commands.resolve, gateway, "resolve", "t1", "--not-happened")
    assert [body for _, body in gateway.posted] == [
        {"call": "tool/pay", "outcome": "Happened", "result": {"paid": 5}},
        {"call": "tool/pay", "outcome": "NotHappened"},
    ]


@pytest.mark.holds(
    "tasks.md", "`flotilla` lists and shows tasks, decides, resolves, cancels and replays, by URL"
)
def test_a_task_is_cancelled_and_replayed() -> None:
    gateway = Gateway(answer={"id": "t2", "status": "Cancelled"})
    assert done(task_commands.cancel, gateway, "cancel", "t1") == "cancelled"
    assert done(task_commands.replay, gateway, "replay", "t1") == "the new task is t2"
    done(task_commands.replay, gateway, "replay", "t1", "--from", "a/b", "--repeat-effects")
    keys = [body.pop("idempotencyKey") for _, body in gateway.posted[1:]]
    assert len(set(keys)) == 2
    assert [body for _, body in gateway.posted[1:]] == [
        {"repeatEffects": False},
        {"repeatEffects": True, "from": "a/b"},
    ]


@pytest.mark.holds(
    "tasks.md",
    "A replay that is sent again with its key makes no second task, and `flotilla replay` sends one",
)
def test_a_replay_that_is_answered_with_503_is_sent_again_with_its_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gateway = Gateway(status=503)

    def recovers(_: float) -> None:
        gateway.status = 200

    monkeypatch.setattr("time.sleep", recovers)
    assert done(task_commands.replay, gateway, "replay", "t1") == "the new task is t1"
    first, second = (body["idempotencyKey"] for _, body in gateway.posted)
    assert first == second


@pytest.mark.holds(
    "tasks.md",
    "Its errors are one line that says what to do, also where no gateway answers or the URL is none",
)
@pytest.mark.parametrize(
    ("ask", "gateway", "words", "says"),
    [
        pytest.param(
            task_commands.approve,
            Gateway({**TASK, "approvals": []}),
            ["approve", "t1"],
            "nothing of it waits for approval",
            id="nothing to decide",
        ),
        pytest.param(
            task_commands.approve,
            Gateway({**TASK, "approvals": [APPROVAL, {**APPROVAL, "call": "b"}]}),
            ["approve", "t1"],
            "nothing is decided: several calls wait; choose one by --call",
            id="several to decide",
        ),
        pytest.param(
            task_commands.approve,
            Gateway(answer={"detail": "boss approved it; that stands"}, status=409),
            ["approve", "t1", "--call", APPROVAL["call"]],
            "answered 409: boss approved it; that stands",
            id="decided meanwhile",
        ),
        pytest.param(
            task_commands.resolve,
            Gateway(),
            ["resolve", "t1", "--happened"],
            "it does not wait to be told whether a call happened",
            id="nothing unknown",
        ),
        pytest.param(
            task_commands.resolve,
            Gateway(UNKNOWN),
            ["resolve", "t1", "--happened", "--result", "{"],
            "--result is not JSON",
            id="no JSON",
        ),
        pytest.param(
            task_commands.resolve,
            Gateway(UNKNOWN),
            ["resolve", "t1", "--happened", "--result", '{"a": NaN}'],
            "--result is not JSON: Out of range float values",
            id="no number",
        ),
        pytest.param(
            task_commands.show, Gateway(), ["task", "show", "../x"], "flotilla tasks lists them", id="no id"
        ),
    ],
)
def test_an_error_says_what_to_do(ask: Any, gateway: Gateway, words: list[str], says: str) -> None:
    with pytest.raises(TaskFailedError, match=says.replace("(", r"\(")):
        done(ask, gateway, *words)


@pytest.mark.attack("The arguments of a call draw on the terminal of who approves it")
def test_nothing_that_others_wrote_draws_on_the_terminal() -> None:
    evil = "\x1b[2Kapproved\r\n\u202eevil\x07"
    call = f"tool/{evil}'; rm -rf ~'"
    wicked = {
        **TASK,
        "input": evil,
        "reason": evil,
        "approvals": [{**APPROVAL, "call": call, "target": evil, "arguments": {"a": evil}}],
        "timeline": [{**EVENTS[3], "problem": evil, "by": evil}],
    }
    page = task_page(wicked)
    assert [letter for letter in page if letter != "\n" and not letter.isprintable()] == []
    assert "--call 'tool/" in page
    assert "'\"'\"'; rm -rf ~'\"'\"''" in page.replace("\n▌            ↪ ", ""), "quoted for a shell"
    assert len(plain("x" * 5000)) < 2100
