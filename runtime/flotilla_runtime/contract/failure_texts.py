"""Says what failed in words of ours, for conditions, events, logs and termination messages.

The text of another library's error may have a header, a URL with a password, or a body: h11 quotes the header
that it refuses, redis-py the command that Redis does not know, grpc all metadata. So of an error that is not
one of our own classes only its type is told, and what can hold no secret: a status, the system's words for an
errno, and OpenSSL's words for a certificate. A traceback is its places without the texts of its errors.
"""

import logging
import os
import socket
import ssl
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator, MutableMapping
from pathlib import Path
from typing import Any, Final

OURS: Final = frozenset({"flotilla_runtime", "flotilla_operator", "flotilla_cli"})
MOST_CAUSES: Final = 16
MOST_FIELDS: Final = 3
SHORTEST_SECRET: Final = 4  # a shorter one stands in too many words to be taken out
HIDDEN: Final = "…"


def what_failed(error: BaseException) -> str:
    """The failure: our own words, or the type of the error with what is safe to tell of it."""
    if is_ours(error):
        return str(error) or type(error).__name__
    details = list(dict.fromkeys(detail for each in causes_of(error) for detail in _details(each)))
    return f"{type(error).__name__} ({', '.join(details)})" if details else type(error).__name__


def what_and_where(error: BaseException) -> str:
    """The failure and its line of a program, for an error in code that a user brings."""
    places = traceback.extract_tb(error.__traceback__)
    at = f" in {Path(places[-1].filename).name}, line {places[-1].lineno}" if places else ""
    return f"{what_failed(error)}{at}"


def is_ours(error: BaseException) -> bool:
    """Whether this is an error of our own classes, whose texts are made for people and have no secret."""
    return type(error).__module__.partition(".")[0] in OURS


def causes_of(error: BaseException) -> Iterator[BaseException]:
    """The error, and those that it came from."""
    found: BaseException | None = error
    for _ in range(MOST_CAUSES):
        if found is None:
            return
        yield found
        found = (
            found.__cause__ or _wrapped(found) or (None if found.__suppress_context__ else found.__context__)
        )


def _wrapped(error: BaseException) -> BaseException | None:
    """The error that this one was made of, as libraries of HTTP do it."""
    return next((one for one in error.args if isinstance(one, BaseException)), None)


def _details(error: BaseException) -> Iterator[str]:
    status = getattr(error, "status", None) or getattr(error, "status_code", None)
    status = status or getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(status, int) and not isinstance(status, bool):
        yield f"status {int(status)}"
    of_system = getattr(error, "os_error", error)
    if of_system is not error and isinstance(host := getattr(error, "host", None), str):
        yield f"{host}:{getattr(error, 'port', '')}"
    if isinstance(of_system, ssl.SSLCertVerificationError):
        why = getattr(of_system, "verify_message", "")
        yield "the certificate is not trusted" + (f": {why}" if why else "")
    elif isinstance(of_system, socket.gaierror):
        yield "the name has no address"
    elif isinstance(of_system, OSError) and is_ours(of_system):
        yield of_system.strerror or str(of_system)
    elif isinstance(of_system, OSError) and of_system.errno is not None:
        yield os.strerror(of_system.errno)
    yield from _of_pydantic(error)


def _of_pydantic(error: BaseException) -> Iterator[str]:
    """The fields that are wrong and how, without their values."""
    if type(error).__module__.partition(".")[0] == "pydantic_core" and hasattr(error, "errors"):
        for one in error.errors(include_url=False, include_input=False, include_context=False)[:MOST_FIELDS]:
            yield f"{'.'.join(str(part) for part in one['loc'])}: {one['type']}"


def trace_of(error: BaseException) -> str:
    """The places that an error came through, and what_failed of it and of its causes."""
    parts = []
    for each in reversed(list(causes_of(error))):
        places = "".join(traceback.format_list(traceback.extract_tb(each.__traceback__)))
        parts.append(f"{places}{type(each).__name__}: {what_failed(each)}")
        if isinstance(each, BaseExceptionGroup):
            parts += [trace_of(one) for one in each.exceptions]
    return "\n\n".join(parts)


def shown_address(url: str) -> str:
    """A URL as a problem's message names it: without a user and a password."""
    start, slashes, rest = url.partition("//")
    host, slash, path = rest.partition("/")
    return f"{start}{slashes}{host.rpartition('@')[2]}{slash}{path}"


def without(text: str, secrets: Iterable[str | None]) -> str:
    """A text of a server without our secrets, which it may send back."""
    for secret in secrets:
        if secret is not None and len(secret) >= SHORTEST_SECRET:
            text = text.replace(secret, HIDDEN)
    return text


def traced(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A processor of structlog that renders `exc_info` as `trace_of` does."""
    given = event.pop("exc_info", None)
    if isinstance(given, tuple):
        given = given[1]
    elif given and not isinstance(given, BaseException):
        given = sys.exc_info()[1]
    if isinstance(given, BaseException):
        event["exception"] = trace_of(given)
    return event


class OfLibraries(logging.Filter):
    """Has records of libraries tell of errors what `what_failed` says."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record, which is always kept."""
        if isinstance(record.msg, BaseException):
            record.msg = what_failed(record.msg)
        if isinstance(record.args, tuple):
            record.args = tuple(_told(value) for value in record.args)
        elif record.args:
            record.args = {name: _told(value) for name, value in record.args.items()}
        record.exc_text = None
        return True


def _told(value: object) -> object:
    return what_failed(value) if isinstance(value, BaseException) else value


def tell_uncaught() -> None:
    """Have the process end with `trace_of` the error that nothing caught, in each of its threads."""

    def say(error: BaseException | None) -> None:
        if error is not None:
            sys.stderr.write(f"{trace_of(error)}\n")

    def of_process(kind: type[BaseException], error: BaseException, _trace: Any) -> None:
        if issubclass(kind, KeyboardInterrupt):
            return
        say(error)

    sys.excepthook = of_process
    threading.excepthook = lambda told: say(told.exc_value)
    sys.unraisablehook = lambda told: say(told.exc_value)
