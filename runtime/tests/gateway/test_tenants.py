"""Rights to name a tenant, and lists of its tasks, at a gateway process; the rules are in test_auth.py."""

from typing import Any

import pytest

from flotilla_runtime.contract import GatewayAuth
from leaks.planted import planted

pytestmark = [pytest.mark.services, pytest.mark.xdist_group("gateway")]


@pytest.mark.holds(
    "tasks.md",
    "Only who may act, or is trusted, names another tenant, in the body or in a header; lists show "
    "tasks by tenant",
)
@pytest.mark.attack("A caller names a tenant that is not its own")
async def test_only_a_trusted_caller_names_another_tenant(own_fleet: Any) -> None:
    for name in ("front", "ann"):
        (own_fleet.callers / name).write_text(planted(name))
    await own_fleet.start_gateway(GatewayAuth.SECRET, trusted=("front",))
    async with own_fleet.client(planted("front")) as front, own_fleet.client(planted("ann")) as ann:
        own = await ann.post("/v1/tasks", json={"input": "a", "tenant": "ann"})
        assert own.status_code == 201, "everybody may name its own"
        for refused in (
            await ann.post("/v1/tasks", json={"input": "a", "tenant": "bob"}),
            await ann.post("/v1/tasks", json={"input": "a"}, headers={"X-Flotilla-Tenant": "bob"}),
        ):
            assert refused.status_code == 403
            assert "you may not name the tenant bob: yours is ann" in refused.json()["detail"]
        assert len((await ann.get("/v1/tasks")).json()["tasks"]) == 1, "nothing is kept of what is refused"
        for number, header in ((1, {"X-Flotilla-Tenant": "bob"}), (2, {})):
            field = {} if header else {"tenant": "carl"}
            made = await front.post("/v1/tasks", json={"input": f"q{number}", **field}, headers=header)
            assert made.status_code == 201, made.text
        keyed = [
            await front.post("/v1/tasks", json={"input": "q", "idempotencyKey": "k", "tenant": tenant})
            for tenant in ("dora", "emil", "dora")
        ]
        assert [answer.status_code for answer in keyed] == [201, 201, 200], "a key is its tenant's own"
        shown = (await front.get("/v1/tasks", params={"tenant": "bob"})).json()["tasks"]
        assert [task["tenant"] for task in shown] == ["bob"]
        assert (await ann.get("/v1/tasks", params={"tenant": "bob"})).json()["tasks"] == []


@pytest.mark.holds(
    "tasks.md",
    "Only who may act, or is trusted, names another tenant, in the body or in a header; lists show "
    "tasks by tenant",
)
async def test_without_authentication_nobody_names_a_tenant(fleet: Any) -> None:
    async with fleet.client() as client:
        refused = await client.post("/v1/tasks", json={"input": "a", "tenant": "bob"})
        assert (refused.status_code, refused.json()["type"].rsplit("/")[-1]) == (403, "forbidden-tenant")
        [task] = [await fleet.task(await fleet.submit())]
        assert task["tenant"] == "anonymous"


@pytest.mark.holds("tasks.md", "A refusal by a quota says whose it is")
@pytest.mark.attack("One caller fills the queue")
async def test_a_caller_has_its_share_of_the_places_and_leaves_the_rest_to_others(own_fleet: Any) -> None:
    for name in ("ann", "bob"):
        (own_fleet.callers / name).write_text(planted(name))
    queue = own_fleet.queue.model_copy(update={"max_waiting": 5, "queue_percent": 60})
    await own_fleet.start_gateway(GatewayAuth.SECRET, queue=queue)
    async with own_fleet.client(planted("ann")) as ann, own_fleet.client(planted("bob")) as bob:
        codes = [
            (await ann.post("/v1/tasks", json={"input": f"q{number}"})).status_code for number in range(4)
        ]
        assert codes == [201, 201, 201, 429]
        refused = await ann.post("/v1/tasks", json={"input": "one more"})
        assert refused.json()["type"].endswith("/caller-full")
        assert "60 % of its 5 places" in refused.json()["detail"]
        assert (await bob.post("/v1/tasks", json={"input": "q"})).status_code == 201
