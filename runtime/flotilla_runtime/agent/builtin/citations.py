"""Finds the passages on which an answer is based.

The prompt asks the model to name its passages by number. When it does, these numbers are taken (`Markers`),
except numbers in code and array indexes. Small models often do not. Then the passages are cited that share
the most words with the answer (`Overlap`); a word counts more, the fewer passages contain it. An answer that
shares almost no words with any passage cites nothing (`Nothing`), so that a guess does not look like a
source.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from flotilla_runtime.agent.builtin.prompts import Source

MARKER: Final = re.compile(r"\[(\d{1,3}(?:\s*[,;]\s*\d{1,3})*)\]")
FENCED_CODE: Final = re.compile(r"^ {0,3}(`{3,}|~{3,}).*?(?:^ {0,3}\1|\Z)", re.MULTILINE | re.DOTALL)
CODE_SPAN: Final = re.compile(r"(?<!`)(`+)(?!`).+?(?<!`)\1(?!`)", re.DOTALL)
INDEX: Final = re.compile(r"(?<=\w)(?:\[[^\[\]\n]*\])+")
WORD: Final = re.compile(r"[^\W_]+(?:[-_.][^\W_]+)*")
MOST_CITATIONS: Final = 3
NEAR_THE_BEST: Final = 0.7  # a passage is cited too when its share is this part of the best one's
LEAST_SHARE: Final = 0.15  # a passage with less than this weighted share of the answer's words is no source
SHORTEST_WORD: Final = 3


class CitedBy(StrEnum):
    """How the citations were found."""

    MARKERS = "Markers"
    OVERLAP = "Overlap"
    NOTHING = "Nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Citations:
    """The cited sources with their numbers in the prompt, and how they were found."""

    by: CitedBy
    sources: tuple[tuple[int, Source], ...]

    def documents(self) -> list[dict[str, Any]]:
        """The citations as they appear in a task's result."""
        return [citation(number, source) for number, source in self.sources]


def citation(number: int, source: Source) -> dict[str, Any]:
    """One source as it appears in a task's result; page and anchor are left out where there is none."""
    passage = source.passage
    shown: dict[str, Any] = {
        "number": number,
        "document": passage.document,
        "title": passage.title,
        "heading": passage.heading,
        "page": passage.page,
        "anchor": passage.anchor,
        "passage": passage.id,
        "index": source.index,
        "generation": source.generation,
        "score": passage.score,
    }
    return {name: value for name, value in shown.items() if value is not None}


def cite(answer: str, sources: Sequence[Source]) -> Citations:
    """The sources of the prompt on which the answer is based."""
    numbered = dict(enumerate(sources, start=1))
    named = [int(number) for group in MARKER.findall(_prose(answer)) for number in re.findall(r"\d+", group)]
    marked = [number for number in dict.fromkeys(named) if number in numbered]
    if marked:
        return Citations(by=CitedBy.MARKERS, sources=tuple((number, numbered[number]) for number in marked))
    shared = _shares(_words(answer), [_words(_text(source)) for source in sources])
    best = max(shared, default=0.0)
    if best < LEAST_SHARE:
        return Citations(by=CitedBy.NOTHING, sources=())
    ranked = sorted(numbered, key=lambda number: (-round(shared[number - 1], 6), number))
    close = [number for number in ranked if shared[number - 1] >= NEAR_THE_BEST * best]
    return Citations(
        by=CitedBy.OVERLAP, sources=tuple((number, numbered[number]) for number in close[:MOST_CITATIONS])
    )


def _prose(answer: str) -> str:
    """The answer without code and array indexes, which can look like markers."""
    for code in (FENCED_CODE, CODE_SPAN, INDEX):
        answer = code.sub(" ", answer)
    return answer


def _text(source: Source) -> str:
    return f"{source.passage.title} {source.passage.heading} {source.passage.text}"


def _words(text: str) -> frozenset[str]:
    return frozenset(word.casefold() for word in WORD.findall(text) if len(word) >= SHORTEST_WORD)


def _shares(answer: frozenset[str], passages: Sequence[frozenset[str]]) -> list[float]:
    """For each passage, the weighted share of the answer's words that it contains."""
    weight = {
        word: math.log((1 + len(passages)) / (0.5 + sum(word in passage for passage in passages)))
        for word in answer
    }
    total = sum(weight.values())
    if not total:
        return [0.0 for _ in passages]
    return [sum(weight[word] for word in answer & passage) / total for passage in passages]
