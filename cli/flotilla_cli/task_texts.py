"""Tasks as text for a terminal. Pure.

What callers, models and tools wrote is shown without control characters, so that none of it draws on the
terminal of who reads it.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from flotilla_cli.approval_texts import MARK, approval_text
from flotilla_cli.tasks import waiting_for

HEADINGS: Final = ("ID", "STATUS", "WAITS FOR", "REASON", "TENANT", "PRIORITY", "SUBMITTED")
EVENT_HEADINGS: Final = ("PATH", "SECONDS", "EVENT", "CALL", "TARGET", "OUTCOME", "TOOK", "BY")
ON_PATH: Final = "*"
LONGEST_STEPS: Final = 10
SHOWN: Final = 2000  # characters of one text


def paragraphs(text: str) -> str:
    """A text without control characters but for ends of lines and tabs, so no terminal obeys a model."""
    return "".join(letter if letter in "\n\t" else _harmless(letter) for letter in text)


def plain(text: object) -> str:
    """A text without control characters, on one line, and not longer than is read."""
    shown = "".join(map(_harmless, str(text)))
    return shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}…"


def _harmless(letter: str) -> str:
    """A letter that draws nothing else, and is not the mark of our rows."""
    return letter if letter.isprintable() and letter != MARK else "\N{REPLACEMENT CHARACTER}"


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows under each other, in columns."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return "\n".join(
        "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def task_table(tasks: Sequence[Mapping[str, Any]]) -> str:
    """A list of tasks."""
    if not tasks:
        return "no tasks"
    return columns([HEADINGS, *map(_row, tasks)])


def task_page(task: Mapping[str, Any]) -> str:
    """A task with its timeline."""
    facts = [
        ("task", task["id"]),
        ("status", waiting_for(dict(task))),
        ("reason", ": ".join(filter(None, (task.get("reason"), task.get("message"))))),
        ("tenant", task.get("tenant") or ""),
        ("agent", task.get("agent") or ""),
        ("input", task.get("input") or ""),
        ("result", "" if task.get("result") is None else json.dumps(task["result"], ensure_ascii=False)),
        ("partial", "" if task.get("partial") is None else json.dumps(task["partial"], ensure_ascii=False)),
        ("replay of", task.get("replayOf") or ""),
        ("usage", _usage(task.get("usage") or {})),
        ("time", _time(task.get("time") or {})),
    ]
    parts = [columns([(name, plain(value)) for name, value in facts if value])]
    parts += [approval_text(task, approval) for approval in task.get("approvals") or []]
    path = task.get("criticalPath") or []
    parts += [critical_path(path)] if path else []
    parts.append(timeline(task.get("timeline") or [], {step.get("call") for step in path}))
    return "\n\n".join(part for part in parts if part)


def critical_path(steps: Sequence[Mapping[str, Any]]) -> str:
    """The calls that would have to be faster for the task to end sooner, the longest first."""
    total = sum(step["seconds"] for step in steps)
    longest = sorted(steps, key=lambda step: -step["seconds"])[:LONGEST_STEPS]
    rows = [
        (
            f"  {step['seconds']:.2f} s",
            plain(step["kind"]),
            plain(step.get("call") or ""),
            plain(f"{step.get('target') or ''}{_child(step)}"),
        )
        for step in longest
    ]
    more = f", the longest {len(longest)}" if len(longest) < len(steps) else ""
    return f"critical path: {total:.2f} s in {len(steps)} steps{more}\n{columns(rows)}"


def timeline(events: Sequence[Mapping[str, Any]], path: Collection[str | None] = ()) -> str:
    """The events of a task, by the seconds since its submission. Calls on the path are marked."""
    if not events:
        return "the timeline is forgotten"
    first = _moment(events[0]["at"])
    rows = [
        (
            ON_PATH if event.get("call") is not None and event["call"] in path else "",
            f"{(_moment(event['at']) - first).total_seconds():.2f}",
            str(event["event"]),
            plain(event.get("call") or _who(event)),
            plain(event.get("target") or ""),
            plain(" ".join(str(event[name]) for name in ("outcome", "reason", "problem") if event.get(name))),
            "" if event.get("seconds") is None else f"{event['seconds']:.2f} s",
            plain(event.get("by") or ""),
        )
        for event in events
    ]
    return columns([EVENT_HEADINGS, *rows])


def _row(task: Mapping[str, Any]) -> tuple[str, ...]:
    waits = task.get("waitsFor") or {}
    return (
        plain(task["id"]),
        plain(task["status"]),
        plain(f"{waits['kind']} {waits['call']}" if waits else ""),
        plain(task.get("reason") or ""),
        plain(task.get("tenant") or ""),
        plain(task.get("priority") or ""),
        plain(task.get("submittedAt") or ""),
    )


def _child(step: Mapping[str, Any]) -> str:
    return f"task {step['task']}" if step.get("task") else ""


def _who(event: Mapping[str, Any]) -> str:
    if event.get("waitsFor"):
        return f"{event['waitsFor']['kind']} {event['waitsFor']['call']}"
    return f"attempt {event.get('attempt')}, {event['worker']}" if event.get("worker") else ""


def _usage(usage: Mapping[str, Any]) -> str:
    if not usage:
        return ""
    cost = "" if usage.get("costUSD") is None else f", ${usage['costUSD']:.4f}"
    return f"{usage['steps']} steps, {usage['tokens']} tokens{cost}"


def _time(time: Mapping[str, Any]) -> str:
    return ", ".join(f"{part} {seconds:.2f} s" for part, seconds in time.items())


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
