"""Reads secrets from the files of mounted Secrets, each of which is one entry."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from flotilla_runtime.contract import LONGEST_SECRET, SecretForm, secret_value, what_is_wrong

MOST_BYTES: Final = 2 * LONGEST_SECRET + 1  # with more, a file is too long whatever stands around its value


@dataclass(frozen=True, slots=True, kw_only=True)
class Entries:
    """The values of a mounted Secret by their entries, and what is wrong with those that cannot be used."""

    values: Mapping[str, str]
    problems: tuple[str, ...]


def secret_in(file: Path, form: SecretForm = SecretForm.HEADER, where: str | None = None) -> str:
    """The secret in a file; raises SecretError, and OSError for a file that cannot be read."""
    return secret_value(_content(file), where or f"the file {file}", form)


def entries_in(directory: Path) -> Entries:
    """Every entry of a mounted Secret; raises OSError for a directory that cannot be read."""
    values, problems = {}, []
    for file in files_in(directory):
        content = _content(file)
        wrong = what_is_wrong(content)
        if wrong is None:
            values[file.name] = secret_value(content, file.name)
        else:
            problems.append(f"the entry {file.name} {wrong}")
    return Entries(values=values, problems=tuple(problems))


def files_in(directory: Path) -> Iterator[Path]:
    """The files of the entries, by name. Names with two dots in front are Kubernetes' own links."""
    for file in sorted(directory.iterdir()):
        if not file.name.startswith("..") and file.is_file():
            yield file


def _content(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(MOST_BYTES)
