"""A statement of a tool in SQL, with its arguments as `:name`. Pure.

The statement becomes a part of one of ours, which counts its rows and bytes in the database. So it can only
be one that gives rows, whatever else the database would do.
"""

import re
from dataclasses import dataclass
from typing import Final

# Strings, quoted names, comments and casts are left as they are; a `:name` outside of them is an argument.
TOKEN: Final = re.compile(
    r"""(?P<kept>
        \b[eE]'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | "(?:[^"]|"")*"
        | \$(?P<tag>(?:[A-Za-z_]\w*)?)\$.*?\$(?P=tag)\$
        | --[^\n]* | /\*.*?\*/ | :: | :=
      )
      | :(?P<name>[A-Za-z_]\w*)
      | (?P<end>;)""",
    re.DOTALL | re.VERBOSE,
)
FRAME: Final = """
select case when octet_length(flotilla_row) <= %(flotilla_bytes)s then flotilla_row end from (
select row_to_json(flotilla_result)::text as flotilla_row from (
{statement}
) as flotilla_result limit %(flotilla_rows)s) as flotilla_limited"""
RESERVED: Final = "flotilla_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """A statement as the driver takes it, and the names of its arguments."""

    text: str
    names: frozenset[str]


def read_statement(query: str) -> Statement:
    """The statement; a ValueError says why it is none."""
    names: set[str] = set()
    plain = query.strip().removesuffix(";")

    def written(found: re.Match[str]) -> str:
        if found["end"] is not None:
            raise ValueError("it has more than one statement; a tool runs one")
        if found["name"] is None:
            return found["kept"].replace("%", "%%")
        names.add(found["name"])
        return f"%({found['name']})s"

    pieces: list[str] = []
    place = 0
    for found in TOKEN.finditer(plain):
        pieces += [plain[place : found.start()].replace("%", "%%"), written(found)]
        place = found.end()
    pieces.append(plain[place:].replace("%", "%%"))
    if wrong := sorted(name for name in names if name.startswith(RESERVED)):
        raise ValueError(f"the argument {wrong[0]} has a name that is reserved; choose another")
    return Statement(text=FRAME.format(statement="".join(pieces)), names=frozenset(names))
