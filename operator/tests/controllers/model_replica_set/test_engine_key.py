"""When the engines' key is made, and when it is judged to be lost."""

from datetime import timedelta
from typing import Any

import pytest

from flotilla_operator.controllers.model_replica_set.observe.engine_key import EngineKey, engine_key_of
from flotilla_operator.workloads.router import router_manifests
from tests.builders.model_replica_set import IMAGES, OWNER, spec_of
from tests.builders.pods import NOW
from tests.builders.world import Secrets, world

LATER = NOW + timedelta(seconds=16)


def keys(**entries: bytes) -> Secrets:
    """The set's secret, or none."""
    return Secrets({"llama-engine-key": entries} if entries else {}, controller_uid=OWNER.uid)


def routers(**spec: Any) -> dict[str, Any]:
    (found,) = (m for m in router_manifests(OWNER, spec_of(**spec), IMAGES) if m["kind"] == "Deployment")
    return {**found, "metadata": {**found["metadata"], "uid": "uid-routers"}}


@pytest.mark.holds("router.md", "The operator makes the engines' key once, and the routers send it")
@pytest.mark.holds("decisions/0009-engine-key.md", "The first key restarts nothing")
async def test_the_first_key_restarts_nothing() -> None:
    """Neither in a new set nor in one whose routers are of a release without keys."""
    without = routers(engine={"env": [{"name": "VLLM_API_KEY", "value": "mine"}]})
    for around in (world(), world(without)):
        key = await engine_key_of(OWNER, spec_of(), around, {}, NOW)
        assert key.missing
        assert key.made_anew == ""


async def test_a_first_key_that_is_refused_is_asked_for_again_and_is_no_loss() -> None:
    asked: dict[str, str] = {}
    for seconds in (0, 60):
        now = NOW + timedelta(seconds=seconds)
        key = await engine_key_of(OWNER, spec_of(), world(), asked, now)
        assert (key.missing, key.made_anew, key.lost) == (True, "", False)


@pytest.mark.holds(
    "router.md",
    "A deleted key is made anew with the event `EngineKeyLost`, and replicas and routers are replaced",
)
async def test_a_key_that_was_deleted_is_made_anew_with_the_time() -> None:
    secrets, asked = keys(), {OWNER.uid: ""}
    around = world(routers(), secrets=secrets)
    key = await engine_key_of(OWNER, spec_of(), around, asked, NOW)
    assert key.missing
    assert (key.made_anew, key.lost) == ("2026-05-01T12:00:00Z", True)
    again = await engine_key_of(OWNER, spec_of(), around, asked, LATER)
    assert (again.missing, again.made_anew, again.lost) == (True, key.made_anew, False)
    secrets.entries = {"llama-engine-key": {"key": "k", "madeAnew": key.made_anew}}
    assert await engine_key_of(OWNER, spec_of(), around, asked, LATER) == EngineKey(made_anew=key.made_anew)
    assert asked == {}, "the next loss is another one"


async def test_a_secret_of_a_deleted_set_is_no_key_and_is_asked_for_at_every_look() -> None:
    secrets = keys(key=b"k", madeAnew=b"2026-04-01T12:00:00Z")
    secrets.controller_uid = "uid-before"
    asked: dict[str, str] = {}
    for seconds in (0, 3):
        key = await engine_key_of(
            OWNER, spec_of(), world(secrets=secrets), asked, NOW + timedelta(seconds=seconds)
        )
        assert (key.missing, key.made_anew) == (True, "")
    secrets.controller_uid = OWNER.uid
    assert (await engine_key_of(OWNER, spec_of(), world(secrets=secrets), asked, NOW)).missing is False


@pytest.mark.holds("router.md", "Engines with a key of the user's own get what the caller sent")
async def test_a_key_of_the_users_own_is_left_to_the_user() -> None:
    spec = spec_of(engine={"env": [{"name": "VLLM_API_KEY", "value": "mine"}]})
    assert await engine_key_of(OWNER, spec, world(), {}, NOW) == EngineKey()
