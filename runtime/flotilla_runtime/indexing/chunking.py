"""Cuts sections into chunks with a limit on their tokens, at boundaries that a reader would choose.

A chunk ends at the strongest boundary in the second half of its possible length: between paragraphs, else
between sentences, else between words. The next chunk repeats some of the end of the last one, from the
beginning of a sentence where there is one. Every character of a section, except white space, is in a chunk.

A tokenizer may count a piece of text differently when it stands alone. So each chunk is counted again by
itself, and is shortened until it fits.

A section of many megabytes is first cut into portions, at the ends of paragraphs: a tokenizer makes an object
for every token, and those of a whole book would not fit into a pod's memory.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from flotilla_runtime.contract import CHUNK_PREFIX_TOKENS, ChunkingConfig
from flotilla_runtime.indexing.pieces import Tokenizer
from flotilla_runtime.indexing.records import SEPARATOR, Chunk, ParsedDocument, Section

LONGEST_CHUNK_CHARACTERS = 16_000  # with four bytes each, they fit into the text field of the collection
PORTION_CHARACTERS = 256 * 1024  # the text that is tokenised at once; most documents are one portion
LONGEST_SPAN_CHARACTERS = 64  # some tokenizers make a single token of a word of any length
SENTENCE_ENDS = (".", "!", "?", "…", "。", "！", "？", ":", ";")

PARAGRAPH, SENTENCE, WORD, NOWHERE = 3, 2, 1, 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cutter:
    """Cuts texts with one tokenizer and fixed limits."""

    tokenizer: Tokenizer
    chunk_tokens: int
    overlap_tokens: int
    portion_characters: int = PORTION_CHARACTERS

    def cut(self, text: str) -> Iterator[tuple[int, int]]:
        """Start and end of each chunk of `text`."""
        for first, last in _portions(text, self.portion_characters):
            for start, end in self._cut_portion(text[first:last]):
                yield first + start, first + end

    def _cut_portion(self, text: str) -> Iterator[tuple[int, int]]:
        starts = self._starts(text)
        strengths = [_strength(text, starts, index) for index in range(len(starts))]
        first = covered = 0
        while first < len(starts):
            end = self._end(text, starts, strengths, first, covered)
            if end <= covered:
                first = covered  # start without the overlap, which leaves no room for new text
                continue
            yield starts[first], _position(text, starts, end)
            if end >= len(starts):
                return
            first, covered = max(self._overlap_start(strengths, first, end), first + 1), end

    def count(self, text: str) -> int:
        """The number of tokens of `text` by itself."""
        return len(self.tokenizer.spans(text))

    def fits(self, text: str) -> bool:
        """Whether `text` may be one chunk."""
        return len(text) <= LONGEST_CHUNK_CHARACTERS and self.count(text) <= self.chunk_tokens

    def _starts(self, text: str) -> list[int]:
        """The positions at which tokens start; long tokens are split, and the first position is 0."""
        starts: list[int] = []
        for start, end in self.tokenizer.spans(text):
            starts += range(start, end, LONGEST_SPAN_CHARACTERS)
        # Tokenizers that normalise may repeat offsets, and may find no token in a text that is not empty.
        return [0, *sorted({start for start in starts if start > 0})] if text.strip() else []

    def _end(self, text: str, starts: list[int], strengths: list[int], first: int, covered: int) -> int:
        """The end of the chunk that starts at `first`, if possible after the last chunk's end, `covered`."""
        last = min(first + self.chunk_tokens, len(starts))
        if last < len(starts):
            earliest = min(last, max(first + max(1, self.chunk_tokens // 2), covered + 1))
            last = max(range(earliest, last + 1), key=lambda index: (strengths[index], index))
        while last > first + 1:
            chunk = text[starts[first] : _position(text, starts, last)]
            if self.fits(chunk):
                break
            last = max(first + 1, last - max(1, self.count(chunk) - self.chunk_tokens))
        return last

    def _overlap_start(self, strengths: list[int], first: int, end: int) -> int:
        candidates = range(max(first + 1, end - self.overlap_tokens), end)
        for strength in (SENTENCE, WORD):
            for index in candidates:
                if strengths[index] >= strength:
                    return index
        return end


def _portions(text: str, longest: int) -> Iterator[tuple[int, int]]:
    """Start and end of portions of at most `longest` characters, cut at the best boundaries."""
    start = 0
    while len(text) - start > longest:
        earliest, latest = start + longest // 2, start + longest
        found = (text.rfind(mark, earliest, latest) + len(mark) for mark in ("\n\n", "\n", " "))
        end = next((end for end in found if end > earliest), latest)
        yield start, end
        start = end
    yield start, len(text)


def _position(text: str, starts: list[int], index: int) -> int:
    return starts[index] if index < len(starts) else len(text)


def _strength(text: str, starts: list[int], index: int) -> int:
    """The strength of the boundary before the token at `index`."""
    if index == 0:
        return PARAGRAPH
    before = text[starts[index - 1] : starts[index]]
    said = before.rstrip()
    gap = before[len(said) :]
    if not gap:
        return NOWHERE
    if gap.count("\n") > 1:
        return PARAGRAPH
    return SENTENCE if "\n" in gap or said.endswith(SENTENCE_ENDS) else WORD


def chunk_document(
    path: str, document: ParsedDocument, chunking: ChunkingConfig, tokenizer: Tokenizer
) -> list[Chunk]:
    """The chunks of a document in reading order; each is embedded with its title and headings in front."""
    cutter = Cutter(
        tokenizer=tokenizer, chunk_tokens=chunking.chunk_tokens, overlap_tokens=chunking.overlap_tokens
    )
    chunks: list[Chunk] = []
    for section in document.sections:
        prefix = _prefix(document.title, section, tokenizer)
        for start, end in cutter.cut(section.text):
            text = section.text[start:end].strip()
            if not text:
                continue
            chunks.append(
                Chunk(
                    document=path,
                    ordinal=len(chunks),
                    title=document.title,
                    heading=section.heading,
                    anchor=section.anchor,
                    page=section.page,
                    text=text,
                    prefix=prefix,
                )
            )
    return chunks


def _prefix(title: str, section: Section, tokenizer: Tokenizer) -> str:
    """Title and headings, each once, shortened to the tokens that are reserved for them."""
    parts = [title, *(heading for heading in section.headings if heading != title)]
    text = SEPARATOR.join(parts)
    while len(spans := tokenizer.spans(text)) > CHUNK_PREFIX_TOKENS:
        text = text[: min(spans[CHUNK_PREFIX_TOKENS][0], len(text) - 1)].rstrip()
    return text
