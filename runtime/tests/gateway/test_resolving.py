"""A task that waits to be told whether a call happened: what callers see, and who may say; real servers.

A test plays the worker with the store. What a worker makes of the answer is in the agent's tests.
"""

from typing import Any

import pytest

from flotilla_runtime.agent.journal import CallKind, Intended, WaitKind
from flotilla_runtime.agent.protocols import Waits
from flotilla_runtime.agent.store.connections import connect
from flotilla_runtime.agent.store.task_store import TaskStore
from flotilla_runtime.contract import Effect, GatewayAuth
from leaks.planted import planted

pytestmark = [pytest.mark.services, pytest.mark.xdist_group("gateway")]

CALL = "turn/1/tool/pay"
UNTIL = 4_000_000_000_000


async def suspend(fleet: Any, task: str) -> None:
    """Play a worker that finds an Unsafe call without a result."""
    store = TaskStore(connect(fleet.queue), fleet.queue)
    [claim] = await store.claim("w1", 1)
    assert claim.id == task
    intent = Intended(
        at=1, call=CALL, kind=CallKind.TOOL, target="pay", arguments={"to": "ann"}, effect=Effect.UNSAFE
    )
    written = await store.append(claim, 2, [intent])
    assert await store.suspend(claim, written.length, Waits(kind=WaitKind.EFFECT, call=CALL, until=UNTIL))
    await store.close()


@pytest.mark.holds(
    "tasks.md",
    "A task that waits to be told whether a call happened is shown, found and resolved by who may read it",
)
async def test_an_unknown_effect_is_shown_found_and_resolved(fleet: Any) -> None:
    other, task = await fleet.submit("another"), await fleet.submit()
    async with fleet.client() as client:
        await client.post(f"/v1/tasks/{other}/cancel")
        await suspend(fleet, task)
        shown = await fleet.task(task)
        assert (shown["status"], shown["waitsFor"]) == (
            "Suspended",
            {"kind": "Effect", "call": CALL, "untilTime": "2096-10-02T07:06:40Z"},
        )
        for query in ({"waitsFor": "Effect"}, {"status": "Suspended"}):
            found = (await client.get("/v1/tasks", params=query)).json()["tasks"]
            assert [each["id"] for each in found] == [task]
        assert (await client.get("/v1/tasks", params={"waitsFor": "Timer"})).json()["tasks"] == []
        status = (await fleet.get(f"{fleet.status_url}/v1/status")).json()
        assert (status["suspended"], status["unknownEffects"], status["inFlight"]) == (1, 1, 0)
        path = f"/v1/tasks/{task}/resolve"
        wrong = await client.post(path, json={"call": "turn/2/tool/pay", "outcome": "Happened"})
        assert (wrong.status_code, wrong.json()["type"].rsplit("/")[-1]) == (409, "nothing-unknown")
        said = {"call": CALL, "outcome": "Happened", "result": {"paid": 7}}
        resolved = await client.post(path, json=said)
        assert (resolved.status_code, resolved.json()) == (200, {"id": task, "status": "Waiting"})
        assert (await client.post(path, json=said)).status_code == 200, (
            "the answer was lost, and it is sent again"
        )
        shown = await fleet.task(task)
        assert shown["waitsFor"] is None
        assert [moment["event"] for moment in shown["timeline"]] == [
            *("submitted", "started", "callStarted", "suspended", "resolved", "resumed")
        ]
        assert (shown["timeline"][4]["by"], shown["timeline"][4]["outcome"]) == ("anonymous", "Happened")


@pytest.mark.holds(
    "tasks.md",
    "A task that waits to be told whether a call happened is shown, found and resolved by who may read it",
)
@pytest.mark.attack("A caller says of somebody else's call that it happened")
async def test_nobody_resolves_a_task_that_it_may_not_read(own_fleet: Any) -> None:
    for name in ("ann", "bob"):
        (own_fleet.callers / name).write_text(planted(name))
    await own_fleet.start_gateway(GatewayAuth.SECRET)
    async with own_fleet.client(planted("ann")) as ann, own_fleet.client(planted("bob")) as bob:
        task = (await ann.post("/v1/tasks", json={"input": "a"})).json()["id"]
        await suspend(own_fleet, task)
        path, said = f"/v1/tasks/{task}/resolve", {"call": CALL, "outcome": "NotHappened"}
        assert (await bob.post(path, json=said)).status_code == 404
        assert (await ann.get(f"/v1/tasks/{task}")).json()["status"] == "Suspended"
        assert (await ann.post(path, json=said)).status_code == 200
