"""Results of each parser, and documents that it refuses. Whole builds: test_builds."""

import asyncio
import io
import zlib
from collections.abc import Iterator

import pypdfium2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flotilla_runtime.indexing.errors import DocumentError, DocumentReason
from flotilla_runtime.indexing.formats.encoding import decode
from flotilla_runtime.indexing.formats.html import parse_html
from flotilla_runtime.indexing.formats.markdown import parse_markdown
from flotilla_runtime.indexing.parsing import ParserProcess, memory_of_parser, parse
from flotilla_runtime.indexing.records import ParsedDocument, Section
from indexing_support.crashing import crashing_parser
from tests.support.generated import seldom_drawn

MIB = 2**20
NO_MEMORY = DocumentReason.PARSER_OUT_OF_MEMORY
PAGE = b"""<?xml version="1.0" encoding="UTF-8"?>
<html><head><title>11.2. Index  Types</title><style>p {}</style></head><body>
<div class="navheader"><a href="x">Prev</a></div>
<div class="sect1" id="TYPES"><h2>11.2. Index Types</h2>
<div class="toc"><a href="#BTREE">B-Tree</a></div>
<p>Use <code>CREATE
   INDEX</code>.</p>
<div id="BTREE"><h3>B-Tree</h3><p>Sorted.</p><pre>SELECT 1
  FROM t;</pre>
<table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td>2</td></tr></table>
<ul><li>one</li><li>two</li></ul></div>
<dl><dt id="GUC-FSYNC">fsync (boolean)</dt><dd><p>Keep it on.</p></dd></dl>
</div><script>alert(1)</script></body></html>"""


def pdf(pages: int, *, encryption: bytes = b"", compressed: bytes | None = None) -> bytes:
    """A PDF whose pages say which they are, or show what is `compressed`; `encryption` is of its trailer."""
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Count %d/Kids[%s]>>"
        % (pages, b" ".join(b"%d 0 R" % (4 + 2 * n) for n in range(pages))),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    for number in range(pages):
        text = b"BT /F1 12 Tf 72 700 Td (Page number %d speaks.) Tj ET" % (number + 1)
        objects.append(
            b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Resources<</Font<</F1 3 0 R>>>>"
            b"/Contents %d 0 R>>" % (5 + 2 * number)
        )
        stream, filtered = (text, b"") if compressed is None else (compressed, b"/Filter/FlateDecode")
        objects.append(b"<</Length %d%s>>stream\n%s\nendstream" % (len(stream), filtered, stream))
    body, offsets = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        offsets.append(len(body))
        body += b"%d 0 obj%s endobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    size = len(objects) + 1
    return (
        body
        + b"xref\n0 %d\n0000000000 65535 f \n%strailer<</Size %d/Root 1 0 R%s>>\nstartxref\n%d\n%%%%EOF"
        % (
            size,
            table,
            size,
            encryption,
            len(body),
        )
    )


def pdf_bomb(piece: bytes, times: int) -> bytes:
    """A small PDF with a page that expands to so many pieces."""
    packer = zlib.compressobj(9)
    return pdf(1, compressed=b"".join(packer.compress(piece) for _ in range(times)) + packer.flush())


# The password is neither empty nor known to anybody: no key gives this /U.
LOCKED = b"/ID[<00><00>]/Encrypt<</Filter/Standard/V 1/R 2/P -4/O<%s>/U<%s>>>" % (b"11" * 32, b"22" * 32)


@pytest.mark.holds("decisions/0007-index-builds.md", "HTML keeps headings, anchors, code and tables")
def test_html_keeps_headings_anchors_code_and_tables_and_drops_navigation() -> None:
    page = parse_html(PAGE, "types.html")
    assert page.title == "11.2. Index Types"
    top, tree, fsync = page.sections
    assert top == Section(text="Use CREATE INDEX.", headings=("11.2. Index Types",), anchor="TYPES")
    assert tree.headings == ("11.2. Index Types", "B-Tree")
    assert tree.anchor == "BTREE"
    assert tree.text == "Sorted.\n\nSELECT 1\n  FROM t;\n\na | b\n\n1 | 2\n\n- one\n\n- two"
    assert (fsync.heading, fsync.anchor) == ("11.2. Index Types > B-Tree > fsync (boolean)", "GUC-FSYNC")


def test_a_page_that_is_only_its_table_of_contents_is_still_a_page() -> None:
    page = parse_html(b"<title>Index</title><div class=toc><p>Chapter one</p></div>", "index.html")
    assert [section.text for section in page.sections] == ["Chapter one"]


def test_html_that_nests_deeper_than_python_recurses_is_read() -> None:
    deep = b"<div>" * 5000 + b"bottom" + b"</div>" * 5000
    assert parse_html(deep, "deep.html").sections[-1].text == "bottom"


