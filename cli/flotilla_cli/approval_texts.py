"""Calls that wait for approval, as text for who decides on them. Pure.

A model wrote the arguments, and may want to look like us. So each row of ours begins with a mark, and nothing
of others does: their lines are indented and broken by us before a terminal breaks them, and a mark in them is
escaped. All that a terminal
obeys, hides, turns round or draws like something else is escaped as JSON escapes it, and a long run of one
letter is counted. `arguments_of` reads the arguments back from what is shown.
"""

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any, Final

from flotilla_cli.tasks import approval_command
from flotilla_runtime.contract.approvals import approved_call, is_asked_again

MARK: Final = "▌"
INDENT: Final = "    "
GOES_ON: Final = "↪ "  # begins a line that belongs to the one before
WIDTH: Final = 72  # columns of a line, beside what it begins with
VALUES_FROM: Final = len("call       ")  # the column of the values in our rows
ONE_WORD: Final = re.compile(
    r"[A-Za-z0-9/#@._-]+"
)  # a call's id that cannot look like a row, however it is broken
MOST_INDENTED: Final = 20
MOST_SPACES: Final = 8  # in a row, before they are counted
MOST_ALIKE: Final = 40
COUNTED: Final = re.compile(r"…\(([\d,]+) (?:spaces|times (.+?))\)…")
UNIT: Final = re.compile(r"\\u[0-9a-f]{4}|\\.|.", re.DOTALL)
WORD: Final = re.compile(r"\S+")
# Drawn as nothing, although they count as printable.
BLANK: Final = frozenset("\u115f\u1160\u3164\uffa0")
TURNED_ROUND: Final = frozenset({"R", "AL", "AN"})  # letters that a terminal may write from right to left
PUNCTUATION: Final = frozenset("“”‘’„«»–—·§°×±¿¡€£¥")
# Letters that may stand beside those of ASCII, with accents; all others may be drawn like one of ASCII.
BESIDE_ASCII: Final = frozenset("ßẞæÆøØœŒłŁđĐðÐþÞħĦŋŊ")
NAMES_BESIDE_ASCII: Final = (
    "CJK UNIFIED",
    "HIRAGANA",
    "KATAKANA",
    "HANGUL SYLLABLE",
    "IDEOGRAPHIC ITERATION",
)
DRAWN_AS_ASCII: Final = frozenset("丨〇")  # of these, but like l or o


def approval_text(task: Mapping[str, Any], approval: Mapping[str, Any]) -> str:
    """A call that waits for approval, in whole, and how to decide."""
    until = f" until {row(str(approval['untilTime']))}" if approval.get("untilTime") else ""
    arguments = list(indented(approval.get("arguments")))
    return "\n".join(
        [
            *_marked(f"waits for approval{until}"),
            f"{MARK} arguments, {len(arguments)} indented lines:",
            *arguments,
            f"{MARK} end of the arguments",
            *(line for each in about(task, approval) for line in _marked(each)),
            *_command(str(task["id"]), str(approval["call"])),
        ]
    )


def about(task: Mapping[str, Any], approval: Mapping[str, Any]) -> list[str]:
    """The call, where it goes, and for whom it is made: a text for each."""
    call, where = str(approval["call"]), approval.get("destination")
    unknown = (
        "the gateway does not say" if approved_call(call) != call else "no tool: the agent asks by itself"
    )
    again = "made before, when it may have happened; somebody, or its tool, says that it did not"
    return [
        f"call       {row(call)}",
        *([f"again      {again}"] if is_asked_again(call) else []),
        f"target     {row(str(approval['target']))}",
        f"goes to    {row(str(where)) if where else unknown}",
        f"tenant     {row(str(task.get('tenant') or ''))}",
    ]


def question(task: Mapping[str, Any], approval: Mapping[str, Any], *, refuse: bool) -> str:
    """The question for somebody at a terminal, with the target again."""
    where = f" ({row(str(approval['destination']))})" if approval.get("destination") else ""
    verb = "Refuse" if refuse else "Approve"
    tenant = row(str(task.get("tenant") or ""))
    asked = f"{verb} this call of {row(str(approval['target']))}{where} for the tenant {tenant}?"
    return "\n".join(_marked(asked))


def row(text: str) -> str:
    """A text on one line, escaped: for who decides on it, or pastes it into a shell."""
    return _counted(_shown(text.replace("\\", "\\\\")))


def indented(value: Any) -> Iterator[str]:
    """The lines of a JSON value, from which `arguments_of` reads it back."""
    for depth, text in _lines(json.dumps(value, ensure_ascii=False)):
        line = " " * min(2 * depth, MOST_INDENTED) + _counted(_shown(text))
        for number, part in enumerate(_broken(line, WIDTH)):
            yield f"{INDENT}{GOES_ON if number else ''}{part}"


