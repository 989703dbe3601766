"""The interface of a tokenizer for the chunker, and one that needs no file and no library."""

import re
from typing import Protocol

PIECES = re.compile(r"[^\W\d_]{1,3}|\d|[^\s\w]|_")


class Tokenizer(Protocol):
    """The methods of a tokenizer that the chunker needs."""

    @property
    def name(self) -> str:
        """The name in reports."""

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Start and end of every token of `text`, in order, without those that a model adds around it."""


class PlainTokenizer:
    """Makes tokens of at most three letters, one digit or one sign, which are smaller than real ones."""

    name = "Plain"

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Start and end of every piece."""
        return [match.span() for match in PIECES.finditer(text)]
