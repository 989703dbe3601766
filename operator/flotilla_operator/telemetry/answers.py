"""Reads one answer of an address that a user chose: no redirect is followed, and its size is limited."""

from typing import Final, TypedDict

import aiohttp

BODY_LIMIT_BYTES: Final = 2**20  # the status of a router of 1,000 replicas has 250 KiB
OK: Final = 200


class RequestOptions(TypedDict):
    """How such an address is asked."""

    allow_redirects: bool
    headers: dict[str, str]


# An answer must not be compressed: a small one could become a large one here.
ONE_ANSWER: Final = RequestOptions(allow_redirects=False, headers={"Accept-Encoding": "identity"})


class AnswerError(ValueError):
    """The answer has another status, or no end."""


async def read_answer(response: aiohttp.ClientResponse) -> bytes:
    """The body of the answer; raises AnswerError unless its status is 200 and it has at most 1 MiB."""
    if response.status != OK:
        raise AnswerError(f"the answer has the status {response.status}")
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > BODY_LIMIT_BYTES:
            raise AnswerError(f"the answer is longer than {BODY_LIMIT_BYTES} bytes")
    return bytes(body)
