"""Finds planted secrets in bytes, in whatever encoding. Pure.

Base64 has three alignments, of which the letters at both ends depend on the neighbours, and its lines may end
anywhere: so half of the letters are enough. Escapes of URLs, JSON, Python and HTML may stand for some
letters of a secret or for all of them.
"""

import base64
import re
from collections.abc import Iterator
from typing import Final

from leaks.planted import MARK

LONGEST: Final = 16 * len(MARK)  # bytes that an encoding of the mark may take


def in_base64(mark: str) -> Iterator[str]:
    """Both halves of the letters that each alignment of the mark has, whatever stands around it."""
    for before in range(3):
        text = base64.b64encode(bytes(before) + mark.encode() + bytes(2)).decode()
        letters = text[-(-before * 8 // 6) : (before + len(mark)) * 8 // 6]
        yield from (letters[: len(letters) // 2], letters[len(letters) // 2 :])


def in_hexadecimal(mark: str) -> Iterator[str]:
    """The usual ways to write bytes as digits."""
    for between in ("", ":", " "):
        text = mark.encode().hex(between) if between else mark.encode().hex()
        yield from (text, text.upper())


def with_escapes(mark: str) -> str:
    """The expression for the mark with any letters escaped; it begins with a set, which is searched fast."""
    rest = "".join(f"(?:{re.escape(letter)}|[%\\\\&]{_behind(letter)})" for letter in mark[1:])
    return rf"[{mark[0]}%\\&](?:(?<={mark[0]})|{_behind(mark[0])}){rest}"


def _behind(letter: str) -> str:
    """Expression for the rest of an escape of this letter, after its first byte."""
    code = "".join(
        f"[{digit}{digit.upper()}]" if digit.isalpha() else digit for digit in f"{ord(letter):02x}"
    )
    return rf"(?:(?<=%){code}|(?<=\\)\\*(?:u00|x|U000000){code}|(?<=&)#(?:[xX]{code}|{ord(letter)});)"


NEEDLES: Final = tuple(
    (encoding, needle.encode())
    for encoding, needles in (
        ("plain", (MARK,)),
        ("base64", tuple(in_base64(MARK))),
        ("hexadecimal", tuple(in_hexadecimal(MARK))),
    )
    for needle in needles
)
ESCAPED: Final = re.compile(with_escapes(MARK).encode())


def encodings_in(text: bytes) -> set[str]:
    """The encodings in which a planted secret stands in the text; empty for a text without one."""
    found = {encoding for encoding, needle in NEEDLES if needle in text}
    return found or ({"escaped"} if ESCAPED.search(text) else set())