def test_html_in_its_declared_encoding_is_read() -> None:
    page = '<meta charset="iso-8859-1"><title>Café</title><p>Thé</p>'.encode("latin-1")
    assert parse_html(page, "menu.html") == ParsedDocument(title="Café", sections=(Section(text="Thé"),))


@pytest.mark.parametrize(
    ("content", "name", "reason"),
    [
        pytest.param(
            b"<html><script>x</script></html>", "a.html", DocumentReason.NO_TEXT, id="a page of scripts"
        ),
        pytest.param(b"   \n", "a.txt", DocumentReason.NO_TEXT, id="white space"),
        pytest.param("caf\xe9".encode("latin-1"), "a.txt", DocumentReason.WRONG_ENCODING, id="latin-1 text"),
        pytest.param(
            b"<meta charset=klingon><p>x</p>", "a.html", DocumentReason.WRONG_ENCODING, id="klingon"
        ),
        pytest.param(b"a\x00b", "a.bin", DocumentReason.UNSUPPORTED, id="binary data"),
        pytest.param(b"%PDF-1.4 nothing", "a.pdf", DocumentReason.BROKEN, id="a PDF cut short"),
        pytest.param(pdf(2)[:300], "a.pdf", DocumentReason.BROKEN, id="a PDF cut in half"),
        pytest.param(
            pdf(1, encryption=LOCKED), "a.pdf", DocumentReason.ENCRYPTED, id="a PDF with a password"
        ),
        pytest.param(b"---\ntitle: x\n---\n", "a.md", DocumentReason.NO_TEXT, id="front matter alone"),
    ],
)
def test_what_cannot_be_read_is_refused_with_a_reason(
    content: bytes, name: str, reason: DocumentReason
) -> None:
    with pytest.raises(DocumentError) as refused:
        parse(content, name)
    assert refused.value.reason is reason


def test_a_pdf_says_on_which_page_a_passage_stands() -> None:
    document = parse(pdf(2), "folder/report.pdf")
    assert document.title == "report.pdf"
    assert [(s.page, s.text) for s in document.sections] == [
        (1, "Page number 1 speaks."),
        (2, "Page number 2 speaks."),
    ]


def test_a_pdf_that_is_a_scan_holds_no_text() -> None:
    scan, file = pypdfium2.PdfDocument.new(), io.BytesIO()
    scan.new_page(100, 100)
    scan.save(file)
    with pytest.raises(DocumentError) as refused:
        parse(file.getvalue(), "scan.pdf")
    assert refused.value.reason is DocumentReason.NO_TEXT


def test_markdown_goes_by_its_headings() -> None:
    text = """---
title: "The manual"
---
Intro with a [link](https://example.com) and ![a picture](x.png).

# One #
First.

## Two: *more*
```sh
# not a heading
```

Under
-----
Last.
<!-- a comment -->
"""
    document = parse_markdown(text.encode(), "manual.md")
    assert document.title == "The manual"
    shown = [(section.heading, section.anchor, section.text) for section in document.sections]
    assert shown == [
        ("", None, "Intro with a link and a picture."),
        ("One", "one", "First."),
        ("One > Two: *more*", "two-more", "```sh\n# not a heading\n```"),
        ("One > Under", "under", "Last."),
    ]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        pytest.param("\ufeffBOM".encode(), "BOM", id="UTF-8 with its mark"),
        pytest.param("wide".encode("utf-16"), "wide", id="UTF-16 with its mark"),
        pytest.param(b"plain", "plain", id="UTF-8"),
    ],
)
def test_marks_say_the_encoding(content: bytes, text: str) -> None:
    assert decode(content) == text


def test_what_follows_a_definition_list_is_not_about_its_last_term() -> None:
    page = b"""<h2 id="logging">Logging</h2><p>Before.</p>
<dl><dt id="level">level</dt><dd>How much.
  <dl><dt id="debug">debug</dt><dd>All.</dd></dl>
  <p>More on levels.</p></dd></dl>
<p>After.</p><dl><dt>plain</dt><dd>No anchor.</dd></dl><p>Last.</p>"""
    shown = [(section.heading, section.anchor, section.text) for section in parse(page, "a.html").sections]
    assert shown == [
        ("Logging", "logging", "Before."),
        ("Logging > level", "level", "How much."),
        ("Logging > debug", "debug", "All."),
        ("Logging > level", "level", "More on levels."),
        ("Logging", "logging", "After.\n\nplain\n\nNo anchor.\n\nLast."),
    ]


def read_or_refused(content: bytes, name: str) -> ParsedDocument | DocumentReason:
    try:
        return parse(content, name)
    except DocumentError as error:
        return error.reason


CONTENTS = (
    st.binary(max_size=400) | st.text(max_size=400).map(str.encode),
    st.sampled_from(["a.html", "a.md", "a.txt", "a.unknown"]),
)


