"""Whether what is offloaded fits into the container's memory."""

from typing import Any

import pytest

from flotilla_operator.controllers.model_replica_set.observe.engine_room import no_room_to_offload
from flotilla_operator.controllers.model_replica_set.reasons import Reason
from tests.builders.model_replica_set import GPU, spec_of


def engine(offload: float, **resources: Any) -> dict[str, Any]:
    return {"kvOffloadGiB": offload, "resources": resources}


@pytest.mark.holds("engine.md", "`kvOffloadGiB` that the memory limit cannot hold is `NoRoomToOffload`")
@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(engine(0, limits={"memory": "1Gi"}), id="nothing is offloaded"),
        pytest.param(engine(64), id="no limit"),
        pytest.param(engine(64, requests={"memory": "1Gi"}), id="a request is no bound"),
        pytest.param(engine(31.5, limits={"memory": "32Gi"}), id="less than the limit"),
    ],
)
def test_there_is_room(settings: dict[str, Any]) -> None:
    assert no_room_to_offload(spec_of(engine=settings, accelerator=GPU)) is None


@pytest.mark.holds("engine.md", "`kvOffloadGiB` that the memory limit cannot hold is `NoRoomToOffload`")
@pytest.mark.parametrize("limit", ["32Gi", "32G", 1024])
def test_the_condition_names_field_figures_and_fix(limit: str | int) -> None:
    found = no_room_to_offload(spec_of(engine=engine(32, limits={"memory": limit}), accelerator=GPU))
    assert found is not None
    assert found.reason is Reason.NO_ROOM_TO_OFFLOAD
    assert found.message == (
        f"spec.engine.kvOffloadGiB: 32 GiB do not fit into the memory limit of {limit}; raise "
        "spec.engine.resources.limits.memory to 32 GiB plus what the engine itself needs, or lower "
        "spec.engine.kvOffloadGiB"
    )
