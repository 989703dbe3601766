"""The changes that an upgrade to this release makes on purpose, and what of the findings they cover."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import yaml

from upgrade_check.findings import Findings

LIST = Path("e2e/upgrade_check/announced.yaml")
KINDS = tuple(one.name for one in fields(Findings))


@dataclass(frozen=True, slots=True, kw_only=True)
class Announced:
    """One change: the kind of finding, the finding (`*` is any text), and the changelog's words on it."""

    kind: str
    what: str
    changelog: str

    def covers(self, kind: str, line: str) -> bool:
        """Whether this finding is the change."""
        pattern = re.escape(self.what).replace(r"\*", ".*")
        return kind == self.kind and re.fullmatch(pattern, line, re.DOTALL) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """The findings that were announced, those that were not, each with its kind, and what did not happen."""

    announced: Sequence[tuple[str, str]]
    unannounced: Sequence[tuple[str, str]]
    missing: Sequence[Announced]

    @property
    def is_clean(self) -> bool:
        """Whether exactly the announced changes happened."""
        return not self.unannounced and not self.missing


def judged(findings: Findings, announced: Sequence[Announced]) -> Judged:
    """Sort the findings into announced ones and others, and name the announced changes that are missing."""
    found = [(kind, line) for kind, lines in asdict(findings).items() for line in lines]
    covered = {one: any(change.covers(*one) for change in announced) for one in found}
    return Judged(
        announced=[one for one in found if covered[one]],
        unannounced=[one for one in found if not covered[one]],
        missing=[change for change in announced if not any(change.covers(*one) for one in found)],
    )


def announced_in(checkout: Path) -> tuple[Announced, ...]:
    """The list of a checkout; empty where it has none. Raises ValueError for an entry that is wrong."""
    file = checkout / LIST
    if not file.is_file():
        return ()
    return tuple(_announced(entry) for entry in yaml.safe_load(file.read_text()) or ())


def announced_between(before: Path, after: Path) -> tuple[Announced, ...]:
    """Changes that the release after announces and the one before did not; the others happened before."""
    earlier = announced_in(before)
    return tuple(one for one in announced_in(after) if one not in earlier)


def _announced(entry: object) -> Announced:
    keys = {one.name for one in fields(Announced)}
    if not isinstance(entry, dict) or entry.keys() != keys:
        raise ValueError(f"{LIST}: {entry!r} must have exactly the keys {', '.join(sorted(keys))}")
    if wrong := [key for key in sorted(keys) if not isinstance(entry[key], str) or not entry[key].strip()]:
        raise ValueError(f"{LIST}: {wrong[0]} of {entry!r} must be a text")
    if not entry["what"].strip("* "):
        raise ValueError(f"{LIST}: what of {entry!r} covers every finding of its kind; name the object")
    if entry["kind"] not in KINDS:
        raise ValueError(f"{LIST}: kind {entry['kind']!r} must be one of {', '.join(KINDS)}")
    return Announced(**{key: " ".join(value.split()) for key, value in entry.items()})
