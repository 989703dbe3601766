"""Approvals and signals through a gateway: what waits, who may decide, and what comes of it; real servers.

A test plays the worker with the store. What a worker makes of an answer is in the agent's tests.
"""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from flotilla_cli.approval_texts import arguments_of
from flotilla_cli.main import main
from flotilla_runtime.agent.journal import CallKind, Done, Intended, WaitKind
from flotilla_runtime.agent.protocols import Waits
from flotilla_runtime.agent.store.connections import connect
from flotilla_runtime.agent.store.task_store import TaskStore
from flotilla_runtime.agent.tasks import Claim
from leaks.planted import planted

pytestmark = [pytest.mark.services, pytest.mark.xdist_group("gateway")]

CALL = "turn/1/tool/pay#approval"
FAR = 4_000_000_000_000
ARGUMENTS = {"to": "ann", "euro": 500}
DESTINATION = "POST https://bank.example/pay"


async def submit(fleet: Any, key: str = planted("ann")) -> str:
    async with fleet.client(key) as client:
        return str((await client.post("/v1/tasks", json={"input": "why?"})).json()["id"])


async def ask(fleet: Any, task: str, until: int = FAR, arguments: Any = ARGUMENTS) -> Claim:
    """Play a worker whose agent calls a tool that needs approval."""
    store = TaskStore(connect(fleet.queue), fleet.queue)
    [claim] = await store.claim("w1", 1)
    assert claim.id == task
    intent = Intended(
        at=1,
        call=CALL,
        kind=CallKind.APPROVE,
        target="pay",
        arguments=arguments,
        until=until,
        destination=DESTINATION,
    )
    written = await store.append(claim, 2, [intent])
    assert await store.suspend(claim, written.length, Waits(kind=WaitKind.APPROVAL, call=CALL, until=until))
    await store.close()
    return claim


async def decide(
    fleet: Any, task: str, key: str, approved: bool, **fields: Any
) -> tuple[int, dict[str, Any]]:
    async with fleet.client(key) as client:
        body = {"call": CALL, "approved": approved, **fields}
        answer = await client.post(f"/v1/tasks/{task}/approve", json=body)
        return answer.status_code, answer.json()


def kind(problem: dict[str, Any]) -> str:
    return str(problem["type"]).rsplit("/")[-1]


@pytest.mark.holds(
    "tasks.md",
    "Who may approve finds what waits, reads what is asked, and decides; who decided is in the journal",
)
@pytest.mark.holds(
    "tasks.md",
    "Who may approve finds and reads a task from the call's intent until nothing of it is to be "
    "decided, whatever else it does",
)
async def test_who_may_approve_finds_what_waits_and_decides(callers: Any) -> None:
    task = await submit(callers)
    await ask(callers, task)
    async with callers.client(planted("boss")) as boss:
        assert (await boss.get("/v1/tasks")).json()["tasks"] == [], "its own"
        found = (await boss.get("/v1/tasks", params={"waitsFor": "Approval"})).json()["tasks"]
        assert [each["id"] for each in found] == [task]
        shown = (await boss.get(f"/v1/tasks/{task}")).json()
        assert shown["approvals"] == [
            {
                "call": CALL,
                "target": "pay",
                "destination": DESTINATION,
                "arguments": ARGUMENTS,
                "untilTime": "2096-10-02T07:06:40Z",
            }
        ]
        assert (await callers.get(f"{callers.status_url}/v1/status")).json()["waitingForApproval"] == 1
        for action in ("cancel", "signal", "resolve"):
            body = {"name": "n"} if action == "signal" else {"call": CALL, "outcome": "Happened"}
            answer = await boss.post(f"/v1/tasks/{task}/{action}", json=body)
            assert answer.status_code == 404, "reading it to decide is all that it may"
        assert (await boss.get(f"/v1/tasks/{task}/events")).status_code == 404
        assert await decide(callers, task, planted("boss"), True, comment="go") == (
            200,
            {"id": task, "status": "Waiting"},
        )
        assert (await boss.get(f"/v1/tasks/{task}")).status_code == 404, "it waits no longer"
        assert (await boss.get("/v1/tasks", params={"waitsFor": "Approval"})).json()["tasks"] == []


