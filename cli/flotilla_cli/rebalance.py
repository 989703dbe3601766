"""Asks the operator which moves of replicas would raise a set's placement score, or asks it to make them.

The request is the annotation flotilla.dev/rebalance, and the answer is in the set's status. So whoever may
change the set may do this. kubectl reads and writes both, with the user's own context and credentials.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from flotilla_cli.kubectl import Kubectl
from flotilla_operator.api.annotations import ANNOTATION_REBALANCE

RESOURCE = "modelreplicasets.flotilla.dev"
ENDED = frozenset({"Shown", "Done", "Stopped", "Refused"})
GOOD = frozenset({"Shown", "Done"})
POLL_SECONDS = 1.0
HEADINGS = ("STEP", "REPLICA", "FROM", "TO", "GAIN", "ACCELERATORS RESTARTED", "SESSIONS LOST", "PHASE")


class RebalanceError(RuntimeError):
    """The request could not be made, or was not answered in time; the message says which and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The answer to one request in the set's status."""

    phase: str
    message: str
    moves: tuple[dict[str, Any], ...]

    @property
    def ended(self) -> bool:
        """Whether this is the last answer."""
        return self.phase in ENDED

    @property
    def good(self) -> bool:
        """Whether the request was fulfilled."""
        return self.phase in GOOD


def asked(
    kubectl: Kubectl,
    name: str,
    value: str,
    *,
    namespace: str | None = None,
    timeout_seconds: float = 3600,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Progress]:
    """Make the request, and yield each answer that differs from the one before, until the last one."""
    where = [] if namespace is None else ["--namespace", namespace]
    started = clock()
    kubectl(["annotate", RESOURCE, name, *where, "--overwrite", f"{ANNOTATION_REBALANCE}={value}"])
    last: Progress | None = None
    while last is None or not last.ended:
        found = progress_of(json.loads(kubectl(["get", RESOURCE, name, *where, "--output", "json"])), value)
        if found is not None and found != last:
            yield found
            last = found
        elif clock() - started > timeout_seconds:
            state = "the operator has not answered yet" if last is None else f"{last.phase}: {last.message}"
            raise RebalanceError(
                f"the rebalance of {name} has not ended after {timeout_seconds:.0f} s; {state}; raise "
                "--timeout-seconds to wait longer"
            )
        else:
            sleep(POLL_SECONDS)


def progress_of(manifest: dict[str, Any], value: str) -> Progress | None:
    """The answer to this request in the status; None while the status answers another one."""
    placement = (manifest.get("status") or {}).get("placement") or {}
    told = placement.get("rebalance") or {}
    if told.get("asked") != value:
        return None
    return Progress(
        phase=told["phase"], message=told.get("message") or "", moves=tuple(placement.get("moves") or ())
    )


def table(moves: Sequence[dict[str, Any]]) -> str:
    """The moves as a table; an empty string for no moves."""
    if not moves:
        return ""
    rows = [HEADINGS, *(_row(move) for move in moves)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    return "\n".join(
        "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _row(move: dict[str, Any]) -> tuple[str, ...]:
    sessions = move.get("sessionsLost")
    return (
        str(move.get("step", "")),
        move["group"],
        ",".join(move["fromNodes"]),
        ",".join(move["toNodes"]),
        f"+{move['gain']:.2f}",
        str(move["acceleratorsRestarted"]),
        "unknown" if sessions is None else str(sessions),
        move["phase"],
    )
