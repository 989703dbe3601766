"""Embeds the queries of a worker's searches with the model of role Embed.

A query is embedded to save a search, so it gets one try and little time. It waits for no rate limit, and a
model that fails is left alone.
"""

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Final

import httpx2
import structlog

from flotilla_runtime.agent.budgets import Amount
from flotilla_runtime.agent.journal import CallKind
from flotilla_runtime.agent.levers.buckets import Turns
from flotilla_runtime.agent.levers.cache import normalized
from flotilla_runtime.agent.levers.cached_calls import Embedding
from flotilla_runtime.agent.levers.circuits import Ended
from flotilla_runtime.agent.levers.guards import Circuits
from flotilla_runtime.agent.models import Usage, text_bound
from flotilla_runtime.agent.protocols import Session
from flotilla_runtime.agent.worker.reservations import cost_of
from flotilla_runtime.contract import HEADER_PRIORITY, ModelConnection, secret_value
from flotilla_runtime.http_errors import BadAnswerError, said_of

ANSWERED_WITHIN_SECONDS: Final = 2.0
LONGEST_ANSWER_BYTES: Final = 1024 * 1024
BYTES_PER_TOKEN: Final = 3

log = structlog.get_logger(__name__)


class QueryEmbedder:
    """The model of role Embed."""

    def __init__(
        self,
        client: httpx2.AsyncClient,
        model: ModelConnection,
        *,
        environment: Mapping[str, str],
        turns: Turns,
        circuits: Circuits,
    ) -> None:
        self.name = f"{model.url} {model.model}"
        self._client = client
        self._model = model
        self._environment = environment
        self._turns = turns
        self._circuits = circuits

    def most(self, query: str) -> Amount:
        """The most that the embedding of a query can use."""
        tokens = text_bound(query)
        return Amount(tokens=tokens, nano_usd=self._cost(tokens) or 0)

    async def embed(self, query: str, session: Session) -> Embedding:
        """The vector of a query, of the length 1; none where the model gives none now."""
        passed = self._circuits.ask(CallKind.MODEL, self._model.name)
        if not passed.may_call:
            return Embedding()
        how, tokens = Ended.NOT_MADE, text_bound(query) // BYTES_PER_TOKEN + 1
        try:
            limit = self._model.rate_limit
            taken = await self._turns.at_once(limit, tokens) if limit is not None else None
            if limit is not None and taken is None:
                return Embedding()
            async with asyncio.timeout(ANSWERED_WITHIN_SECONDS):
                embedding = self._read(await self._answer(query, session), tokens)
            how = Ended.ANSWERED
            if taken is not None:
                await self._turns.settle(taken, tries=1, tokens=embedding.tokens)
            return embedding
        except Exception as problem:
            how = Ended.FAILED
            log.warning("query_not_embedded", model=self._model.name, problem=said_of(problem))
            return Embedding()
        finally:
            self._circuits.end(CallKind.MODEL, self._model.name, passed, how)

    async def _answer(self, query: str, session: Session) -> Any:
        headers = {"Accept-Encoding": "identity", HEADER_PRIORITY: str(session.priority)}
        if (variable := self._model.key_environment) is not None:
            where = f"the environment variable {variable}"
            headers["Authorization"] = f"Bearer {secret_value(self._environment.get(variable, ''), where)}"
        url = f"{self._model.url.rstrip('/')}/embeddings"
        body = {"model": self._model.model, "input": [query], "encoding_format": "float"}
        read = bytearray()
        async with self._client.stream(
            "POST", url, json=body, headers=headers, follow_redirects=False
        ) as response:
            if not response.is_success:
                raise BadAnswerError(f"the model answered {response.status_code}")
            async for part in response.aiter_raw():
                read += part
                if len(read) > LONGEST_ANSWER_BYTES:
                    raise BadAnswerError(f"the answer is longer than {LONGEST_ANSWER_BYTES} bytes")
        return json.loads(read)

    def _read(self, answer: Any, expected_tokens: int) -> Embedding:
        """Read the embedding in an answer. Raises BadAnswerError for one without a vector."""
        data = answer.get("data") if isinstance(answer, dict) else None
        first = data[0] if isinstance(data, list) and data else None
        vector = normalized(first.get("embedding")) if isinstance(first, dict) else None
        if vector is None:
            raise BadAnswerError("the answer has no vector")
        usage = answer.get("usage")
        counted = usage.get("prompt_tokens") if isinstance(usage, dict) else None
        tokens = counted if isinstance(counted, int) and counted >= 0 else expected_tokens
        return Embedding(vector=vector, tokens=tokens, nano_usd=self._cost(tokens))

    def _cost(self, tokens: int) -> int | None:
        return cost_of(Usage(input_tokens=tokens), self._model.pricing)
