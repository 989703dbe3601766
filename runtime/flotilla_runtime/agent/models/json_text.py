"""JSON that a model wrote: read strictly, and its end found while it arrives. Pure.

Objects that name a key twice are refused, since readers differ in which of the two counts; so are numbers
that are infinite as floats, since they cannot be written down as JSON again.
"""

import json
import re
from typing import Any, Final

import jiter

MARKS: Final = re.compile(r'[\\"{}\[\]]')


def read_json(text: str | bytes) -> Any:
    """The value, or a ValueError that says what is wrong and where."""
    raw = text if isinstance(text, bytes) else text.encode()
    value = jiter.from_json(raw, allow_inf_nan=False, cache_mode="keys", catch_duplicate_keys=True)
    json.dumps(value, allow_nan=False)  # finds what jiter lets through: 1e999 is infinite
    return value


class ObjectEnd:
    """Finds the end of a JSON object or array that arrives in pieces; the work is linear in its length.

    It only counts brackets outside of strings. Whether what they hold is JSON is for the parser to say.
    """

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._is_escaped = False
        self.is_reached = False
        self.is_passed = False  # more than white space followed

    def feed(self, piece: str) -> None:
        """Read the next piece."""
        start = 0
        if not self.is_reached:
            start = self._end_in(piece)
        if self.is_reached and piece[start:].strip():
            self.is_passed = True

    def _end_in(self, piece: str) -> int:
        """The place behind the end, or behind the piece."""
        place = 0
        if self._is_escaped and piece:
            self._is_escaped, place = False, 1
        while found := MARKS.search(piece, place):
            place = found.end()
            mark = found.group()
            if self._in_string:
                if mark == "\\":
                    self._is_escaped = place == len(piece)
                    place += 1
                self._in_string = mark != '"'
                continue
            if mark == '"':
                self._in_string = True
            elif mark in "{[":
                self._depth += 1
            elif mark in "}]":
                self._depth -= 1
                if self._depth <= 0:
                    self.is_reached = True
                    return place
        return len(piece)
