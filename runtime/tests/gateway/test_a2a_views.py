"""Results in the form of A2A, as a client reads them from JSON or from protobuf's binary form."""

import json
from typing import Any

import pytest
from a2a.types import a2a_pb2 as a2a
from google.protobuf.json_format import MessageToDict, ParseDict

from flotilla_runtime.agent.tasks import TaskRecord
from flotilla_runtime.gateway.a2a.views import task_of


def nested(levels: int) -> dict[str, Any]:
    inner: dict[str, Any] = {}
    for _ in range(levels):
        inner = {"a": inner}
    return inner


def read_by_a_client(result: Any) -> a2a.Part:
    """The part of the artifact `result`."""
    fields = {"id": "t1", "status": "Succeeded", "priority": "Interactive", "caller": "ann", "input": "why?"}
    fields |= {"limits": "{}", "metadata": "{}", "submittedAt": "1", "endedAt": "2", "attempts": "1"}
    task = task_of(TaskRecord.of({**fields, "result": json.dumps(result)}))
    sent = a2a.SendMessageResponse(task=task)
    assert a2a.SendMessageResponse.FromString(sent.SerializeToString()) == sent
    read = ParseDict(json.loads(json.dumps(MessageToDict(sent))), a2a.SendMessageResponse())
    _, artifact = read.task.artifacts
    [part] = artifact.parts
    return part


@pytest.mark.holds(
    "front-ends.md", "A result is data over A2A, or JSON text where data would change it or it is long"
)
@pytest.mark.parametrize(
    "result",
    [
        pytest.param({"sum": 5, "part": 0.5, "yes": True, "none": None, "of": ["a", 2**53]}, id="any"),
        pytest.param(nested(20), id="with levels"),
    ],
)
def test_a_result_is_data(result: Any) -> None:
    part = read_by_a_client(result)
    assert MessageToDict(part.data) == result


@pytest.mark.holds(
    "front-ends.md", "A result is data over A2A, or JSON text where data would change it or it is long"
)
@pytest.mark.parametrize(
    "result",
    [
        pytest.param({"id": 2**53 + 1}, id="an integer that is no double"),
        pytest.param({"id": 10**400}, id="an integer above every double"),
        pytest.param(nested(32), id="more levels than the binary form has"),
        pytest.param(nested(33), id="more levels than a part has"),
        pytest.param(nested(150), id="more levels than JSON has"),
        pytest.param({"rows": [0.5] * 2**16}, id="more characters than are made into data at once"),
    ],
)
def test_a_result_that_data_would_change_or_that_is_long_is_json_text(result: Any) -> None:
    part = read_by_a_client(result)
    assert (part.WhichOneof("content"), part.media_type) == ("text", "application/json")
    assert json.loads(part.text) == result
