"""The paths of A2A. The card is for everybody; all else takes the callers and verbs of the task API.

Whoever uses A2A reads tasks, so the verb `get` is checked before a body is read. What changes something also
needs `create`.
"""

import json
import re
from http import HTTPStatus
from typing import Final

from a2a.server.context import ServerCallContext
from a2a.server.request_handlers.response_helpers import agent_card_to_dict
from a2a.server.routes.common import DefaultServerCallContextBuilder
from a2a.server.routes.jsonrpc_dispatcher import JsonRpcDispatcher
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Message

from flotilla_runtime.contract import HEADER_TRACE, GatewayAuth, GatewayConfig
from flotilla_runtime.gateway.a2a.handler import FOR, FleetAgent, For
from flotilla_runtime.gateway.a2a.views import PATH, card_of
from flotilla_runtime.gateway.auth import Verb
from flotilla_runtime.gateway.bodies import read_posted
from flotilla_runtime.gateway.desk import Desk
from flotilla_runtime.gateway.numbers import number_problems
from flotilla_runtime.gateway.problems import FieldProblem, ProblemError
from flotilla_runtime.gateway.requests import refused
from flotilla_runtime.request_body import body_done

CARD_PATH: Final = "/.well-known/agent-card.json"
READING: Final = frozenset(
    {"GetTask", "ListTasks", "SubscribeToTask", "tasks/get", "tasks/list", "tasks/resubscribe"}
)
STREAMING: Final = frozenset(
    {"SendStreamingMessage", "SubscribeToTask", "message/stream", "tasks/resubscribe"}
)
HOST: Final = re.compile(r"[A-Za-z0-9.:\[\]-]{1,255}")
FIRST_VERSION: Final = "1"


class Contexts(DefaultServerCallContextBuilder):
    """Builds the SDK's context of a request, which says for whom it is."""

    def build(self, request: Request) -> ServerCallContext:
        """The context of a request that was let in."""
        context = super().build(request)
        context.state[FOR] = request.scope[FOR]
        return context


class A2AFrontEnd:
    """The handlers of /a2a and of the card."""

    def __init__(self, desk: Desk, config: GatewayConfig) -> None:
        self._desk = desk
        self._config = config
        self._dispatcher = JsonRpcDispatcher(
            FleetAgent(desk), context_builder=Contexts(), enable_v0_3_compat=True
        )

    def routes(self) -> list[Route]:
        """The paths."""
        return [
            Route(CARD_PATH, self.card, methods=["GET"]),
            Route(PATH, self.call, methods=["POST"]),
        ]

    async def card(self, request: Request) -> Response:
        """GET /.well-known/agent-card.json. The card names the address at which it was asked for."""
        host = request.headers.get("host", "")
        if not HOST.fullmatch(host):
            raise ProblemError(HTTPStatus.BAD_REQUEST, "invalid-request", "the header Host names no host")
        is_https = self._config.tls_directory is not None
        is_https = is_https or request.headers.get("x-forwarded-proto") == "https"
        card = card_of(
            self._config.name,
            self._config.description,
            f"{'https' if is_https else 'http'}://{host}{PATH}",
            version=self._config.revision or FIRST_VERSION,
            has_callers=self._config.auth is not GatewayAuth.NONE,
        )
        headers = {"Cache-Control": "no-store", "Vary": "Host"}
        return JSONResponse(agent_card_to_dict(card), headers=headers)

    async def call(self, request: Request) -> Response:
        """POST /a2a."""
        caller = await self._desk.callers.identify(request, Verb.GET)
        body = await read_posted(request, self._desk.max_body_bytes)
        if problems := number_problems(body):
            raise refused(problems)
        method = _method(body)
        if method not in READING:
            caller = await self._desk.callers.allowed(request, Verb.CREATE)
        if method in STREAMING:
            self._desk.streams.check(caller.name)
        tenant = await self._desk.callers.tenant(request, caller)
        request.scope[FOR] = For(
            caller=caller,
            tenant=tenant,
            receive=request.receive,
            traceparent=request.headers.get(HEADER_TRACE),
        )

        bodies = [body]
        del body

        async def read() -> Message:
            """Hand the body to the SDK, which parses it at once; its bytes count no longer."""
            body_done(request)
            return {"type": "http.request", "body": bodies.pop(), "more_body": False}

        answer = await self._dispatcher.handle_requests(Request(request.scope, read))
        return self._desk.streams.counted(caller.name, answer) if _is_stream(answer) else answer


def _is_stream(answer: Response) -> bool:
    return hasattr(answer, "body_iterator")


def _method(body: bytes) -> str | None:
    """The method of a request, if it has one; the SDK tells what is wrong with one that has none."""
    try:
        told = json.loads(body)
    except RecursionError:
        raise refused([FieldProblem(field="(body)", problem="is nested too deeply")]) from None
    except ValueError:
        return None
    method = told.get("method") if isinstance(told, dict) else None
    return method if isinstance(method, str) else None
