"""Errors of Redis that pass by themselves, and others; those of a real Redis are in test_store.py."""

import ssl

import pytest
import redis.exceptions

from flotilla_runtime.agent.store.redis_errors import as_unavailable

BUSY = "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE."


def untrusted(verify_code: int) -> redis.exceptions.ConnectionError:
    refused = ssl.SSLCertVerificationError(1, "certificate verify failed")
    refused.verify_code = verify_code
    error = redis.exceptions.ConnectionError("Error 1 connecting to redis:6379.")
    error.__context__ = refused
    return error


@pytest.mark.parametrize(
    ("error", "says"),
    [
        pytest.param(OSError(113, "x"), "OSError (No route to host)", id="no connection"),
        pytest.param(redis.exceptions.OutOfMemoryError("OOM full"), "OutOfMemoryError: OOM", id="no memory"),
        pytest.param(redis.exceptions.ResponseError(BUSY), "ResponseError: BUSY", id="a script blocks it"),
        pytest.param(
            redis.exceptions.ResponseError("NOREPLICAS Not enough good replicas to write."),
            "ResponseError: NOREPLICAS",
            id="replicas are missing",
        ),
        pytest.param(
            redis.exceptions.ResponseError("MISCONF Redis is configured to save RDB snapshots, but"),
            "ResponseError: MISCONF",
            id="it cannot save",
        ),
        pytest.param(
            redis.exceptions.ResponseError(f"Command # 1 (TIME) of pipeline caused error: ({BUSY!r},)"),
            "ResponseError: BUSY",
            id="a script blocks a pipeline",
        ),
        pytest.param(untrusted(20), "as the parameter ssl_ca_data", id="an unknown authority"),
        pytest.param(
            untrusted(10),
            "ConnectionError (the certificate is not trusted)",
            id="a certificate that has expired",
        ),
    ],
)
def test_what_passes_by_itself(error: Exception, says: str) -> None:
    unavailable = as_unavailable(error)
    assert unavailable is not None
    assert says in unavailable.problem


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(
            redis.exceptions.ResponseError(
                "WRONGTYPE Operation against a key holding the wrong kind of value"
            ),
            id="a key of another type",
        ),
        pytest.param(redis.exceptions.ResponseError("ERR the task is BUSY"), id="a code that is no code"),
        pytest.param(redis.exceptions.DataError("Invalid input of type"), id="a value that cannot be sent"),
    ],
)
def test_an_error_of_ours_is_not_taken_for_a_redis_that_is_away(error: Exception) -> None:
    assert as_unavailable(error) is None