def outcomes(content: bytes, name: str) -> Iterator[str]:
    outcome = read_or_refused(content, name)
    yield f"{name} is read" if isinstance(outcome, ParsedDocument) else outcome


def test_contents_of_every_format_are_drawn() -> None:
    read = [f"{name} is read" for name in ("a.html", "a.md", "a.txt", "a.unknown")]
    assert seldom_drawn([*read, DocumentReason.WRONG_ENCODING], outcomes, *CONTENTS) == {}


@given(*CONTENTS)
def test_no_content_surprises_a_parser(content: bytes, name: str) -> None:
    outcome = read_or_refused(content, name)
    if isinstance(outcome, ParsedDocument):
        assert outcome.sections
        assert all(section.text.strip() for section in outcome.sections)
    else:
        assert outcome is not DocumentReason.BROKEN


@given(st.text(alphabet="<>/ahdiv p=\"'h1&;\n", max_size=200))
def test_no_markup_surprises_the_html_parser(markup: str) -> None:
    outcome = read_or_refused(markup.encode(), "a.html")
    assert isinstance(outcome, ParsedDocument) or outcome is DocumentReason.NO_TEXT


class ShortOfHanging(ParserProcess):
    """Gives a child time to start on a busy machine, and none to what will not end anyway."""

    async def _parse_alone(self, content: bytes, path: str) -> ParsedDocument:
        self._timeout_seconds = 0.3 if content == b"hang" else 60
        return await super()._parse_alone(content, path)


@pytest.mark.holds(
    "security.md",
    "A document that needs more memory than its parser has is a dead letter, and the next one is parsed",
)
@pytest.mark.attack("A document makes its parser take all memory")
@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        pytest.param("bomb.html", b"<i>" * 5_000_000, NO_MEMORY, id="elements in elements"),
        pytest.param("bomb.html", b"<p>a</p>" * 2_500_000, NO_MEMORY, id="many elements"),
        pytest.param("bomb.md", b"- a\n" * 3_000_000, NO_MEMORY, id="a long list"),
        pytest.param("bomb.pdf", pdf_bomb(b"\0" * MIB, 600), NO_MEMORY, id="a stream of a PDF"),
        pytest.param("bomb.pdf", pdf_bomb(b"0 0 m 1 1 l " * 80_000, 200), NO_MEMORY, id="the lines of a PDF"),
    ],
)
async def test_a_document_that_needs_more_memory_than_its_parser_has_costs_itself_alone(
    name: str, content: bytes, reason: DocumentReason
) -> None:
    process = ParserProcess(memory_bytes=256 * MIB)
    try:
        with pytest.raises(
            DocumentError, match=r"may have 256 MiB; raise .* spec\.build\.resources"
        ) as refused:
            await process.parse(content, name)
        assert refused.value.reason is reason
        assert (await process.parse(b"- a\n" * 1_000_000, "next.md")).title == "next.md"
    finally:
        process.close()


@pytest.mark.holds(
    "security.md", "Build pods have a memory limit of 2 GiB unless the user sets one, and the parser knows it"
)
@pytest.mark.parametrize(
    ("pod_limit_mib", "parser_mib"),
    [
        pytest.param(2048, 1024, id="half of the pod's"),
        pytest.param(300, 150, id="half of little"),
        pytest.param(64 * 1024, 2048, id="at most 2 GiB"),
        pytest.param(None, 2048, id="no limit is known"),
    ],
)
def test_the_memory_of_the_parser(pod_limit_mib: int | None, parser_mib: int) -> None:
    limit = None if pod_limit_mib is None else pod_limit_mib * MIB
    assert memory_of_parser(limit) == parser_mib * MIB


OUTCOMES = {
    "before": None,
    "crash": DocumentReason.PARSER_CRASHED,
    "abort": DocumentReason.PARSER_OUT_OF_MEMORY,
    "between": None,
    "hang": DocumentReason.PARSER_TIMED_OUT,
    "last": None,
}


@pytest.mark.holds(
    "decisions/0007-index-builds.md", "A parser that crashes or hangs costs its document alone"
)
async def test_a_parser_that_crashes_or_hangs_costs_its_document_alone() -> None:
    process = ShortOfHanging(parser=crashing_parser)
    try:
        outcomes = await asyncio.gather(
            *(process.parse(content.encode(), f"{content}.txt") for content in OUTCOMES),
            return_exceptions=True,
        )
    finally:
        process.close()
    reasons = [outcome.reason if isinstance(outcome, DocumentError) else None for outcome in outcomes]
    assert reasons == list(OUTCOMES.values())
    titles = [outcome.title for outcome in outcomes if isinstance(outcome, ParsedDocument)]
    assert titles == ["before.txt", "between.txt", "last.txt"]