@pytest.mark.holds(
    "tasks.md",
    "Who may approve finds and reads a task from the call's intent until nothing of it is to be "
    "decided, whatever else it does",
)
async def test_who_may_approve_finds_and_reads_what_waits_while_the_task_runs(callers: Any) -> None:
    task = await submit(callers)
    store = TaskStore(connect(callers.queue), callers.queue)
    [claim] = await store.claim("w1", 1)
    asking = Intended(at=1, call=CALL, kind=CallKind.APPROVE, target="pay", arguments=ARGUMENTS, until=FAR)
    await store.append(claim, 2, [asking, Intended(at=1, call="slow", kind=CallKind.TOOL, target="slow")])

    async def found(key: str) -> list[str]:
        async with callers.client(key) as client:
            page = (await client.get("/v1/tasks", params={"waitsFor": "Approval"})).json()
            return [each["id"] for each in page["tasks"]]

    async with callers.client(planted("boss")) as boss:
        assert [await found(planted(name)) for name in ("boss", "ann", "bob")] == [[task], [task], []]
        shown = (await boss.get(f"/v1/tasks/{task}")).json()
        assert (shown["status"], [each["call"] for each in shown["approvals"]]) == ("Running", [CALL])
        assert await decide(callers, task, planted("boss"), True) == (200, {"id": task, "status": "Running"})
        assert (await boss.get(f"/v1/tasks/{task}")).status_code == 404, "nothing is left to decide"
        assert (await found(planted("boss")), await found(planted("ann"))) == ([], [])
    async with callers.client(planted("ann")) as ann:
        assert not (await ann.get(f"/v1/tasks/{task}")).json().get("approvals"), "no worker has noticed yet"
    await store.close()


@pytest.mark.holds("tasks.md", "Large arguments are shown in whole to who may approve")
@pytest.mark.attack("The arguments of a call are so long that who approves it does not see their end")
async def test_large_arguments_are_shown_in_whole_to_who_may_approve(callers: Any) -> None:
    """They are kept apart from the journal."""
    task, arguments = await submit(callers), {"to": "ann", "note": "x" * 200_000, "euro": 500}
    await ask(callers, task, arguments=arguments)
    async with callers.client(planted("boss")) as boss:
        (approval,) = (await boss.get(f"/v1/tasks/{task}")).json()["approvals"]
    assert approval["arguments"] == arguments


@pytest.mark.holds(
    "tasks.md",
    "Who may approve finds what waits, reads what is asked, and decides; who decided is in the journal",
)
async def test_who_decided_stands_in_the_journal(callers: Any) -> None:
    task = await submit(callers)
    await ask(callers, task)
    await decide(callers, task, planted("boss"), False, comment="too much")
    store = TaskStore(connect(callers.queue), callers.queue)
    [claim] = await store.claim("w2", 1)
    came = await store.came(claim, CALL, ())
    assert came is not None
    done = Done(at=1, call=CALL, outcome="Refused", took_ms=0, value=came.value)  # type: ignore[arg-type]
    await store.append(claim, 6, [done])
    await store.close()
    async with callers.client(planted("ann")) as ann:
        shown = (await ann.get(f"/v1/tasks/{task}")).json()
    (ended,) = [event for event in shown["timeline"] if event["event"] == "callEnded"]
    assert (ended["kind"], ended["outcome"], ended["by"]) == ("Approve", "Refused", "secret:boss")
    assert shown["approvals"] == []


