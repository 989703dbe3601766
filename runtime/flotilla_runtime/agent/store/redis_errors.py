"""Tells a Redis that cannot serve at the moment from one that refuses what we sent.

Most such errors are classes of redis-py. For some of Redis' codes redis-py 8 raises only its general error:
Redis cannot save (MISCONF), a script blocks it (BUSY), replicas are missing (NOREPLICAS), or it is starting
(LOADING). The code is the first word of the error, in Redis 7 and later. In a pipeline redis-py puts its own
words in front of the code. No other module reads them. runtime/tests/agent/store/test_store.py brings a real
Redis into such states.

When a code or redis-py's words change, such an error counts as one of ours: the request is not repeated, and
the error is logged with Redis' words. Another run takes the task over when its lease ends.
"""

import re
import ssl
from collections.abc import Awaitable
from typing import Final, TypeVar

import redis.exceptions

from flotilla_runtime.agent.errors import StoreUnavailableError
from flotilla_runtime.contract.failure_texts import what_failed

Answer = TypeVar("Answer")

UNAVAILABLE: Final = (
    redis.exceptions.ConnectionError,
    redis.exceptions.TimeoutError,
    redis.exceptions.ReadOnlyError,
    redis.exceptions.ClusterDownError,
    redis.exceptions.MasterDownError,
    redis.exceptions.TryAgainError,
    redis.exceptions.OutOfMemoryError,
    OSError,
)
UNAVAILABLE_CODE: Final = re.compile(r"(?:^|caused error: \(['\"])(?:MISCONF|BUSY|NOREPLICAS|LOADING)\b")
CODE: Final = re.compile(
    r"(?:^|caused error: \(?['\"]?)(BUSY|CLUSTERDOWN|ERR|EXECABORT|LOADING|MASTERDOWN|MISCONF|NOAUTH|NOPERM"
    r"|NOREPLICAS|NOSCRIPT|OOM|READONLY|TRYAGAIN|UNKILLABLE|WRONGPASS|WRONGTYPE)\b"
)
# OpenSSL's codes for a certificate that no trusted authority has signed: the signature is of another key (7),
# the certificate or its root is self-signed (18, 19), or the issuer is unknown (20, 21).
UNKNOWN_AUTHORITY: Final = frozenset({7, 18, 19, 20, 21})


async def asked(answer: Awaitable[Answer]) -> Answer:
    """The answer of Redis. Raises StoreUnavailableError where it may serve later, else its own error."""
    try:
        return await answer
    except (redis.exceptions.RedisError, OSError) as problem:
        unavailable = as_unavailable(problem)
        if unavailable is None:
            raise
        raise unavailable from problem


def as_unavailable(error: Exception) -> StoreUnavailableError | None:
    """The error for a Redis that may serve again later; None for any other error."""
    if isinstance(error, UNAVAILABLE):
        return StoreUnavailableError(_problem(error))
    if isinstance(error, redis.exceptions.ResponseError) and UNAVAILABLE_CODE.search(str(error)):
        return StoreUnavailableError(redis_said(error))
    return None


def redis_said(error: Exception) -> str:
    """The failure, with Redis' code for it: its words may quote a command, and so a password."""
    code = CODE.search(str(error))
    return what_failed(error) if code is None else f"{what_failed(error)}: {code[1]}"


def _problem(error: Exception) -> str:
    """The failure, with the fix for a certificate that is not trusted."""
    said = redis_said(error)
    refused = error.__context__
    if isinstance(refused, ssl.SSLCertVerificationError) and refused.verify_code in UNKNOWN_AUTHORITY:
        return f"{said}. Add the certificate of its authority to the URL, as the parameter ssl_ca_data."
    return said
