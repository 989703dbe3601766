"""Reads HAProxy's replies on its admin socket; no other module does. Pure.

The words and tables are those of HAProxy 2.6 to 3.x, except for the reply to `flotilla held`, which
router.lua writes. runtime/tests/router/test_replies.py asks every supported HAProxy for them.

When a table changes, its reader raises UnexpectedReply: the agent logs it, and becomes unready when that
lasts. When the words of a success change, the command counts as refused: the agent logs it and, because it
plans from HAProxy's state and not from these words, goes on. Without the number of arrivals the status has no
rate.
"""

import csv
import io
from collections.abc import Iterable
from typing import Final

from flotilla_runtime.router.commands import AdminState
from flotilla_runtime.router.errors import UnexpectedReply
from flotilla_runtime.router.servers import Observed, ObservedServer

# The replies to commands that succeeded; an empty reply means success too.
GOOD_REPLIES: Final = ("New server registered.", "Server deleted.", "nothing changed")
GOOD_BEGINNINGS: Final = ("IP changed from ", "port changed from ", "no need to change the addr")
# A server that is to be deleted still has a connection; the next plan deletes it again.
RETRIED_REPLIES: Final = ("Server still has connections attached to it, cannot remove it.",)
FORCED_MAINTENANCE: Final = 0x01
FORCED_DRAIN: Final = 0x08
SHOWN_CHARACTERS: Final = 200


def is_good(reply: str) -> bool:
    """Whether this is the reply to a command of a plan that succeeded, or that the next plan repeats."""
    return not reply or reply in (*GOOD_REPLIES, *RETRIED_REPLIES) or reply.startswith(GOOD_BEGINNINGS)


def read_observed(state: str, statistics: str, control: str, keys: str) -> Observed:
    """The value of the replies to `show servers state`, `show stat` and two `show map`."""
    try:
        rows = {row["svname"]: row for row in _statistics(statistics)}
        backend = rows["BACKEND"]
        return Observed(
            servers=tuple(_server(row, rows.get(row["srv_name"])) for row in _server_states(state)),
            control=_map(control),
            keys=_map(keys),
            unassigned=_number(backend, "qcur"),
            unanswered=_number(backend, "scur"),
        )
    except (KeyError, ValueError, TypeError) as error:
        raise UnexpectedReply(
            f"the replies to 'show servers state' and 'show stat' cannot be parsed ({error!r}): "
            f"{state[:SHOWN_CHARACTERS]!r}, {statistics[:SHOWN_CHARACTERS]!r}"
        ) from error


def read_arrived(reply: str) -> int | None:
    """5 for `proc.arrived: type=sint value=<5>`; None for other replies, so a figure never stops a round."""
    digits = reply.rpartition("value=<")[2].removesuffix(">")
    return int(digits) if digits.isdecimal() else None


def read_held(reply: str) -> int:
    """The number in the reply to `flotilla held`."""
    if not reply.isdecimal():
        raise UnexpectedReply(f"the reply to 'flotilla held' is no number: {reply[:SHOWN_CHARACTERS]!r}")
    return int(reply)


def read_process(reply: str) -> tuple[str, str]:
    """Process id and start time in the reply to `show info`."""
    rows = (line.partition(": ") for line in reply.splitlines())
    info = {name: value for name, _, value in rows}
    try:
        return info["Pid"], info["Start_time_sec"]
    except KeyError as absent:
        raise UnexpectedReply(f"the reply to 'show info' has no {absent}") from None


def read_fingerprint(reply: str) -> str | None:
    """The fingerprint of the certificate in the reply to `show ssl cert`; None when HAProxy has none."""
    for line in reply.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "SHA1 FingerPrint":
            return value.strip()
    return None


def begins_transaction(reply: str) -> bool:
    """Whether `set ssl cert` took the certificate, so that it can be committed."""
    return "Transaction" in reply


def _server_states(text: str) -> Iterable[dict[str, str]]:
    """The rows of a reply with a version line, a header after '#', and one row for each server."""
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) < 2 or not lines[1].startswith("# "):
        raise ValueError("no header")
    header = lines[1][2:].split(" ")
    return [dict(zip(header, line.split(" "), strict=False)) for line in lines[2:]]


def _statistics(text: str) -> Iterable[dict[str, str]]:
    return csv.DictReader(io.StringIO(text.removeprefix("# ")))


def _number(row: dict[str, str], column: str) -> int:
    """The number in this column, which is empty for zero."""
    return int(row[column] or 0)


def _server(state: dict[str, str], statistics: dict[str, str] | None) -> ObservedServer:
    """One server; a server that was added between the two commands has no statistics yet."""
    figures = statistics or {"slim": "", "scur": "", "qcur": ""}
    return ObservedServer(
        name=state["srv_name"],
        id=int(state["srv_id"]),
        ip=state["srv_addr"],
        port=int(state["srv_port"]),
        admin=_admin_state(int(state["srv_admin_state"])),
        max_connections=_number(figures, "slim"),
        in_flight=_number(figures, "scur"),
        queued=_number(figures, "qcur"),
    )


def _admin_state(bits: int) -> AdminState:
    if bits & FORCED_MAINTENANCE:
        return AdminState.MAINTENANCE
    return AdminState.DRAIN if bits & FORCED_DRAIN else AdminState.READY


def _map(text: str) -> dict[str, str]:
    """The keys and values of a reply with rows of `address key value`."""
    rows = (line.split(" ", 2) for line in text.splitlines() if line.startswith("0x"))
    return {row[1]: row[2] for row in rows if len(row) == 3}
