"""One request as HAProxy logged it → a value; the only reader of the log line that frontend.py writes."""

import json
from dataclasses import dataclass

from flotilla_runtime.router.openai_errors import RefusalReason

NOTHING = "-"  # HAProxy's word for a value that is not there
NOT_A_SERVER = "<"  # how HAProxy's words begin for no server at all and for an answer of its own
ENDED_IN_QUEUE = "sQ"  # HAProxy's termination state of a request that waited too long
ENDED_BY_CALLER = "C"  # how the states begin of a request whose caller left


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRecord:
    """A request that has ended. None is what did not happen: no replica, no queue, no answer.

    `key_source` is where the conversation's key was found, None for least connections; `moved` says that the
    key's home was passed over for another replica; `aborted`, that the caller left. `first_byte_seconds` is
    the replica's time to its headers, `conversation` the hash of the conversation's key, `ended_at` the time
    of day in seconds since the epoch.
    """

    ended_at: float
    caller: str | None
    priority: str | None
    key_source: str | None
    conversation: str | None
    moved: bool
    refused: str | None
    replica: str | None
    status: int
    aborted: bool
    queue_seconds: float | None
    first_byte_seconds: float | None
    total_seconds: float | None


def parse_request(line: str) -> RequestRecord | None:
    """The record, or None for a line that is no request (HAProxy's own notices pass through the ring too)."""
    try:
        fields = json.loads(line)
        return _record(fields)
    except (ValueError, KeyError, TypeError):
        return None


def _record(fields: dict[str, str]) -> RequestRecord:
    refused = _text(fields["refused"])
    if refused is None and fields["termination"] == ENDED_IN_QUEUE:
        refused = RefusalReason.QUEUE_TIMEOUT.value
    return RequestRecord(
        ended_at=int(fields["endedMilliseconds"]) / 1000,
        caller=_text(fields["caller"]),
        priority=_text(fields["priority"]),
        key_source=_text(fields["key"]),
        conversation=_text(fields["conversation"]),
        moved=fields["moved"] == "1",
        refused=refused,
        replica=None if fields["replica"].startswith(NOT_A_SERVER) else _text(fields["replica"]),
        status=int(fields["status"]),
        aborted=fields["termination"].startswith(ENDED_BY_CALLER),
        queue_seconds=_seconds(fields["queueMilliseconds"]),
        first_byte_seconds=_seconds(fields["firstByteMilliseconds"]),
        total_seconds=_seconds(fields["totalMilliseconds"]),
    )


def _text(value: str) -> str | None:
    return None if value in ("", NOTHING) else value


def _seconds(milliseconds: str) -> float | None:
    """HAProxy writes -1 where it did not come so far."""
    return None if int(milliseconds) < 0 else int(milliseconds) / 1000
