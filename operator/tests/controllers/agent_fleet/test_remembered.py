"""A fleet reads its own status: statuses as releases wrote them, and ones that are not valid."""

from datetime import timedelta
from typing import Any

import pytest

from flotilla_operator.cluster.status import without_nulls
from flotilla_operator.controllers.agent_fleet.remembered import Remembered, remembered
from tests.builders.agent_fleet import agent_fleet, served_model
from tests.controllers.agent_fleet.test_decide import worker_deployment
from tests.controllers.agent_fleet.test_plan import NOW, Stage, condition
from tests.controllers.agent_fleet.test_statuses import WITH_INDEX, working

# As version 0.1.0 writes it: a fleet that waits for its model.
WRITTEN: dict[str, Any] = {
    "observedGeneration": 1,
    "url": "http://support-gateway.default.svc:8080",
    "ready": "0/3",
    "workers": {"desired": 0, "ready": 0},
    "conditions": [
        {
            "type": "ModelsReady",
            "status": "False",
            "reason": "ModelMissing",
            "message": "spec.models[Default].modelRef: there is no ModelReplicaSet 'llama'",
            "lastTransitionTime": "2026-05-01T10:00:00Z",
            "observedGeneration": 1,
        }
    ],
}


@pytest.mark.holds(
    "architecture.md",
    "A status that an older release wrote is understood, and one that is not valid is an empty memory",
)
@pytest.mark.parametrize(
    "status",
    [
        pytest.param(WRITTEN, id="as it was written"),
        pytest.param({**WRITTEN, "shiny": {"of": "a newer release"}}, id="with a field of a newer release"),
    ],
)
async def test_what_an_older_release_wrote_is_understood(status: dict[str, Any]) -> None:
    fleet = agent_fleet(status=status)
    assert remembered(fleet).conditions == tuple(WRITTEN["conditions"])
    still = await Stage().plan(fleet)
    assert condition(still, "ModelsReady")["lastTransitionTime"] == "2026-05-01T10:00:00Z"
    assert still.events == []
    ended = await Stage(served_model()).plan(fleet)
    assert [event.reason for event in ended.events] == ["ModelsAvailable"]


async def test_what_is_written_is_read_back() -> None:
    plan = await working().plan(agent_fleet())
    assert plan.status is not None
    assert remembered(agent_fleet(status=plan.status)).conditions == tuple(plan.status["conditions"])


async def test_revisions_are_read_back_with_the_times_at_which_they_became_older_ones() -> None:
    """Also those of before revisions, whose name cannot be empty. Another time in each look would not end."""
    stage = working()
    for revision in ("old", ""):
        stage.put(worker_deployment(revision))
    fleet = agent_fleet(**WITH_INDEX)
    first = await stage.plan(fleet)
    assert first.status is not None
    stored = {**fleet, "status": without_nulls(first.status)}
    assert remembered(stored).revision == first.status["revision"]
    assert remembered(stored).older_since == {"old": NOW, "": NOW}
    stage.now += timedelta(seconds=60)
    second = await stage.plan(stored)
    assert second.status is not None
    assert second.status["olderRevisions"] == first.status["olderRevisions"]


@pytest.mark.parametrize("time", ["yesterday", "2026-05-01T10:00:00"])
def test_a_time_that_nothing_can_be_compared_with_is_none(time: str) -> None:
    older = {"revision": "old", "sinceTime": time, "untilTime": time}
    fleet = agent_fleet(status={**WRITTEN, "olderRevisions": [older]})
    assert remembered(fleet).older_since == {}


@pytest.mark.holds(
    "architecture.md",
    "A status that an older release wrote is understood, and one that is not valid is an empty memory",
)
@pytest.mark.parametrize(
    "status",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"conditions": "none"}, id="conditions that are a text"),
        pytest.param({"conditions": [{"type": "Ready"}]}, id="a condition without its fields"),
        pytest.param({"workers": 7}, id="another field that is not valid"),
    ],
)
async def test_a_status_that_cannot_be_read_is_an_empty_memory(status: dict[str, Any]) -> None:
    fleet = agent_fleet(status=status)
    assert remembered(fleet) == Remembered()
    plan = await Stage(served_model()).plan(fleet)
    assert condition(plan, "SpecValid")["reason"] == "Valid"
    assert condition(plan, "ModelsReady")["lastTransitionTime"] == "2026-05-01T12:00:00Z"
