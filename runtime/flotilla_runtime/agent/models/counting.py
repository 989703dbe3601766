"""Asks vLLM how many tokens a prompt has, by its own tokenizer and chat template.

The router passes /tokenize on to a replica like any other request, so the count may have to wait for one.
Whoever asks has a bound for the case that no answer comes in time.
"""

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Final

import httpx2
import jiter

from flotilla_runtime.agent.models.requests import prompt_of
from flotilla_runtime.agent.models.values import Endpoint, ModelRequest

ANSWERED_WITHIN_SECONDS: Final = 2.0
LONGEST_ANSWER_BYTES: Final = 32 * 2**20  # it lists all tokens, with at most 8 bytes each
MOST_TOKENS: Final = 10**8


async def counted_by_vllm(
    client: httpx2.AsyncClient, endpoint: Endpoint, request: ModelRequest, headers: Mapping[str, str]
) -> int | None:
    """The number of tokens, or None when the endpoint does not say."""
    url = endpoint.url.rstrip("/").removesuffix("/v1") + "/tokenize"
    body = {"model": endpoint.model, **prompt_of(endpoint, request)}
    try:
        async with asyncio.timeout(ANSWERED_WITHIN_SECONDS):
            answer = await _answer(client, url, body, headers)
        said = jiter.from_json(answer, cache_mode="none")
    except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError, ValueError):
        return None
    count = said.get("count") if isinstance(said, dict) else None
    is_count = isinstance(count, int) and not isinstance(count, bool) and 0 < count <= MOST_TOKENS
    return count if is_count else None


async def _answer(
    client: httpx2.AsyncClient, url: str, body: Mapping[str, Any], headers: Mapping[str, str]
) -> bytes:
    content = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")
    sent = {**headers, "Content-Type": "application/json", "Accept-Encoding": "identity"}
    received = bytearray()
    async with client.stream("POST", url, content=content, headers=sent, follow_redirects=False) as response:
        if response.status_code != httpx2.codes.OK:
            raise ValueError(f"{url} answered {response.status_code}")
        async for part in response.aiter_raw():
            received += part
            if len(received) > LONGEST_ANSWER_BYTES:
                raise ValueError(f"the answer of {url} has no end")
    return bytes(received)
