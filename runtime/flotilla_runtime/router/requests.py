"""The line that HAProxy logs for each request: its format for HAProxy, and its reader. Pure.

HAProxy 2.6 to 3.x fills in the format. The line is the pod's access log, and the agent makes its metrics and
tallies from it. The words are HAProxy's, except for the names of the fields and what the rules of frontend.py
and router.lua have set in variables. A line that cannot be read counts nowhere. If HAProxy's words for a
request without a server, in the queue or without its caller changed, such requests would count as others;
runtime/tests/router/test_requests.py and test_router_service.py there let real HAProxies write them.
"""

import json
from dataclasses import dataclass

from flotilla_runtime.router.openai_errors import RefusalReason

NOTHING = "-"  # HAProxy writes this for a missing value
NOT_A_SERVER = "<"  # HAProxy's words for no server, and for its own answers, begin with this
ENDED_IN_QUEUE = "sQ"  # HAProxy's termination state of a request that timed out in the queue
ENDED_BY_CALLER = "C"  # the termination states of requests whose caller left begin with this

# One JSON object. HAProxy replaces each value; `json(utf8s)` escapes a text and drops what is not UTF-8.
FIELDS = {
    "endedMilliseconds": "%[date(0,ms)]",
    "request": "%[var(txn.request_id),json(utf8s)]",
    "caller": "%[var(txn.caller),json(utf8s)]",
    "priority": "%[var(txn.priority),json(utf8s)]",
    "key": "%[var(txn.key_source),json(utf8s)]",
    "conversation": "%[var(txn.key)]",
    "moved": "%[var(txn.moved),json(utf8s)]",
    "refused": "%[var(txn.refused),json(utf8s)]",
    "replica": "%s",
    "path": "%[var(txn.path),json(utf8s)]",
    "status": "%ST",
    "termination": "%ts",
    "queueMilliseconds": "%Tw",
    "firstByteMilliseconds": "%Tr",
    "totalMilliseconds": "%Ta",
}
LINE_FORMAT = "{" + ",".join(f'"{key}":"{value}"' for key, value in FIELDS.items()) + "}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRecord:
    """A request that has ended. None stands for what did not happen: no replica, no queue, no answer.

    `key_source` says where the conversation's key was found; it is None for a choice by least connections.
    `moved`: another replica than the home of the conversation was chosen. `aborted`: the caller left.
    `first_byte_seconds` is the replica's time until its headers, `conversation` the hash of the
    conversation's key, and `ended_at` the time in seconds since the epoch.
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
    """The record, or None for a line that is no request: HAProxy writes its own notices to the ring too."""
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
    """The seconds; None for -1, which HAProxy writes when a request did not reach that phase."""
    return None if int(milliseconds) < 0 else int(milliseconds) / 1000
