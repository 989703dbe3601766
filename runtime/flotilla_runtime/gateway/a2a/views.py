"""Tasks, and the agent's card, in the form of A2A; pure."""

import json
from collections.abc import Mapping
from typing import Any, Final

from a2a.types import a2a_pb2 as a2a
from google.protobuf.json_format import Error as UnfitError
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Error as TooDeepError
from google.protobuf.struct_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp

from flotilla_runtime.agent.conversations import answer_text
from flotilla_runtime.agent.journal import TaskStatus
from flotilla_runtime.agent.tasks import TaskRecord

PATH: Final = "/a2a"
VERSIONS: Final = ("1.0", "0.3")
ANSWER: Final = "answer"
RESULT: Final = "result"
DATA_CHARACTERS: Final = 2**18  # of JSON; to make more into data would hold up the gateway for other callers
UNFIT: Final = (UnfitError, TooDeepError, OverflowError)  # of values that are no data of A2A
STATES: Final[Mapping[TaskStatus, Any]] = {
    TaskStatus.WAITING: a2a.TASK_STATE_SUBMITTED,
    TaskStatus.RUNNING: a2a.TASK_STATE_WORKING,
    TaskStatus.SUSPENDED: a2a.TASK_STATE_WORKING,
    TaskStatus.SUCCEEDED: a2a.TASK_STATE_COMPLETED,
    TaskStatus.FAILED: a2a.TASK_STATE_FAILED,
    TaskStatus.CANCELLED: a2a.TASK_STATE_CANCELED,
}


def statuses_of(state: Any) -> frozenset[TaskStatus] | None:
    """The statuses of tasks in this state; None for any, if it is not specified."""
    if state == a2a.TASK_STATE_UNSPECIFIED:
        return None
    return frozenset(status for status, told in STATES.items() if told == state)


def context_of(record: TaskRecord) -> str:
    """The context of a task: its conversation, or itself."""
    return record.conversation_id or record.id


def task_of(record: TaskRecord, *, history: bool = True) -> a2a.Task:
    """A task. Its history is the message that it was submitted with."""
    asked = a2a.Message(
        message_id=record.id,
        context_id=context_of(record),
        task_id=record.id,
        role=a2a.ROLE_USER,
        parts=[a2a.Part(text=record.input)],
    )
    return a2a.Task(
        id=record.id,
        context_id=context_of(record),
        status=status_of(record),
        artifacts=artifacts_of(record),
        history=[asked] if history and record.input else [],
    )


def status_of(record: TaskRecord) -> a2a.TaskStatus:
    """The status of a task; one that failed says why."""
    told = None
    if record.reason is not None and record.status is not TaskStatus.SUCCEEDED:
        said = f"{record.reason}: {record.message}" if record.message else record.reason
        told = a2a.Message(
            message_id=f"{record.id}-end",
            context_id=context_of(record),
            task_id=record.id,
            role=a2a.ROLE_AGENT,
            parts=[a2a.Part(text=said)],
        )
    at = Timestamp()
    at.FromMilliseconds(record.ended_at or record.started_at or record.submitted_at)
    return a2a.TaskStatus(state=STATES[record.status], message=told, timestamp=at)


def working(record: TaskRecord) -> a2a.TaskStatusUpdateEvent:
    """The event that a worker has begun with a task."""
    status = a2a.TaskStatus(state=a2a.TASK_STATE_WORKING)
    return a2a.TaskStatusUpdateEvent(task_id=record.id, context_id=context_of(record), status=status)


def ended(record: TaskRecord) -> a2a.TaskStatusUpdateEvent:
    """The event that a task has ended."""
    return a2a.TaskStatusUpdateEvent(
        task_id=record.id, context_id=context_of(record), status=status_of(record)
    )


def artifacts_of(record: TaskRecord) -> list[a2a.Artifact]:
    """The artifacts of a task: the answer as text, and a result that has more than it as data."""
    if record.status is not TaskStatus.SUCCEEDED:
        return []
    answer = a2a.Artifact(artifact_id=ANSWER, name=ANSWER, parts=[a2a.Part(text=answer_text(record.result))])
    if not isinstance(record.result, dict):
        return [answer]
    return [answer, a2a.Artifact(artifact_id=RESULT, name=RESULT, parts=[_part_of(record.result)])]


def _part_of(result: dict[str, Any]) -> a2a.Part:
    """A result as data, or as JSON text where it is long, or where a client would read other data or none."""
    text = json.dumps(result)
    data = _data_of(result) if len(text) <= DATA_CHARACTERS else None
    return a2a.Part(text=text, media_type="application/json") if data is None else data


def _data_of(result: dict[str, Any]) -> a2a.Part | None:
    """A result as data; None where a client would read other data than this, or none."""
    try:
        part = a2a.Part(data=ParseDict(result, Value()))
        task = a2a.Task(artifacts=[a2a.Artifact(parts=[part])])
        whole = a2a.SendMessageResponse.FromString(a2a.SendMessageResponse(task=task).SerializeToString())
        is_whole = MessageToDict(whole.task.artifacts[0].parts[0].data) == result
    except UNFIT:
        is_whole = False
    return part if is_whole else None


def text_event(record: TaskRecord, text: str, *, append: bool) -> a2a.TaskArtifactUpdateEvent:
    """A piece of the answer; without `append` it replaces what was given."""
    artifact = a2a.Artifact(artifact_id=ANSWER, name=ANSWER, parts=[a2a.Part(text=text)])
    return _artifact_event(record, artifact, append=append, is_last=False)


def last_events(record: TaskRecord, rest: str, *, append: bool) -> list[a2a.TaskArtifactUpdateEvent]:
    """The end of the answer, and the result."""
    if record.status is not TaskStatus.SUCCEEDED:
        return []
    answer, *others = artifacts_of(record)
    answer.parts[0].text = rest
    return [
        _artifact_event(record, answer, append=append, is_last=True),
        *(_artifact_event(record, other, append=False, is_last=True) for other in others),
    ]


def _artifact_event(
    record: TaskRecord, artifact: a2a.Artifact, *, append: bool, is_last: bool
) -> a2a.TaskArtifactUpdateEvent:
    return a2a.TaskArtifactUpdateEvent(
        task_id=record.id,
        context_id=context_of(record),
        artifact=artifact,
        append=append,
        last_chunk=is_last,
    )


def card_of(
    fleet: str, description: str | None, url: str, *, version: str, has_callers: bool
) -> a2a.AgentCard:
    """The agent's card. It names no model, tool or index of the fleet."""
    told = description or fleet
    card = a2a.AgentCard(
        name=fleet,
        description=told,
        version=version,
        supported_interfaces=[
            a2a.AgentInterface(url=url, protocol_binding="JSONRPC", protocol_version=version)
            for version in VERSIONS
        ],
        capabilities=a2a.AgentCapabilities(streaming=True, push_notifications=False),
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain", "application/json"],
        skills=[a2a.AgentSkill(id=fleet, name=fleet, description=told, tags=["agent"])],
    )
    if has_callers:
        bearer = a2a.HTTPAuthSecurityScheme(scheme="bearer")
        card.security_schemes["bearer"].http_auth_security_scheme.CopyFrom(bearer)
        card.security_requirements.append(a2a.SecurityRequirement(schemes={"bearer": a2a.StringList()}))
    return card
