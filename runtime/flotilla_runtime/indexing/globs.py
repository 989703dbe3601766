"""Glob patterns for paths with forward slashes: `**` matches across folders, `*` and `?` do not."""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache

TOKEN = re.compile(r"\*\*/|\*\*|\*|\?|\[!?[^\]]+\]|.", re.DOTALL)
MEANING = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


@lru_cache(maxsize=256)
def compile_glob(pattern: str) -> re.Pattern[str]:
    """The regular expression that a whole path must match."""
    parts = []
    for token in TOKEN.findall(pattern.removeprefix("/")):
        if token in MEANING:
            parts.append(MEANING[token])
        elif token.startswith("[") and len(token) > 1:
            parts.append(_set(token))
        else:
            parts.append(re.escape(token))
    return re.compile("".join(parts), re.DOTALL)


def _set(token: str) -> str:
    """A set that is none, such as `[z-a]`, stands for its own text."""
    expression = token.replace("[!", "[^", 1).replace("\\", "\\\\")
    try:
        re.compile(expression)
    except re.error:
        return re.escape(token)
    return expression


def selector(include: Sequence[str], exclude: Sequence[str]) -> Callable[[str], bool]:
    """A function for whether a path is wanted: an include pattern matches, and no exclude pattern does.

    Without include patterns, every path is included.
    """
    wanted = [compile_glob(pattern) for pattern in include or ("**",)]
    unwanted = [compile_glob(pattern) for pattern in exclude]

    def selects(path: str) -> bool:
        return any(p.fullmatch(path) for p in wanted) and not any(p.fullmatch(path) for p in unwanted)

    return selects
