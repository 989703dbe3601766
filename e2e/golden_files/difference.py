"""Differences of two rendered texts, part by part: short enough to be reviewed, and without loss.

It is a unified diff of each part, changed in two ways. The head of a hunk names the path of its lines instead
of line numbers, so a change elsewhere in the part does not touch it. And a new part that is much like another
one, as the second pod of a group is like the first, is shown as a diff of that one.

`restored` gives the whole text back. Each hunk has as much context as it takes to find its place, and
`difference` restores every text that it is given before it answers.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from itertools import takewhile

from golden_files.parts import Part, renamed, replaced

CONTEXT_LINES = 2
# A new part is shown as a diff of another one when that takes at most this share of its own lines.
LIKENESS = 0.4
LEGEND = (
    "All parts in their order. ~ is changed, + is new, - is gone, no mark is unchanged;"
    " `like` names the part that a new one is compared with."
)
MARKED = re.compile(r"([ ~+-]) (.+?)(?:, like (.+))?")
Opcode = tuple[str, int, int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """A whole golden file, and the words that a scenario has instead of this file's.

    `owner` is the name of this file's object and the scenario's, `ids` are further words. They are replaced
    before the two are compared.
    """

    file: str
    parts: Sequence[Part]
    owner: tuple[str, str] | None = None
    ids: Mapping[str, str] = field(default_factory=dict)

    def heading(self) -> str:
        """The first lines of a difference."""
        words = [*([self.owner] if self.owner else []), *self.ids.items()]
        instead = [f"  {old} -> {new}" for old, new in words if old != new]
        told = ["These words of it are replaced first:", *instead] if instead else []
        return "\n".join([f"What differs from {self.file}.", *told])

    def adapted(self) -> list[Part]:
        """The parts with the scenario's words."""
        parts = replaced(self.parts, self.ids)
        return renamed(parts, *self.owner) if self.owner else parts


def difference(whole: Whole, parts: Sequence[Part]) -> str:
    """The heading, the list of all parts, then the lines of those that changed or are new."""
    base = whole.adapted()
    there, here = _by_title(base), _by_title(parts)
    known = dict(there)
    contents, details = [], []
    for title, part in here.items():
        if part == there.get(title):
            contents.append(f"  {title}")
            continue
        mark, lines = (f"~ {title}", _hunks(there[title], part)) if title in there else _new(part, known)
        known[title] = part
        contents.append(mark)
        details.append([mark, *lines])
    gone = [f"- {title}" for title in there if title not in here]
    blocks = [[whole.heading()], [LEGEND, *contents, *gone], *details]
    text = "\n".join("\n".join(block) + "\n" for block in blocks)
    assert restored(text, base) == [(part.title, part.lines) for part in parts]
    return text


def restored(text: str, base: Sequence[Part]) -> list[tuple[str, tuple[str, ...]]]:
    """Title and lines of each part that the difference was made for."""
    _, (_, *contents), *details = [block.split("\n") for block in text.removesuffix("\n").split("\n\n")]
    changes = {mark: lines for mark, *lines in details}
    known = {part.title: part.lines for part in base}
    parts = []
    for line in contents:
        found = MARKED.fullmatch(line)
        assert found, line
        mark, title, like = found.groups()
        if mark == "-":
            continue
        if line in changes:
            known[title] = _applied(changes[line], known[like or title] if like or mark == "~" else ())
        parts.append((title, known[title]))
    return parts


def _by_title(parts: Sequence[Part]) -> dict[str, Part]:
    titled = {part.title: part for part in parts}
    assert len(titled) == len(parts), "two parts have one title"
    return titled


def _new(part: Part, known: Mapping[str, Part]) -> tuple[str, list[str]]:
    """The mark of a new part and its lines: all of them, or a diff of the part that it is most like."""
    kind = part.title.split()[0]
    alike = {title: _hunks(other, part) for title, other in known.items() if title.split()[0] == kind}
    nearest = min(alike, key=lambda title: len(alike[title]), default=None)
    if nearest is None or len(alike[nearest]) > LIKENESS * len(part.lines):
        return f"+ {part.title}", [f"+{line}" for line in part.lines]
    return f"+ {part.title}, like {nearest}", alike[nearest]


def _hunks(old: Part, new: Part) -> list[str]:
    lines: list[str] = []
    done = 0
    matcher = SequenceMatcher(None, old.lines, new.lines, autojunk=False)
    for group in matcher.get_grouped_opcodes(CONTEXT_LINES):
        _, first, *_ = group[0]
        end = group[-1][2]
        start = _certain_start(old.lines, first, end, done)
        lines.append(f"@@ {_common_path(group, old, new)}".rstrip())
        lines += [f" {line}" for line in old.lines[start:first]]
        for tag, i1, i2, j1, j2 in group:
            if tag == "equal":
                lines += [f" {line}" for line in old.lines[i1:i2]]
            else:
                lines += [f"-{line}" for line in old.lines[i1:i2]]
                lines += [f"+{line}" for line in new.lines[j1:j2]]
        done = end
    return lines


def _certain_start(lines: Sequence[str], start: int, end: int, done: int) -> int:
    """`start`, or so far before it that the lines from there to `end` have their first match there."""
    while _first_match(lines, lines[start:end], done) != start:
        start -= 1
    return start


def _first_match(lines: Sequence[str], wanted: Sequence[str], start: int) -> int:
    places = range(start, len(lines) - len(wanted) + 1)
    return next(place for place in places if lines[place : place + len(wanted)] == wanted)


def _common_path(group: Sequence[Opcode], old: Part, new: Part) -> str:
    paths = []
    for tag, i1, i2, j1, j2 in group:
        if tag != "equal":
            paths += [*old.paths[i1:i2], *new.paths[j1:j2]]
    common = takewhile(lambda level: len(set(level)) == 1, zip(*paths, strict=False))
    return "".join(level[0] for level in common).removeprefix(".")


def _applied(hunks: Sequence[str], lines: tuple[str, ...]) -> tuple[str, ...]:
    result: list[str] = []
    done = 0
    for hunk in _split(hunks):
        before = tuple(line[1:] for line in hunk if line[0] != "+")
        place = _first_match(lines, before, done)
        result += [*lines[done:place], *(line[1:] for line in hunk if line[0] != "-")]
        done = place + len(before)
    return (*result, *lines[done:])


def _split(lines: Sequence[str]) -> list[list[str]]:
    """The lines of each hunk, without its head; the lines of a new part have no head."""
    hunks: list[list[str]] = [[]]
    for line in lines:
        if line.startswith("@@"):
            hunks.append([])
        else:
            hunks[-1].append(line)
    return [hunk for hunk in hunks if hunk]
