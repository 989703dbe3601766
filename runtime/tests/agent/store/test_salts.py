"""The salts of tenants, with a real Redis."""

from typing import Any

import pytest

from flotilla_runtime.agent.store.connections import connect
from flotilla_runtime.agent.store.salts import Salts
from flotilla_runtime.contract import QueueConfig, TaskKeys

pytestmark = pytest.mark.services


@pytest.mark.holds(
    "tasks.md",
    "With `isolateTenants` a model finds in its cache what the same tenant has sent, and nothing "
    "else; without it callers are told no cached tokens",
)
async def test_all_workers_of_a_fleet_have_the_same_salt_for_a_tenant_and_no_other(redis_server: Any) -> None:
    found: dict[tuple[str, str], set[str]] = {}
    for fleet in ("d/s", "d/s", "d/other"):
        config = QueueConfig(fleet=fleet, url=redis_server.url, password_path=redis_server.password_path)
        link = connect(config)
        salts = Salts(link, TaskKeys(fleet))
        for tenant in ("ann", "bob", "", "ann\udcff"):
            found.setdefault((fleet, tenant), set()).add(await salts.of(tenant))
        await link.aclose()
    assert all(len(each) == 1 for each in found.values())
    assert len(set().union(*found.values())) == len(found)
    redis_server.stop()
    redis_server.start()
    config = QueueConfig(fleet="d/s", url=redis_server.url, password_path=redis_server.password_path)
    link = connect(config)
    assert {await Salts(link, TaskKeys("d/s")).of("ann")} == found["d/s", "ann"], "also after its start"
    await link.aclose()
