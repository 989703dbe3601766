"""Texts of the HTTP client's errors, without what they quote of the request. Pure."""

from typing import Final

import httpx2

from flotilla_runtime.contract.failure_texts import what_failed

UNSENDABLE: Final = "the request cannot be sent, because its key has characters that no header may have"
NO_URL: Final = "the URL is none"


class BadAnswerError(ValueError):
    """The answer of an endpoint cannot be used; the message has nothing of its body."""


def said_of(error: Exception) -> str:
    """The failure, for messages and logs. The texts that quote a header or a URL may hold a secret."""
    if isinstance(error, httpx2.LocalProtocolError | UnicodeEncodeError):
        return UNSENDABLE
    if isinstance(error, httpx2.InvalidURL):
        return NO_URL
    return what_failed(error)
