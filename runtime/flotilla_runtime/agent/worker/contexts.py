"""How long prompt and answer of a model may be together, where only its endpoint can say.

vLLM's list of models has `max_model_len` for each, other servers have `context_length` or `context_window`.
The endpoint is somebody else's: no redirect is followed, and time and size of the answer are limited. One
that says nothing is asked again after a minute, and the configuration's length holds until then.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any, Final

import httpx2
import structlog

from flotilla_runtime.contract import ModelConnection, secret_value
from flotilla_runtime.http_errors import BadAnswerError, said_of

ANSWERED_WITHIN_SECONDS: Final = 5.0
ASKED_AGAIN_AFTER_SECONDS: Final = 60.0
LONGEST_ANSWER_BYTES: Final = 2**20
FIELDS: Final = ("max_model_len", "context_length", "context_window")
SHORTEST, LONGEST = 16, 10_000_000

log = structlog.get_logger(__name__)


class ContextLengths:
    """The lengths of a worker's models; each endpoint is asked until it has said one."""

    def __init__(
        self,
        client: httpx2.AsyncClient,
        *,
        environment: Mapping[str, str],
        monotonic_seconds: Callable[[], float],
    ) -> None:
        self._client = client
        self._environment = environment
        self._now = monotonic_seconds
        self._said: dict[str, int] = {}
        self._next_look: dict[str, float] = {}
        self._asking = asyncio.Lock()

    async def of(self, model: ModelConnection) -> int:
        """The length for this model: what its endpoint has said, else that of the configuration."""
        if not model.asks_context:
            return model.context_tokens
        async with self._asking:
            if model.role not in self._said and self._next_look.get(model.role, 0.0) <= self._now():
                self._next_look[model.role] = self._now() + ASKED_AGAIN_AFTER_SECONDS
                await self._ask(model)
        return self._said.get(model.role, model.context_tokens)

    async def _ask(self, model: ModelConnection) -> None:
        try:
            async with asyncio.timeout(ANSWERED_WITHIN_SECONDS):
                said = context_in(await self._listed(model), model.model)
        except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError, ValueError, RecursionError) as problem:
            log.info("context_not_said", role=model.role, problem=said_of(problem))
            return
        if said is not None:
            self._said[model.role] = said
        log.info("context_asked", role=model.role, tokens=said)

    async def _listed(self, model: ModelConnection) -> Any:
        headers = {"Accept-Encoding": "identity"}
        if (variable := model.key_environment) is not None:
            key = secret_value(self._environment.get(variable, ""), f"the environment variable {variable}")
            headers["Authorization"] = f"Bearer {key}"
        url = f"{model.url.rstrip('/')}/models"
        body = bytearray()
        async with self._client.stream("GET", url, headers=headers, follow_redirects=False) as response:
            if not response.is_success:
                raise BadAnswerError(f"{url} answered {response.status_code}")
            async for part in response.aiter_raw():
                body += part
                if len(body) > LONGEST_ANSWER_BYTES:
                    raise BadAnswerError(f"the answer of {url} is longer than {LONGEST_ANSWER_BYTES} bytes")
        return json.loads(body)


def context_in(listed: Any, model: str) -> int | None:
    """The length that a list of models has for this one; None when it has none that can be true."""
    entries = listed.get("data") if isinstance(listed, dict) else None
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict) and entry.get("id") == model:
            lengths = (entry.get(field) for field in FIELDS)
            return next((length for length in lengths if _is_length(length)), None)
    return None


def _is_length(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and SHORTEST <= value <= LONGEST
