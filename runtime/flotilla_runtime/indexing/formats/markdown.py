"""Parses Markdown into sections by headings; the text is kept as written, without the targets of links."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from flotilla_runtime.indexing.errors import DocumentError, DocumentReason
from flotilla_runtime.indexing.formats.encoding import decode
from flotilla_runtime.indexing.records import ParsedDocument, Section

ATX = re.compile(r" {0,3}(#{1,6})\s+(.*?)\s*#*\s*$")
SETEXT = re.compile(r" {0,3}(=+|-+)\s*$")
FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
FRONT_MATTER = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)
FRONT_TITLE = re.compile(r"^title:\s*[\"']?(.*?)[\"']?\s*$", re.MULTILINE)
IMAGE = re.compile(r"!\[([^\]]*)\]\([^)]*\)")
LINK = re.compile(r"\[([^\]]+)\]\([^)]*\)")
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
NOT_IN_ANCHORS = re.compile(r"[^\w\- ]")


def parse_markdown(content: bytes, name: str) -> ParsedDocument:
    """Title and sections; the title is that of the front matter, else the first heading, else `name`."""
    text = decode(content).replace("\r\n", "\n")
    front = FRONT_MATTER.match(text)
    title = FRONT_TITLE.search(front.group(1)) if front else None
    walk = _Walk()
    walk.over(COMMENT.sub("", text[front.end() :] if front else text))
    if not walk.sections:
        raise DocumentError(DocumentReason.NO_TEXT, "the document contains no text")
    first = title.group(1) if title else next((s.headings[0] for s in walk.sections if s.headings), name)
    return ParsedDocument(title=first, sections=tuple(walk.sections))


def anchor_of(heading: str) -> str:
    """The anchor that code hosting sites give a heading."""
    return NOT_IN_ANCHORS.sub("", heading.lower()).strip().replace(" ", "-")


@dataclass(slots=True)
class _Walk:
    sections: list[Section] = field(default_factory=list)
    headings: list[tuple[int, str]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def over(self, text: str) -> None:
        for line, heading_level in _lines(text):
            if heading_level == 0:
                self.lines.append(line)
                continue
            if heading_level < 0:  # an underline made the line before it a heading
                heading, level = self.lines.pop(), -heading_level
            else:
                heading, level = line, heading_level
            self._end_section()
            while self.headings and self.headings[-1][0] >= level:
                self.headings.pop()
            self.headings.append((level, LINK.sub(r"\1", heading.strip())))
        self._end_section()

    def _end_section(self) -> None:
        text = LINK.sub(r"\1", IMAGE.sub(r"\1", "\n".join(self.lines))).strip()
        self.lines = []
        if text:
            headings = tuple(heading for _, heading in self.headings)
            anchor = anchor_of(headings[-1]) if headings else None
            self.sections.append(Section(text=text, headings=headings, anchor=anchor))


def _lines(text: str) -> Iterator[tuple[str, int]]:
    """Each line with 0 for text, its level as a heading, or minus the level that it gives the line before."""
    fence = ""
    previous = ""
    for line in text.split("\n"):
        if marks := FENCE.match(line):
            fence = "" if fence and marks.group(1).startswith(fence) else fence or marks.group(1)
            yield line, 0
        elif fence:
            yield line, 0
        elif heading := ATX.match(line):
            yield heading.group(2), len(heading.group(1))
            line = ""  # noqa: PLW2901 (what an underline below it would refer to)
        elif previous.strip() and (underline := SETEXT.match(line)):
            yield line, -1 if underline.group(1).startswith("=") else -2
            line = ""  # noqa: PLW2901
        else:
            yield line, 0
        previous = line
