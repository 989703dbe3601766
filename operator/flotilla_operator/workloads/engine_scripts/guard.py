"""Refuses who has not the engine's key, on every path but those of the probes and the metrics.

vLLM asks for its key under some prefixes only and answers chats elsewhere too (POST /invocations, which
SageMaker wants). It loads this class from a file that its environment names, in front of all it has of its
own. Plain ASGI: what wraps a response would stand in the way of streams and of callers that leave.

Spaces and line breaks around the key do not count, since no caller could send them. vLLM counts them when it
asks for its key itself, so it gets the header with them. An empty key lets nobody in.
"""

import hmac
import json
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

OPEN_PATHS = ("/health", "/metrics")
ASKED_OF = ("http", "websocket")
POLICY_VIOLATION = 1008
REFUSAL = json.dumps({"error": "Unauthorized"}).encode()  # vLLM's own words


class Guard:
    """An application behind the key."""

    def __init__(self, app: Application) -> None:
        self._app = app
        raw = os.environ.get("VLLM_API_KEY")
        self._raw = None if raw is None else raw.encode(errors="surrogateescape")
        self._key = None if self._raw is None else self._raw.strip(b" \t\r\n")

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer, or let pass."""
        if scope["type"] not in ASKED_OF or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
        elif self._has_key(scope["headers"]):
            await self._app({**scope, "headers": self._as_vllm_asks(scope["headers"])}, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": POLICY_VIOLATION})
        else:
            headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(REFUSAL))]
            await send({"type": "http.response.start", "status": 401, "headers": headers})
            await send({"type": "http.response.body", "body": REFUSAL})

    def _has_key(self, headers: list[tuple[bytes, bytes]]) -> bool:
        given = next((value for name, value in headers if name.lower() == b"authorization"), b"")
        scheme, _, key = given.partition(b" ")
        if self._key is None:
            return True
        return bool(self._key) and scheme.lower() == b"bearer" and hmac.compare_digest(key, self._key)

    def _as_vllm_asks(self, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        if self._raw == self._key:
            return headers
        others = [(name, value) for name, value in headers if name.lower() != b"authorization"]
        return [*others, (b"authorization", b"Bearer " + (self._raw or b""))]
