"""Refuses who has not the engine's key, on every path but those of the probes and the metrics.

vLLM asks for its key under some prefixes only and answers chats elsewhere too (POST /invocations, which
SageMaker wants). It loads this class from a file that its environment names, in front of all it has of its
own. Plain ASGI: what wraps a response would stand in the way of streams and of callers that leave.
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
        self._key = os.environ.get("VLLM_API_KEY", "").encode()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer, or let pass."""
        if scope["type"] not in ASKED_OF or scope["path"] in OPEN_PATHS or self._has_key(scope["headers"]):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": POLICY_VIOLATION})
        else:
            headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(REFUSAL))]
            await send({"type": "http.response.start", "status": 401, "headers": headers})
            await send({"type": "http.response.body", "body": REFUSAL})

    def _has_key(self, headers: list[tuple[bytes, bytes]]) -> bool:
        given = next((value for name, value in headers if name.lower() == b"authorization"), b"")
        scheme, _, key = given.partition(b" ")
        return not self._key or (scheme.lower() == b"bearer" and hmac.compare_digest(key, self._key))