@pytest.mark.holds("tasks.md", "Nobody decides without the verb, twice, too late or unasked")
@pytest.mark.attack("A caller without the verb `approve` decides, its own task among others")
async def test_nobody_decides_without_the_verb_not_even_the_submitter(callers: Any) -> None:
    task = await submit(callers)
    await ask(callers, task)
    for key in (planted("ann"), planted("bob")):
        status, problem = await decide(callers, task, key, True)
        assert (status, kind(problem)) == (403, "forbidden")
        assert "gateway.auth.approvers" in problem["detail"]
    async with callers.client(planted("bob")) as bob:
        assert (await bob.get("/v1/tasks", params={"waitsFor": "Approval"})).json()["tasks"] == []
        assert (await bob.get(f"/v1/tasks/{task}")).status_code == 404
    async with callers.client(planted("ann")) as ann:
        assert (await ann.get(f"/v1/tasks/{task}")).json()["status"] == "Suspended"
        resolved = await ann.post(
            f"/v1/tasks/{task}/resolve",
            json={"call": CALL, "outcome": "Happened", "result": {"approved": True}},
        )
        assert resolved.status_code == 409, "an approval is not resolved around"
        signalled = await ann.post(
            f"/v1/tasks/{task}/signal", json={"name": CALL, "value": {"approved": True}}
        )
        assert signalled.status_code == 200
        assert (await ann.get(f"/v1/tasks/{task}")).json()["status"] == "Suspended", "nor signalled"


@pytest.mark.holds("tasks.md", "Nobody decides without the verb, twice, too late or unasked")
@pytest.mark.attack("Two decide at once, or one changes what another decided")
async def test_the_first_decision_stands_and_the_second_is_told(callers: Any) -> None:
    for _ in range(5):
        task = await submit(callers)
        await ask(callers, task)
        answers = await asyncio.gather(
            decide(callers, task, planted("boss"), True, comment="go"),
            decide(callers, task, planted("chief"), False),
        )
        statuses = [status for status, _ in answers]
        assert sorted(statuses) == [200, 409]
        (problem,) = [body for status, body in answers if status == 409]
        first = "secret:boss approved" if statuses[0] == 200 else "secret:chief refused"
        assert kind(problem) == "already-decided"
        assert problem["detail"].startswith(first), problem
        winner = (planted("boss"), True) if statuses[0] == 200 else (planted("chief"), False)
        comment = "go" if winner[1] else None
        assert (await decide(callers, task, *winner, comment=comment))[0] == 200, (
            "whose answer was lost, sends again"
        )
        async with callers.client(planted("ann")) as ann:
            await ann.post(f"/v1/tasks/{task}/cancel")


@pytest.mark.holds("tasks.md", "Nobody decides without the verb, twice, too late or unasked")
@pytest.mark.attack("Somebody approves after the deadline, or what nobody asked")
async def test_a_decision_that_comes_too_late_or_unasked_changes_nothing(callers: Any) -> None:
    task = await submit(callers)
    status, problem = await decide(callers, task, planted("boss"), True)
    assert (status, kind(problem)) == (409, "nothing-to-approve")
    store = TaskStore(connect(callers.queue), callers.queue)
    loaded = await store.load(task)
    await store.close()
    assert loaded is not None
    await ask(callers, task, until=loaded.read_at + 300)
    await asyncio.sleep(0.4)
    status, problem = await decide(callers, task, planted("boss"), True)
    assert (status, kind(problem)) == (409, "too-late")
    assert "deadline" in problem["detail"]
    assert (await decide(callers, "0" * 26, planted("boss"), True))[0] == 404
    assert (await decide(callers, "tasks", planted("boss"), True))[0] == 404


async def test_a_wrong_decision_or_signal_names_its_fields(callers: Any) -> None:
    async with callers.client(planted("boss")) as boss:
        task = "0" * 26
        for action, body, field in (
            ("approve", {"call": CALL}, "approved"),
            ("approve", {"call": CALL, "approved": "yes"}, "approved"),
            ("approve", {"call": CALL, "approved": True, "comment": "x" * 2001}, "comment"),
            ("signal", {"value": 1}, "name"),
            ("signal", {"name": "n", "to": "x"}, "to"),
        ):
            answer = await boss.post(f"/v1/tasks/{task}/{action}", json=body)
            assert answer.status_code == 400
            assert [error["field"] for error in answer.json()["errors"]] == [field]


