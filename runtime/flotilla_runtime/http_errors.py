"""What an error of the HTTP client says, without what it quotes of the request. Pure."""

from typing import Final

import httpx2

UNSENDABLE: Final = "the request cannot be sent, because its key has characters that no header may have"
NO_URL: Final = "the URL is none"


def said_of(error: Exception) -> str:
    """What went wrong, for messages and logs. The texts that quote a header or a URL may hold a secret."""
    if isinstance(error, httpx2.LocalProtocolError | UnicodeEncodeError):
        return UNSENDABLE
    if isinstance(error, httpx2.InvalidURL):
        return NO_URL
    return f"{type(error).__name__} {error}".strip()
