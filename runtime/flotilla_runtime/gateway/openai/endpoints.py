"""The paths of OpenAI's API. They take the callers and verbs of the task API, and keep no task."""

import asyncio
import contextlib
import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from flotilla_runtime.contract import HEADER_TRACE
from flotilla_runtime.gateway.auth import Identity, Verb
from flotilla_runtime.gateway.bodies import read_posted
from flotilla_runtime.gateway.desk import Desk
from flotilla_runtime.gateway.events import until_ended
from flotilla_runtime.gateway.openai import answers, streams
from flotilla_runtime.gateway.openai.errors import in_openais_form, no_model, refusal, with_task
from flotilla_runtime.gateway.openai.requests import Asked, asked_chat, asked_response, models_of
from flotilla_runtime.gateway.problems import ProblemError
from flotilla_runtime.gateway.service import Outcome
from flotilla_runtime.gateway.waiting import while_there
from flotilla_runtime.request_body import body_done

CANCELLED_WITHIN_SECONDS: Final = 5.0  # a worker stops the task at its next write
NUMBER: Final = re.compile(r"[0-9]{1,12}")
KEY: Final = "idempotency-key"


class OpenAIFrontEnd:
    """The handlers of /v1/chat/completions, /v1/responses and /v1/models."""

    def __init__(self, desk: Desk, fleet: str, agents: Sequence[str] = ()) -> None:
        self._desk = desk
        self._fleet = fleet
        self._agents = agents

    def routes(self) -> list[Route]:
        """The paths."""
        served = (
            ("/v1/models", self.models, "GET"),
            ("/v1/models/{model:path}", self.model, "GET"),
            ("/v1/chat/completions", self.chat, "POST"),
            ("/v1/responses", self.respond, "POST"),
            ("/v1/responses/{id}", self.retrieve, "GET"),
            ("/v1/responses/{id}/cancel", self.cancel, "POST"),
        )
        return [Route(path, in_openais_form(handler), methods=[method]) for path, handler, method in served]

    async def models(self, request: Request) -> Response:
        """GET /v1/models."""
        await self._desk.callers.identify(request, Verb.GET)
        models = models_of(self._fleet, self._agents)
        return JSONResponse({"object": "list", "data": [*map(answers.model_document, models)]})

    async def model(self, request: Request) -> Response:
        """GET /v1/models/{model}."""
        await self._desk.callers.identify(request, Verb.GET)
        named, models = request.path_params["model"], models_of(self._fleet, self._agents)
        if named not in models:
            raise no_model(named, models)
        return JSONResponse(answers.model_document(named))

    async def chat(self, request: Request) -> Response:
        """POST /v1/chat/completions."""
        caller = await self._desk.callers.identify(request, Verb.CREATE)
        body = await read_posted(request, self._desk.max_body_bytes)
        asked = asked_chat(body, self._fleet, request.headers.get(KEY), self._agents)
        tenant = await self._desk.callers.tenant(request, caller)
        if asked.streams:
            self._desk.streams.check(caller.name)
        submission = await self._desk.service.submit(
            asked.submission,
            caller,
            tenant,
            history=asked.history,
            traceparent=request.headers.get(HEADER_TRACE),
        )
        task, key = submission.id, asked.submission.idempotency_key
        has_stream, counts = asked.streams, asked.counts
        del body, asked, submission
        body_done(request)
        with with_task(task, key):
            if has_stream:
                stream = await self._stream(task, caller)
                return self._desk.streams.answer(caller.name, streams.chat_chunks(stream, counts=counts))
            ended = await self._ended(request, task, caller)
        return JSONResponse(answers.chat_completion(ended, self._fleet))

    async def respond(self, request: Request) -> Response:
        """POST /v1/responses."""
        caller = await self._desk.callers.identify(request, Verb.CREATE)
        body = await read_posted(request, self._desk.max_body_bytes)
        asked = asked_response(body, self._fleet, request.headers.get(KEY), self._agents)
        if asked.streams:
            self._desk.streams.check(caller.name)
        task = await self._responding(request, asked, caller)
        key, has_stream, in_background = asked.submission.idempotency_key, asked.streams, asked.in_background
        del body, asked
        body_done(request)
        with with_task(task, key):
            if has_stream:
                stream = await self._stream(task, caller)
                return self._desk.streams.answer(caller.name, streams.response_events(stream, -1))
            if in_background:
                return self._shown(await self._desk.service.outcome(task, caller))
            return self._shown(await self._ended(request, task, caller))

    async def retrieve(self, request: Request) -> Response:
        """GET /v1/responses/{id}, with `stream` and `starting_after`."""
        caller = await self._desk.callers.identify(request, Verb.GET)
        task = _task_of(request.path_params["id"])
        if request.query_params.get("stream") != "true":
            return self._shown(await self._desk.service.outcome(task, caller))
        after = request.query_params.get("starting_after", "")
        if after and not NUMBER.fullmatch(after):
            raise refusal("starting_after must be the sequence_number of an event", "starting_after")
        stream = await self._stream(task, caller)
        return self._desk.streams.answer(
            caller.name, streams.response_events(stream, int(after) if after else -1)
        )

    async def cancel(self, request: Request) -> Response:
        """POST /v1/responses/{id}/cancel."""
        caller = await self._desk.callers.identify(request, Verb.CREATE)
        task = _task_of(request.path_params["id"])
        await self._desk.service.cancel(task, caller)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CANCELLED_WITHIN_SECONDS):
                await until_ended(self._desk.sight, task)
        return self._shown(await self._desk.service.outcome(task, caller))

    async def _responding(self, request: Request, asked: Asked, caller: Identity) -> str:
        """The task of a response. One that is stored begins a conversation, or goes on with one."""
        tenant = await self._desk.callers.tenant(request, caller)
        front = {answers.BACKGROUND: "true"} if asked.in_background else {}
        named = self._desk.service.new_id()
        conversation = asked.submission.conversation_id or (named if asked.is_stored else None)
        if asked.previous is not None:
            conversation = await self._conversation_of(asked.previous, caller, tenant)
            front[answers.PREVIOUS] = asked.previous
        submission = await self._desk.service.submit(
            asked.submission.model_copy(update={"conversation_id": conversation}),
            caller,
            tenant,
            named=named,
            history=asked.history,
            front=front,
            traceparent=request.headers.get(HEADER_TRACE),
        )
        return submission.id

    async def _conversation_of(self, previous: str, caller: Identity, tenant: str) -> str:
        try:
            record = await self._desk.service.summary(_task_of(previous), caller)
        except ProblemError as problem:
            if problem.status is not HTTPStatus.NOT_FOUND:
                raise
            record = None
        if record is None or record.tenant != tenant or record.conversation_id is None:
            raise refusal(
                f"there is no previous response {previous[:100]!r} that was stored, or you may not see it",
                "previous_response_id",
                "previous_response_not_found",
            )
        return record.conversation_id

    async def _stream(self, task: str, caller: Identity) -> streams.Stream:
        async def ask() -> Outcome:
            return await self._desk.service.outcome(task, caller)

        return streams.Stream(sight=self._desk.sight, fleet=self._fleet, begun=await ask(), ask=ask)

    async def _ended(self, request: Request, task: str, caller: Identity) -> Outcome:
        """The task when it has ended. A client that leaves cancels nothing, and nothing waits on."""
        stream = await self._stream(task, caller)
        await while_there(request.receive, until_ended(self._desk.sight, task))
        return await streams.outcome_of(stream)

    def _shown(self, outcome: Outcome) -> Response:
        return JSONResponse(answers.response(outcome, self._fleet))


def _task_of(response: str) -> str:
    return response.removeprefix(answers.RESPONSE_PREFIX)
