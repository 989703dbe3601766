"""Checks what a hub says of a repository's files, before anything is deleted or written because of it. Pure.

A hub is not trusted: anybody can run one, and a mirror may be broken. A file's name becomes a path below the
model's folder, so a name that leads elsewhere would delete or overwrite a file of another model.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Protocol

from flotilla_runtime.models.failures import SOURCE, ModelError, Reason

# The hub's client adds a suffix of nine characters to a name, and file systems take 255 bytes.
PART_LIMIT_BYTES = 240
NAME_LIMIT_BYTES = 1024
SHOWN_CHARACTERS = 80
SIZE_UNKNOWN = -1
SHA256 = re.compile(r"[0-9a-f]{64}")
GIT_BLOB = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hash:
    """The hash of a file's content: SHA-256 for large files, and Git's of a blob for the others."""

    digest: str
    of_blob: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A commit, with the sizes of its files and those hashes that the hub gives."""

    commit: str
    sizes: dict[str, int]
    hashes: dict[str, Hash] = field(default_factory=dict)


class Sibling(Protocol):
    """A file as the hub's client reports it; the values are those of the hub's JSON, of any type."""

    rfilename: Any
    size: Any
    blob_id: Any
    lfs: Any


def listed(source: str, commit: object, siblings: Iterable[Sibling], where: str = SOURCE) -> Listing:
    """The listing of a hub; raises ModelError for names that are no texts or that are listed twice."""
    sizes: dict[str, int] = {}
    hashes: dict[str, Hash] = {}
    for file in siblings:
        name = file.rfilename
        if not isinstance(name, str):
            raise _refused(source, f"lists {_shown(name)}, which is not a name", where)
        if name in sizes:
            raise _refused(source, f"lists {_shown(name)} twice", where)
        sizes[name] = _size(file)
        if (known := _hash(file)) is not None:
            hashes[name] = known
    return Listing(commit=commit if isinstance(commit, str) else "", sizes=sizes, hashes=hashes)


def refuse_unsafe(source: str, sizes: Mapping[str, int], where: str = SOURCE) -> None:
    """Raise ModelError if one of these files has no size, or cannot be a file below the model's folder."""
    for name, size in sizes.items():
        if (problem := wrong_with(name)) is not None:
            raise _refused(source, f"lists {_shown(name)}, {problem}", where)
        if size == SIZE_UNKNOWN:
            raise _refused(source, f"gives no size for {_shown(name)}", where)
    folders = {folder for name in sizes for folder in _folders(name)}
    for name in sizes:
        if name in folders:
            raise _refused(source, f"lists {_shown(name)} as a file and as a folder", where)


def wrong_with(name: str) -> str | None:
    """Why a name cannot be that of a file below a folder; None when it can."""
    parts = name.split("/")
    if name.startswith("/"):
        return "which is an absolute path"
    if ".." in parts:
        return "which leads upwards"
    if "" in parts or "." in parts:
        return "which has an empty part"
    if "\\" in name or not name.isprintable():
        return "which has characters that no file of a model has"
    if len(name.encode()) > NAME_LIMIT_BYTES or any(len(part.encode()) > PART_LIMIT_BYTES for part in parts):
        return "which is too long"
    return None


def _folders(name: str) -> Iterator[str]:
    return (str(parent) for parent in PurePosixPath(name).parents)


def _size(file: Sibling) -> int:
    size = file.size
    known = isinstance(size, int) and not isinstance(size, bool) and size >= 0
    return size if known else SIZE_UNKNOWN


def _hash(file: Sibling) -> Hash | None:
    """For a file of Git LFS the blob is only a pointer, so its hash says nothing of the content."""
    if file.lfs:
        return _hash_like(SHA256, file.lfs.sha256, of_blob=False)
    return _hash_like(GIT_BLOB, file.blob_id, of_blob=True)


def _hash_like(form: re.Pattern[str], digest: object, *, of_blob: bool) -> Hash | None:
    if not isinstance(digest, str) or not form.fullmatch(digest):
        return None
    return Hash(digest=digest, of_blob=of_blob)


def _shown(name: object) -> str:
    """A name for a message of one line, whatever characters it has."""
    shown = ascii(name)
    return shown if len(shown) <= SHOWN_CHARACTERS else f"{shown[:SHOWN_CHARACTERS]}…"


def _refused(source: str, problem: str, where: str) -> ModelError:
    return ModelError(
        Reason.LISTING_REFUSED,
        field=where,
        problem=f"the hub {problem}, in {source}",
        fix="name another repository, or correct HF_ENDPOINT; nothing was changed",
    )
