"""Chunks: nothing is lost, nothing is too long, and cuts are where a reader would cut."""

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flotilla_runtime.contract import CHUNK_PREFIX_TOKENS, ChunkingConfig
from flotilla_runtime.indexing.chunking import (
    LONGEST_CHUNK_CHARACTERS,
    PORTION_CHARACTERS,
    Cutter,
    _portions,
    chunk_document,
)
from flotilla_runtime.indexing.pieces import PlainTokenizer, Tokenizer
from flotilla_runtime.indexing.records import ParsedDocument, Section, chunk_id, document_id
from flotilla_runtime.indexing.tokenization import ModelTokenizer, make_tokenizer
from tests.support.generated import seldom_drawn


def word_piece() -> ModelTokenizer:
    """A small tokenizer of MiniLM's kind: a word it does not know is one unknown token, however long."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    pieces = ["[UNK]", *letters, *(f"##{letter}" for letter in letters), "the", "sea", "##ing", ".", ","]
    return ModelTokenizer(
        json.dumps(
            {
                "version": "1.0",
                "truncation": {
                    "max_length": 4,
                    "strategy": "LongestFirst",
                    "stride": 0,
                    "direction": "Right",
                },
                "padding": None,
                "added_tokens": [],
                "normalizer": {
                    "type": "BertNormalizer",
                    "lowercase": True,
                    "clean_text": True,
                    "handle_chinese_chars": True,
                    "strip_accents": None,
                },
                "pre_tokenizer": {"type": "BertPreTokenizer"},
                "post_processor": None,
                "decoder": None,
                "model": {
                    "type": "WordPiece",
                    "unk_token": "[UNK]",
                    "continuing_subword_prefix": "##",
                    "max_input_chars_per_word": 8,
                    "vocab": {piece: number for number, piece in enumerate(pieces)},
                },
            }
        )
    )


WORD_PIECE = word_piece()
TOKENIZERS = st.sampled_from([PlainTokenizer(), WORD_PIECE])
PIECES = ["sea ", "the ", "sea. ", "\n\n", " ", "x" * 90, "é", "漢字", "\x00", "tide", "seaing,"]
TEXTS = st.one_of(
    st.text(max_size=600),
    st.text(alphabet="ab .\n", max_size=600),
    st.builds(
        lambda pieces, times: "".join(pieces) * times,
        st.lists(st.sampled_from(PIECES), min_size=5, max_size=30),
        st.integers(5, 15),
    ),
)


def cutter(tokenizer: Tokenizer, chunk_tokens: int, overlap_tokens: int = 0) -> Cutter:
    return Cutter(tokenizer=tokenizer, chunk_tokens=chunk_tokens, overlap_tokens=overlap_tokens)


TO_CUT = (
    TEXTS,
    TOKENIZERS,
    st.integers(16, 60),
    st.sampled_from([0, 4, 15]),
    st.sampled_from([40, 200, 10_000]),
)


def cases_of(
    text: str, tokenizer: Tokenizer, chunk_tokens: int, overlap_tokens: int, portion: int
) -> Iterator[str]:
    cuts = list(
        replace(cutter(tokenizer, chunk_tokens, overlap_tokens), portion_characters=portion).cut(text)
    )
    if len(cuts) > 2:
        yield "several chunks"
    if any(later[0] < earlier[1] for earlier, later in pairwise(cuts)):
        yield "chunks that overlap"
    if len(text) > portion and len(cuts) > 2:
        yield "several portions"


def test_texts_are_drawn_that_must_be_cut() -> None:
    expected = ("several chunks", "chunks that overlap", "several portions")
    assert seldom_drawn(expected, cases_of, *TO_CUT) == {}


@pytest.mark.holds(
    "decisions/0007-index-builds.md",
    "The embedder's own tokenizer bounds the chunks; without one they are shorter, never too long",
)
@given(*TO_CUT)
@example("a" * 5000, WORD_PIECE, 16, 4, 1000)
@example("seaing," * 20, WORD_PIECE, 16, 0, 1000)
@example("\u3000\n x", PlainTokenizer(), 16, 0, 1000)
@example(" 0000000000000 0000", PlainTokenizer(), 16, 13, 40)
def test_every_token_is_in_some_chunk_and_no_chunk_is_too_long(
    text: str, tokenizer: Tokenizer, chunk_tokens: int, overlap_tokens: int, portion: int
) -> None:
    covered = 0
    cuts = replace(cutter(tokenizer, chunk_tokens, overlap_tokens), portion_characters=portion).cut(text)
    for start, end in cuts:
        assert not text[covered:start].strip(), f"{text[covered:start]!r} is in no chunk"
        assert end > covered, "every chunk brings something new"
        covered = end
        chunk = text[start:end]
        assert len(tokenizer.spans(chunk)) <= chunk_tokens or end - start == 1
        assert len(chunk) <= LONGEST_CHUNK_CHARACTERS
    assert not text[covered:].strip()


class Recorder(PlainTokenizer):
    """Notes how long the texts are that it is given."""

    def __init__(self) -> None:
        self.longest = 0

    def spans(self, text: str) -> list[tuple[int, int]]:
        self.longest = max(self.longest, len(text))
        return super().spans(text)


def test_a_long_text_is_tokenised_in_portions_that_end_with_a_paragraph() -> None:
    paragraph = "The moon moves the sea twice a day, and the wind fills the sails. " * 20
    text = "\n\n".join([paragraph] * 1000)
    recorder = Recorder()
    chunks = list(cutter(recorder, 200).cut(text))
    assert recorder.longest <= PORTION_CHARACTERS < len(text)
    *portions, _ = _portions(text, PORTION_CHARACTERS)
    assert len(portions) == len(text) // PORTION_CHARACTERS
    assert all(text[:end].endswith("\n\n") for _, end in portions)
    assert sum(end - start for start, end in chunks) == len(text)


def test_a_text_of_one_portion_is_cut_as_ever() -> None:
    text = "Paragraphs are short.\n\nSome are of two sentences. This is the second.\n\n" * 200
    assert len(text) < PORTION_CHARACTERS
    whole = cutter(PlainTokenizer(), 60, 8)
    assert list(whole.cut(text)) == list(whole._cut_portion(text))


def test_a_cut_is_made_between_paragraphs_rather_than_sentences() -> None:
    text = "One one one one one one. Two two.\n\nThree three three three. Four four four four four."
    chunks = [text[start:end].strip() for start, end in cutter(PlainTokenizer(), 18).cut(text)]
    assert chunks[0].endswith("Two two.")
    assert chunks[1].startswith("Three")


def test_a_cut_is_made_between_sentences_rather_than_words() -> None:
    text = "Aaa aaa aaa aaa aaa aaa. Bbb bbb bbb bbb bbb bbb bbb bbb bbb bbb."
    [first, *_] = [text[start:end].strip() for start, end in cutter(PlainTokenizer(), 10).cut(text)]
    assert first == "Aaa aaa aaa aaa aaa aaa."


def test_the_next_chunk_repeats_the_last_sentence() -> None:
    text = " ".join(f"Sentence {number} is here." for number in range(10))
    chunks = [text[start:end].strip() for start, end in cutter(PlainTokenizer(), 30, 12).cut(text)]
    assert len(chunks) > 2
    for before, after in pairwise(chunks):
        assert before.rpartition("Sentence")[2] in after
        assert after.startswith("Sentence")


def test_a_chunk_is_embedded_behind_title_and_headings_within_their_room() -> None:
    heading = "How to sail " * 40
    section = Section(text="Wind fills them.", headings=("Sails", heading), anchor="sails", page=3)
    document = ParsedDocument(title="Sails", sections=(section,))
    [chunk] = chunk_document("ships/sails.md", document, ChunkingConfig(), PlainTokenizer())
    prefix, _, text = chunk.embedded_text.partition("\n")
    assert text == chunk.text == "Wind fills them."
    assert prefix.startswith("Sails > How to sail")
    assert len(PlainTokenizer().spans(prefix)) <= CHUNK_PREFIX_TOKENS
    assert (chunk.anchor, chunk.page, chunk.ordinal) == ("sails", 3, 0)


def test_ids_are_the_same_from_release_to_release() -> None:
    """A change here leaves every chunk of every index behind as an orphan: is it meant?"""
    assert document_id("ships/sails.md") == GOLDEN_DOCUMENT
    assert chunk_id(document_id("ships/sails.md"), 7) == GOLDEN_DOCUMENT + "-000007"


GOLDEN_DOCUMENT = "cf0a2afba2ed77ae972040f1591c309a"


def test_a_tokenizer_file_that_cuts_and_fills_is_told_not_to() -> None:
    assert len(WORD_PIECE.spans("the sea the sea the sea")) == 6


@pytest.mark.holds(
    "decisions/0007-index-builds.md",
    "The embedder's own tokenizer bounds the chunks; without one they are shorter, never too long",
)
def test_without_a_tokenizer_file_more_tokens_are_counted_than_there_are() -> None:
    text = "The write-ahead log (WAL) of 2024 keeps pg_wal segments safe."
    assert len(make_tokenizer(None).spans(text)) >= 17


@pytest.mark.parametrize("text", ["", "   \n\n "])
def test_nothing_makes_no_chunk(text: str) -> None:
    assert list(cutter(PlainTokenizer(), 16).cut(text)) == []
