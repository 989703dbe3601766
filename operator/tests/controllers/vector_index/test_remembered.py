"""An index reads its own status: statuses as releases wrote them, and ones that are not valid."""

from typing import Any

import pytest

from flotilla_operator.controllers.vector_index.remembered import Remembered, remembered
from tests.builders.vector_index import vector_index
from tests.controllers.vector_index.indexes import NOW, Stage

# As version 0.1.0 writes it: the first generation is served, and nothing is built.
WRITTEN: dict[str, Any] = {
    "observedGeneration": 1,
    "phase": "Ready",
    "activeGeneration": "g-ax3wgftv",
    "url": "http://handbook-retriever.default.svc:8080/v1/retrieve",
    "documents": {"discovered": 10, "indexed": 9, "duplicates": 0, "deadLettered": 1, "removed": 0},
    "chunks": 81,
    "stages": [
        {"name": "Plan", "done": 1, "total": 1},
        {"name": "Index", "done": 2, "total": 2},
        {"name": "Promote", "done": 1, "total": 1},
    ],
    "gate": {"countParity": True, "verdict": "Passed", "time": "2026-05-01T10:00:00Z"},
    "shards": {"desired": 1, "ready": 1},
    "conditions": [
        {
            "type": "SpecValid",
            "status": "True",
            "reason": "Valid",
            "message": "",
            "lastTransitionTime": "2026-05-01T09:00:00Z",
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
def test_what_an_older_release_wrote_is_understood(status: dict[str, Any]) -> None:
    assert remembered(vector_index(status=status)) == Remembered(
        phase="Ready",
        active_generation="g-ax3wgftv",
        documents=WRITTEN["documents"],
        chunks=81,
        gate=WRITTEN["gate"],
        conditions=tuple(WRITTEN["conditions"]),
        whole=WRITTEN,
    )


def test_what_is_remembered_is_written_again_as_it_was() -> None:
    """No build has run since, so the status is the only one who knows."""
    fewer = {**WRITTEN, "documents": {"discovered": 3, "indexed": 3}}
    stage = Stage(vector_index(status=fewer))
    stage.step()
    for field in ("activeGeneration", "documents", "chunks", "gate"):
        assert stage.status[field] == fewer[field]
    assert stage.status["conditions"][0] == WRITTEN["conditions"][0]
    stage.index["metadata"] |= {"deletionTimestamp": NOW.isoformat(), "generation": 2}
    before = stage.status
    stage.step()
    assert stage.status == {**before, "observedGeneration": 2, "phase": "Deleting"}


def test_what_is_written_is_read_back() -> None:
    stage = Stage()
    stage.build()
    assert remembered(stage.index).whole == stage.status


@pytest.mark.holds(
    "architecture.md",
    "A status that an older release wrote is understood, and one that is not valid is an empty memory",
)
@pytest.mark.parametrize(
    "status",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"conditions": "none"}, id="conditions that are a text"),
        pytest.param({"gate": "Passed"}, id="a gate that is a text"),
        pytest.param({**WRITTEN, "documents": {"discovered": -1}}, id="a count that is no count"),
    ],
)
def test_a_status_that_cannot_be_read_is_an_empty_memory(status: dict[str, Any]) -> None:
    assert remembered(vector_index(status=status)) == Remembered()
    stage = Stage(vector_index(status=status))
    stage.step()
    assert stage.condition("SpecValid") == ("True", "Valid")
    assert "activeGeneration" not in stage.status
    assert stage.status["phase"] == "Pending"
