"""Facts of a model that the pods that serve it report."""

from typing import Any

import pytest

from flotilla_operator.workloads.model_facts import reported
from flotilla_runtime.contract import ModelFacts
from tests.builders.pods import container_status, engine_pod, terminated

EARLY = ModelFacts(config={"num_hidden_layers": 2}, file_bytes=1000)
EXACT = ModelFacts(config={"num_hidden_layers": 2}, file_bytes=1000, stored_bytes=4)


def said(*messages: str) -> dict[str, Any]:
    inits = [container_status(f"c{n}", state=terminated(0, message)) for n, message in enumerate(messages)]
    return engine_pod(node="a", inits=inits)


@pytest.mark.parametrize(
    ("pods", "facts"),
    [
        pytest.param([], None, id="no pod"),
        pytest.param([engine_pod()], None, id="a pod that has not begun"),
        pytest.param([engine_pod(inits=[container_status(state={"running": {}})])], None, id="one that has"),
        pytest.param([said(EARLY.model_dump_json())], EARLY, id="before the weights are there"),
        pytest.param(
            [said(EARLY.model_dump_json(), EXACT.model_dump_json())], EXACT, id="the files know best"
        ),
        pytest.param([said(EARLY.model_dump_json(), "DiskFull: no")], EARLY, id="a sentence is no facts"),
        pytest.param([said("{"), said(EXACT.model_dump_json())], EXACT, id="another pod says it"),
        pytest.param([said('{"config": 7}')], None, id="JSON of another kind"),
    ],
)
def test_reports(pods: list[dict[str, Any]], facts: ModelFacts | None) -> None:
    assert reported(pods) == facts
