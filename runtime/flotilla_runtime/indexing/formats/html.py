"""Parses HTML by its structure: keeps headings, anchors, tables and code, and drops navigation.

The tree is walked once, in document order, with an explicit stack, because broken pages can be nested deeper
than Python can recurse. trafilatura was tried on the PostgreSQL manual: it drops headings and breaks inline
code into blocks, and people ask for the content of both.
"""

import re
from dataclasses import dataclass, field

from selectolax.lexbor import LexborHTMLParser, LexborNode

from flotilla_runtime.indexing.errors import DocumentError, DocumentReason
from flotilla_runtime.indexing.formats.encoding import decode
from flotilla_runtime.indexing.records import ParsedDocument, Section

NEVER_TEXT = "head, script, style, noscript, template, svg, iframe, object, canvas, select, button"
NAVIGATION = (
    "nav, aside, footer, [role=navigation], [role=banner], [role=contentinfo], [role=search], "
    ".navheader, .navfooter, .navbar, .breadcrumb, .breadcrumbs, .sidebar, .headerlink"
)
CONTENTS = ".toc, #toc, .table-of-contents, .contents"
MAIN = "main, [role=main]"

HEADINGS = {"h1": 1, "h2": 2, "h3": 3, "h4": 4, "h5": 5, "h6": 6}
TERM_LEVEL = 7  # a term of a definition list with an id starts a section, at a level below all headings
BLOCKS = frozenset(
    (
        *(
            "address",
            "article",
            "blockquote",
            "body",
            "caption",
            "center",
            "dd",
            "details",
            "div",
            "dl",
            "dt",
        ),
        *(
            "fieldset",
            "figcaption",
            "figure",
            "footer",
            "form",
            "header",
            "hr",
            "li",
            "main",
            "ol",
            "p",
            "pre",
        ),
        *("section", "summary", "table", "tbody", "tfoot", "thead", "tr", "ul"),
    )
)
CELLS = frozenset({"td", "th"})
ANCHORED = frozenset({"div", "section", "article", "dt", "a", *HEADINGS})
DECLARED = re.compile(rb"""(?:charset|encoding)\s*=\s*["']?\s*([\w.:-]+)""", re.IGNORECASE)
DECLARATION_BYTES = 1024  # by the HTML standard, a declaration is within these first bytes
SPACE = re.compile(r"\s+")


def parse_html(content: bytes, name: str) -> ParsedDocument:
    """Title and sections of a page; `name` is the title when the page has none."""
    declared = DECLARED.search(content[:DECLARATION_BYTES])
    text = decode(content, declared.group(1).decode("ascii") if declared else None)
    # If nothing is left without the table of contents or the navigation, they are the page's content.
    for noise in (f"{NEVER_TEXT}, {NAVIGATION}, {CONTENTS}", f"{NEVER_TEXT}, {NAVIGATION}", NEVER_TEXT):
        tree = LexborHTMLParser(text)
        title = _title(tree)
        for node in tree.css(noise):
            node.decompose()
        walk = _Walk()
        walk.over(tree.css_first(MAIN) or tree.body)
        if walk.sections:
            first = next((s.headings[0] for s in walk.sections if s.headings), "")
            return ParsedDocument(title=title or first or name, sections=tuple(walk.sections))
    raise DocumentError(DocumentReason.NO_TEXT, "the page contains no text")


def _title(tree: LexborHTMLParser) -> str:
    node = tree.css_first("head > title")
    return SPACE.sub(" ", node.text()).strip() if node else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """A place in the structure of a page."""

    headings: tuple[tuple[int, str], ...]
    anchor: str | None


@dataclass(slots=True)
class _Walk:
    """One pass over a tree, which collects text into blocks and blocks into sections."""

    sections: list[Section] = field(default_factory=list)
    headings: list[tuple[int, str]] = field(default_factory=list)
    blocks: list[str] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    anchor: str | None = None
    pending_anchor: str | None = None
    verbatim: int = 0
    lists: list[_Place] = field(default_factory=list)  # where each open definition list began

    def over(self, root: LexborNode | None) -> None:
        """Walk the whole tree below `root`."""
        stack = [(root, False)] if root is not None else []
        while stack:
            node, leaving = stack.pop()
            if leaving:
                self._leave(node)
                continue
            self._enter(node)
            stack.append((node, True))
            children = list(node.iter(include_text=True))
            stack.extend((child, False) for child in reversed(children))
        self._end_section()

    def _enter(self, node: LexborNode) -> None:
        tag = node.tag or ""
        if tag == "-text":
            self._add(node.text(deep=False) or "")
            return
        identity = (node.attributes.get("id") or node.attributes.get("name")) if tag in ANCHORED else None
        if _level(node):
            self._end_section()
            self.anchor = node.attributes.get("id") or self.pending_anchor
            self.pending_anchor = None
        elif identity:
            self.pending_anchor = identity
        if tag == "br":
            self.text.append("\n")
        elif tag in CELLS:
            self.text.append(" | " if "".join(self.text).strip() else "")
        elif tag in BLOCKS:
            self._end_block()
        if tag == "dl":
            self.lists.append(_Place(headings=tuple(self.headings), anchor=self.anchor))
        elif tag == "pre":
            self.verbatim += 1
        elif tag == "li":
            self.text.append("- ")

    def _leave(self, node: LexborNode) -> None:
        tag = node.tag or ""
        level = _level(node)
        if level:
            self._start_section(level)
        elif tag in BLOCKS:
            self._end_block()
        if tag == "pre":
            self.verbatim -= 1
        elif tag == "dl":
            self._end_list()

    def _add(self, text: str) -> None:
        self.text.append(text if self.verbatim else SPACE.sub(" ", text))

    def _take_text(self) -> str:
        text = "".join(self.text)
        self.text.clear()
        lines = (line.strip() if not self.verbatim else line.rstrip() for line in text.split("\n"))
        return "\n".join(lines).strip("\n")

    def _end_block(self) -> None:
        block = self._take_text()
        if block.strip() not in ("", "-"):
            self.blocks.append(block)

    def _start_section(self, level: int) -> None:
        heading = SPACE.sub(" ", self._take_text()).strip()
        while self.headings and self.headings[-1][0] >= level:
            self.headings.pop()
        if heading:
            self.headings.append((level, heading))

    def _end_list(self) -> None:
        """End the section of the list's last term, because the text after the list is not about it."""
        before = self.lists.pop()
        if self.headings and self.headings[-1][0] == TERM_LEVEL:
            self._end_section()
            self.headings, self.anchor = list(before.headings), before.anchor

    def _end_section(self) -> None:
        self._end_block()
        if self.blocks:
            headings = tuple(heading for _, heading in self.headings)
            self.sections.append(
                Section(text="\n\n".join(self.blocks), headings=headings, anchor=self.anchor)
            )
            self.blocks = []


def _level(node: LexborNode) -> int | None:
    """The level of a heading; None for any other node."""
    if node.tag == "dt" and node.attributes.get("id"):
        return TERM_LEVEL
    return HEADINGS.get(node.tag or "")
