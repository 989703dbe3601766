"""Glob patterns over paths with forward slashes: `**` crosses folders, `*` and `?` do not."""

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
            parts.append(token.replace("[!", "[^", 1).replace("\\", "\\\\"))
        else:
            parts.append(re.escape(token))
    return re.compile("".join(parts), re.DOTALL)


def selector(include: Sequence[str], exclude: Sequence[str]) -> Callable[[str], bool]:
    """Whether a path is wanted: some include pattern matches (none given: all do) and no exclude pattern."""
    wanted = [compile_glob(pattern) for pattern in include or ("**",)]
    unwanted = [compile_glob(pattern) for pattern in exclude]

    def selects(path: str) -> bool:
        return any(p.fullmatch(path) for p in wanted) and not any(p.fullmatch(path) for p in unwanted)

    return selects