def arguments_of(text: str) -> Any:
    """The arguments that `approval_text` has shown."""
    parts: list[str] = []
    for line in text.split("\n"):
        if not line.startswith(INDENT):
            continue
        shown = line.removeprefix(INDENT)
        if shown.startswith(GOES_ON):
            parts[-1] += shown.removeprefix(GOES_ON)
        else:
            parts.append(shown)
    whole = COUNTED.sub(lambda found: (found[2] or " ") * int(found[1].replace(",", "")), "\n".join(parts))
    return json.loads(whole)


def _command(task: str, call: str) -> list[str]:
    """The command that decides. Only where a call's id is not one word is it broken, and cannot be pasted."""
    command = _shown(approval_command(task, call))
    return [f"{MARK} {command}"] if ONE_WORD.fullmatch(call) else _marked(command)


def _marked(text: str) -> list[str]:
    """A row of ours. Where it goes on, it does so in the column of the values, where no row begins."""
    first, *more = _broken(text, WIDTH)
    rest = [part for each in more for part in _broken(each, WIDTH - VALUES_FROM)]
    return [f"{MARK} {first}", *(f"{MARK} {' ' * VALUES_FROM}{GOES_ON}{part}" for part in rest)]


def _broken(text: str, width: int) -> list[str]:
    """The parts of a text, none wider than this many columns of a terminal."""
    parts, start, used = [], 0, 0
    for place, letter in enumerate(text):
        columns = 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        if used + columns > width:
            parts.append(text[start:place])
            start, used = place, 0
        used += columns
    return [*parts, text[start:]]


def _lines(document: str) -> Iterator[tuple[int, str]]:
    """The lines of a JSON text, one for each value, with how deep each is. No recursion: it may be deep."""
    depth, line, in_string, is_escaped = 0, "", False, False
    for place, letter in enumerate(document):
        if in_string:
            line += letter
            in_string = is_escaped or letter != '"'
            is_escaped = letter == "\\" and not is_escaped
        elif letter in "{[":
            is_empty = document[place + 1] in "}]"
            line += letter
            if not is_empty:
                yield depth, line
                line = ""
            depth += 1
        elif letter in "}]":
            depth -= 1
            if line and line[-1] not in "{[":
                yield depth + 1, line
                line = ""
            line += letter
        elif letter == ",":
            yield depth, f"{line},"
            line = ""
        elif letter != " " or line:
            line += letter
            in_string = letter == '"'
    yield depth, line


def _shown(text: str) -> str:
    """A text with all that is not plainly itself escaped."""
    if text.isascii() and text.isprintable():
        return text
    out, place = [], 0
    for word in WORD.finditer(text):
        out += [_letter(each, "") for each in text[place : word.start()]]
        plain = "".join(unit for unit in UNIT.findall(word[0]) if unit[0] != "\\")
        is_mixed = any(each.isascii() and each.isalnum() for each in plain)
        before = ""
        for each in word[0]:
            out.append(_escape(each) if is_mixed and _looks_alike(each) else _letter(each, before))
            before = each
        place = word.end()
    return "".join([*out, *(_letter(each, "") for each in text[place:])])


def _letter(letter: str, before: str) -> str:
    if " " <= letter <= "~":
        return letter
    category = unicodedata.category(letter)
    is_plain = category[0] in "LN" or letter in PUNCTUATION or category == "Mc"
    is_accent = category == "Mn" and before.isalpha() and not before.isascii()
    folded = unicodedata.normalize("NFKC", letter)
    if (
        not (is_plain or is_accent)
        or category == "Nd"
        or letter in BLANK
        or not letter.isprintable()
        or unicodedata.bidirectional(letter) in TURNED_ROUND
        or (folded != letter and folded.isascii())
    ):
        return _escape(letter)
    return letter


def _escape(letter: str) -> str:
    return json.dumps(letter)[1:-1]


def _looks_alike(letter: str) -> bool:
    """Whether a letter may be drawn like one of ASCII, which stands beside it."""
    if letter.isascii() or letter in BESIDE_ASCII or letter in PUNCTUATION:
        return False
    if unicodedata.name(letter, "").startswith(NAMES_BESIDE_ASCII):
        return letter in DRAWN_AS_ASCII
    base, *accents = list(unicodedata.normalize("NFD", letter))
    return not (base.isascii() and base.isalpha() and all(map(unicodedata.combining, accents)))


def _counted(text: str) -> str:
    """A text in which long runs of one letter are counted."""
    out: list[str] = []
    run, times = "", 0
    for unit in [*UNIT.findall(text), ""]:
        if unit == run and times:
            times += 1
            continue
        most = MOST_SPACES if run == " " else MOST_ALIKE
        what = "spaces" if run == " " else f"times {run}"
        out.append(f"…({times:,} {what})…" if times > most else run * times)
        run, times = unit, 1
    return "".join(out)
