"""Answers A2A's methods from the fleet's tasks. The SDK reads requests and writes answers.

A message starts a task, and its context is the task's conversation. The id of a message is the task's
idempotency key, so a message that is sent again starts no second task. A task takes one message.
"""

from collections.abc import AsyncGenerator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, NoReturn

from a2a.server.context import ServerCallContext
from a2a.server.request_handlers.request_handler import RequestHandler, validate_request_params
from a2a.types import a2a_pb2 as a2a
from a2a.utils.errors import (
    ContentTypeNotSupportedError,
    ExtendedAgentCardNotConfiguredError,
    InternalError,
    InvalidParamsError,
    PushNotificationNotSupportedError,
    TaskNotCancelableError,
    TaskNotFoundError,
    UnsupportedOperationError,
)
from starlette.types import Receive

from flotilla_runtime.gateway.a2a import views
from flotilla_runtime.gateway.answer_text import AnswerText, TextBrokenError
from flotilla_runtime.gateway.auth import Identity
from flotilla_runtime.gateway.desk import Desk
from flotilla_runtime.gateway.events import followed, until_ended
from flotilla_runtime.gateway.history import Event, EventKind
from flotilla_runtime.gateway.pages import MOST_PER_PAGE, PageWanted
from flotilla_runtime.gateway.problems import ProblemError
from flotilla_runtime.gateway.requests import submission_of
from flotilla_runtime.gateway.task_ids import is_task_id
from flotilla_runtime.gateway.waiting import while_there

FOR: Final = "flotilla"
DEFAULT_PAGE: Final = 50

Told = a2a.Message | a2a.Task | a2a.TaskStatusUpdateEvent | a2a.TaskArtifactUpdateEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class For:
    """For whom a request is answered. `receive` tells when the client has left.

    `traceparent` is the header of the request.
    """

    caller: Identity
    tenant: str
    receive: Receive
    traceparent: str | None


@contextmanager
def problems_in_a2as_form() -> Any:
    """Problems of the task API become errors of A2A."""
    try:
        yield
    except ProblemError as problem:
        raise _error(problem) from None


