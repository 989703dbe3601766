"""The password of a fleet's Redis is deleted while everything runs: a real API server, KWOK's nodes."""

from collections.abc import Iterator

import pytest

from local_cluster.control_plane import ControlPlane
from tests.builders.api_objects import changed, smallest
from tests.support.kinds import Operators, create_volume_for
from tests.support.processes import OperatorProcess
from tests.support.waiting import eventually

pytestmark = [pytest.mark.apiserver, pytest.mark.timeout(900)]

FLEETS = "/apis/flotilla.dev/v1alpha1/namespaces/{}/agentfleets"
SWEEP_INTERVAL_SECONDS = 5  # only a sweep notices a secret that is gone
MADE = "flotilla.dev/password-made"


@pytest.fixture
def operator(operators: Operators) -> OperatorProcess:
    return operators.of("AgentFleet", node_gpus=0, loop={"sweepIntervalSeconds": SWEEP_INTERVAL_SECONDS})


@pytest.fixture
def volume(running_control_plane: ControlPlane, running_namespace: str) -> Iterator[None]:
    path = create_volume_for(running_control_plane, running_namespace, "x-redis", name=running_namespace)
    yield
    running_control_plane.client.delete(path)


@pytest.mark.holds(
    "decisions/0003-redis-for-tasks.md", "A deleted password is made anew and reaches everybody"
)
@pytest.mark.usefixtures("volume")
def test_a_deleted_password_is_made_anew_and_reaches_everybody(
    running_control_plane: ControlPlane, running_namespace: str, operator: OperatorProcess
) -> None:
    client, core = running_control_plane.client, f"/api/v1/namespaces/{running_namespace}"
    fleets = FLEETS.format(running_namespace)
    secret = f"{core}/secrets/x-redis"

    def queue() -> str:
        conditions = (client.get(f"{fleets}/x").get("status") or {}).get("conditions") or []
        return next((str(c["reason"]) for c in conditions if c["type"] == "QueueReady"), "")

    def pods() -> dict[str, str | None]:
        """By UID, when the password was made that a pod of Redis or of the gateway was started with."""
        return {
            pod["metadata"]["uid"]: pod["metadata"]["annotations"].get(MADE)
            for pod in client.get(f"{core}/pods")["items"]
            if "deletionTimestamp" not in pod["metadata"]
        }

    client.create(fleets, changed(smallest("AgentFleet", name="x", namespace=running_namespace)))
    eventually(lambda: queue() == "RedisAvailable" and len(pods()) == 3)
    assert set(pods().values()) == {None}
    first, before = client.get(secret), pods()
    client.delete(secret)
    eventually(
        lambda: client.exists(secret) and client.get(secret)["metadata"]["uid"] != first["metadata"]["uid"]
    )
    assert client.get(secret)["data"]["password"] != first["data"]["password"]

    def started_anew() -> bool:
        """Redis and both gateways run with the new password"""
        now = pods()
        return len(now) == 3 and not now.keys() & before.keys() and None not in now.values()

    eventually(started_anew)
    eventually(lambda: queue() == "RedisAvailable")
    settled = pods()
    assert len(set(settled.values())) == 1, "one loss, one restart"
    assert operator.failures() == []