@pytest.mark.holds(
    "tasks.md", "A signal is kept until one call has taken it, within bounds, and wakes the task"
)
async def test_a_signal_wakes_a_task_of_ones_own_and_no_other(callers: Any) -> None:
    task = await submit(callers)
    async with callers.client(planted("bob")) as bob, callers.client(planted("ann")) as ann:
        path = f"/v1/tasks/{task}/signal"
        assert (await bob.post(path, json={"name": "news"})).status_code == 404
        answer = await ann.post(path, json={"name": "news", "value": {"a": 1}})
        assert (answer.status_code, answer.json()) == (200, {"id": task, "status": "Waiting"})
        for _ in range(99):
            await ann.post(path, json={"name": "news"})
        full = await ann.post(path, json={"name": "news"})
        assert (full.status_code, kind(full.json())) == (429, "too-many-signals")
        await ann.post(f"/v1/tasks/{task}/cancel")
        ended = await ann.post(path, json={"name": "news"})
        assert (ended.status_code, kind(ended.json())) == (409, "already-ended")


@pytest.mark.holds(
    "tasks.md", "NaN and infinite numbers reach no task: the task API and the front ends name the field"
)
@pytest.mark.attack("A caller sends NaN or an infinite number, which other readers of JSON refuse")
@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999"])
async def test_no_number_that_is_none_reaches_a_task(callers: Any, fleet: Any, number: str) -> None:
    """Python's JSON takes these numbers and others do not: through the task API and each front end."""
    task = await submit(callers)
    said = f'"role": "ROLE_USER", "messageId": "1", "parts": [{{"text": "a"}}], "metadata": {{"x": {number}}}'
    message = f"{{{said}}}"
    sent = f'{{"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {{"message": {message}}}}}'
    async with callers.client(planted("ann")) as ann, fleet.client() as anybody:
        for client, path, body in (
            (ann, f"/v1/tasks/{task}/signal", f'{{"name": "n", "value": {{"a": {number}}}}}'),
            (ann, f"/v1/tasks/{task}/resolve", f'{{"call": "a", "outcome": "Happened", "result": {number}}}'),
            (ann, "/v1/tasks", f'{{"input": "a", "metadata": {{"a": {number}}}}}'),
            (anybody, "/a2a", sent),
            (anybody, "/v1/responses", f'{{"model": "m", "input": "a", "metadata": {{"a": {number}}}}}'),
            (anybody, "/v1/chat/completions", f'{{"model": "m", "messages": [], "top_p": {number}}}'),
        ):
            answer = await client.post(path, content=body)
            assert answer.status_code == 400, (path, answer.text)
        assert (await anybody.get("/v1/tasks")).json()["tasks"] == []
        shown = (await ann.get(f"/v1/tasks/{task}")).text
        assert (number in shown, json.loads(shown)["status"]) == (False, "Waiting")


@pytest.mark.holds(
    "tasks.md", "`flotilla` lists and shows tasks, decides, resolves, cancels and replays, by URL"
)
async def test_a_call_is_approved_from_the_command_line(
    callers: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "token").write_text(planted("boss") + "\n")
    task = await submit(callers)
    await ask(callers, task)

    async def flotilla(*words: str) -> tuple[int, str]:
        where = ["--url", callers.gateway_url, "--token-file", str(tmp_path / "token")]
        status = await asyncio.to_thread(main, [*words, *where])
        told = capsys.readouterr()
        return status, told.out + told.err

    listed, text = await flotilla("tasks", "--waits-for", "Approval")
    assert (listed, task in text) == (0, True)
    assert f"flotilla approve {task} --call '{CALL}'" in (await flotilla("task", "show", task))[1]
    status, text = await flotilla("approve", task)
    assert (status, arguments_of(text)) == (1, ARGUMENTS), "shown, and not decided"
    assert f"▌ goes to    {DESTINATION}" in text
    status, text = await flotilla("approve", task, "--call", CALL, "-o", "json")
    assert (status, json.loads(text)) == (0, {"id": task, "status": "Waiting"})
    status, text = await flotilla("approve", task, "--call", CALL, "--refuse")
    assert (status, "secret:boss approved" in text) == (1, True)