class FleetAgent(RequestHandler):
    """The fleet as an A2A agent."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    @validate_request_params
    async def on_message_send(self, params: a2a.SendMessageRequest, context: ServerCallContext) -> a2a.Task:
        """Start a task, and wait for its end unless the client does not."""
        with problems_in_a2as_form():
            task = await self._submitted(params.message, context)
            if not params.configuration.return_immediately:
                await while_there(_for(context).receive, until_ended(self._desk.sight, task))
            return await self._task(task, context)

    @validate_request_params
    async def on_message_send_stream(
        self, params: a2a.SendMessageRequest, context: ServerCallContext
    ) -> AsyncGenerator[Told, None]:
        """Start a task, and follow it."""
        with problems_in_a2as_form():
            task = await self._submitted(params.message, context)
            async for told in self._followed(task, context):
                yield told

    @validate_request_params
    async def on_subscribe_to_task(
        self, params: a2a.SubscribeToTaskRequest, context: ServerCallContext
    ) -> AsyncGenerator[Told, None]:
        """Follow a task; the answer is given from its beginning."""
        with problems_in_a2as_form():
            async for told in self._followed(params.id, context):
                yield told

    @validate_request_params
    async def on_get_task(self, params: a2a.GetTaskRequest, context: ServerCallContext) -> a2a.Task:
        """A task as it stands."""
        with problems_in_a2as_form():
            with_history = not params.HasField("history_length") or params.history_length > 0
            return await self._task(params.id, context, history=with_history)

    @validate_request_params
    async def on_cancel_task(self, params: a2a.CancelTaskRequest, context: ServerCallContext) -> a2a.Task:
        """Cancel a task. A running one ends when its worker has heard of it."""
        with problems_in_a2as_form():
            await self._desk.service.cancel(params.id, _for(context).caller)
            return await self._task(params.id, context)

    @validate_request_params
    async def on_list_tasks(
        self, params: a2a.ListTasksRequest, context: ServerCallContext
    ) -> a2a.ListTasksResponse:
        """The tasks that the caller may see, without their texts."""
        if params.page_token and not is_task_id(params.page_token):
            raise InvalidParamsError(message="pageToken must be the nextPageToken of an earlier page")
        wanted = PageWanted(
            statuses=views.statuses_of(params.status),
            conversation_id=params.context_id or None,
            before=params.page_token or None,
            count=max(1, min(params.page_size or DEFAULT_PAGE, MOST_PER_PAGE)),
        )
        with problems_in_a2as_form():
            page = await self._desk.service.page(_for(context).caller, wanted)
        tasks = [_summary(record) for record in page.records]
        return a2a.ListTasksResponse(
            tasks=tasks, next_page_token=page.next_before or "", page_size=wanted.count, total_size=len(tasks)
        )

    async def _submitted(self, message: a2a.Message, context: ServerCallContext) -> str:
        if message.task_id:
            raise UnsupportedOperationError(
                message="a task takes one message; leave taskId out, and name its contextId to go on with it"
            )
        texts = [part.text for part in message.parts if part.WhichOneof("content") == "text"]
        if len(texts) != len(message.parts):
            raise ContentTypeNotSupportedError(message="only parts with text are supported")
        named, asking = self._desk.service.new_id(), _for(context)
        asked = submission_of(
            {
                "input": "\n\n".join(texts),
                "idempotencyKey": message.message_id,
                "conversationId": message.context_id or named,
            }
        )
        submission = await self._desk.service.submit(
            asked, asking.caller, asking.tenant, named=named, traceparent=asking.traceparent
        )
        return submission.id

    async def _task(self, task: str, context: ServerCallContext, *, history: bool = True) -> a2a.Task:
        outcome = await self._desk.service.outcome(task, _for(context).caller)
        return views.task_of(outcome.record, history=history)

    async def _followed(self, task: str, context: ServerCallContext) -> AsyncGenerator[Told, None]:
        caller = _for(context).caller
        record = (await self._desk.service.outcome(task, caller)).record
        yield views.task_of(record)
        if record.status.is_final:
            return
        given, is_begun = AnswerText(), False
        async for heard in followed(self._desk.sight, task, 0):
            if heard.event is None:
                continue
            if heard.event.event is EventKind.STARTED:
                yield views.working(record)
            new, is_anew = _heard(given, heard.event)
            if new:
                yield views.text_event(record, new, append=is_begun and not is_anew)
                is_begun = True
        record = (await self._desk.service.outcome(task, caller)).record
        if not record.status.is_final:
            return  # the gateway stops, and the client subscribes anew
        for last in _last(given, record, is_begun=is_begun):
            yield last
        yield views.ended(record)

    async def on_create_task_push_notification_config(
        self, params: a2a.TaskPushNotificationConfig, context: ServerCallContext
    ) -> NoReturn:
        """The gateway calls nobody."""
        raise PushNotificationNotSupportedError

    async def on_get_task_push_notification_config(
        self, params: a2a.GetTaskPushNotificationConfigRequest, context: ServerCallContext
    ) -> NoReturn:
        """The gateway calls nobody."""
        raise PushNotificationNotSupportedError

    async def on_list_task_push_notification_configs(
        self, params: a2a.ListTaskPushNotificationConfigsRequest, context: ServerCallContext
    ) -> NoReturn:
        """The gateway calls nobody."""
        raise PushNotificationNotSupportedError

    async def on_delete_task_push_notification_config(
        self, params: a2a.DeleteTaskPushNotificationConfigRequest, context: ServerCallContext
    ) -> NoReturn:
        """The gateway calls nobody."""
        raise PushNotificationNotSupportedError

    async def on_get_extended_agent_card(
        self, params: a2a.GetExtendedAgentCardRequest, context: ServerCallContext
    ) -> NoReturn:
        """There is one card for everybody."""
        raise ExtendedAgentCardNotConfiguredError


def _heard(given: AnswerText, event: Event) -> tuple[str, bool]:
    """Return the new part of the answer, and whether it replaces what was given."""
    try:
        return given.heard(event), False
    except TextBrokenError:
        return given.again(), True


def _last(given: AnswerText, record: Any, *, is_begun: bool) -> list[a2a.TaskArtifactUpdateEvent]:
    """The rest of the answer. Where what was given is not how it begins, all of it."""
    artifacts = views.artifacts_of(record)
    text = artifacts[0].parts[0].text if artifacts else ""
    follows = is_begun and text.startswith(given.given)
    return views.last_events(record, text[len(given.given) :] if follows else text, append=follows)


def _for(context: ServerCallContext) -> For:
    asking: For = context.state[FOR]
    return asking


def _summary(record: Any) -> a2a.Task:
    return a2a.Task(id=record.id, context_id=views.context_of(record), status=views.status_of(record))


def _error(problem: ProblemError) -> Exception:
    match problem.status:
        case HTTPStatus.NOT_FOUND:
            return TaskNotFoundError(message=problem.detail)
        case HTTPStatus.CONFLICT:
            return TaskNotCancelableError(message=problem.detail)
        case HTTPStatus.BAD_REQUEST:
            return InvalidParamsError(message=problem.detail)
        case _:
            return InternalError(message=problem.detail)
