"""Finds the documents below a folder, in an order that does not depend on the file system.

A file that cannot be indexed for a reason that is known without opening it becomes a dead letter at once: it
is empty or too large, its name is not text, or it is a link that leads outside the source. So does a link to
a folder: following it could lead in circles, and ignoring it would lose documents silently.

Names that start with two dots are skipped, because the kubelet keeps the versions of a mounted ConfigMap
under such names. The top folder `lost+found` is skipped too; every ext4 volume has it, and only root may list
it.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flotilla_runtime.contract import BuildReason, DeadLetter, SourceConfig
from flotilla_runtime.indexing.errors import BuildError, DocumentError, DocumentReason
from flotilla_runtime.indexing.globs import selector
from flotilla_runtime.indexing.records import SourceDocument
from flotilla_runtime.indexing.source_files import opened

BYTES_PER_MIB = 1024 * 1024
LONGEST_PATH_BYTES = 2048  # the length of the path field in the collection
LOST_AND_FOUND = "lost+found"


@dataclass(frozen=True, slots=True, kw_only=True)
class Discovery:
    """The documents below the source and those that cannot be indexed, sorted by path."""

    documents: tuple[SourceDocument, ...]
    dead_letters: tuple[DeadLetter, ...]

    @property
    def found(self) -> int:
        """The number of all documents, including those that cannot be indexed."""
        return len(self.documents) + len(self.dead_letters)


def discover(source: SourceConfig) -> Discovery:
    """All wanted files below `source.root`. Raises BuildError when the root or wanted files are missing."""
    root = Path(source.root)
    if not root.is_dir():
        raise BuildError(
            BuildReason.PATH_MISSING,
            f"spec.source.path: there is no folder at {source.uri}; create it or correct the path",
        )
    wanted, allowed = selector(source.include, source.exclude), selector((), source.exclude)
    found = _found(root, source.uri)
    documents: list[SourceDocument] = []
    dead_letters = [
        DeadLetter(
            document=readable(path),
            reason=DocumentReason.UNREADABLE,
            message="this is a link to a folder, and such links are not followed; copy the folder to this "
            "place, or exclude the link",
        )
        for path in found.linked_folders
        if allowed(path) and allowed(f"{path}/")
    ]
    for path in found.files:
        if not wanted(path):
            continue
        try:
            documents.append(_examine(root, path, source.max_document_mib))
        except DocumentError as error:
            dead_letters.append(
                DeadLetter(document=readable(path), reason=error.reason, message=error.message)
            )
    if not documents and not dead_letters:
        patterns = ", ".join(source.include) or "**"
        raise BuildError(
            BuildReason.SOURCE_EMPTY,
            f"spec.source.path: no file below {source.uri} matches {patterns}; "
            "add documents or correct spec.source.include",
        )
    return Discovery(documents=tuple(documents), dead_letters=tuple(dead_letters))


def readable(path: str) -> str:
    """The path as text that can be stored, also when its bytes are not UTF-8."""
    return os.fsencode(path).decode("utf-8", errors="backslashreplace")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """Paths below the source, sorted."""

    files: Sequence[str]
    linked_folders: Sequence[str]


def _found(root: Path, uri: str) -> _Found:
    def refuse(error: OSError) -> None:
        raise BuildError(
            BuildReason.SOURCE_UNREADABLE,
            f"spec.source.path: the folder {error.filename or uri} cannot be listed ({error.strerror}); "
            "let the group of the pods read it",
        )

    files: list[str] = []
    links: list[str] = []
    for folder, subfolders, names in os.walk(root, onerror=refuse):
        relative = os.path.relpath(folder, root)
        prefix = "" if relative == "." else relative.replace(os.sep, "/") + "/"
        subfolders[:] = [
            name for name in subfolders if not name.startswith("..") and prefix + name != LOST_AND_FOUND
        ]
        files += [prefix + name for name in names if not name.startswith("..")]
        links += [prefix + name for name in subfolders if Path(folder, name).is_symlink()]
    return _Found(files=sorted(files), linked_folders=sorted(links))


def _examine(root: Path, path: str, max_document_mib: int) -> SourceDocument:
    if readable(path) != path:
        raise DocumentError(DocumentReason.BAD_NAME, "the name of the file is not UTF-8; rename it")
    if len(path.encode()) > LONGEST_PATH_BYTES:
        raise DocumentError(
            DocumentReason.BAD_NAME, f"the path is longer than {LONGEST_PATH_BYTES} bytes; shorten it"
        )
    with opened(root, path) as file:
        size_bytes = os.fstat(file.fileno()).st_size
    if size_bytes == 0:
        raise DocumentError(DocumentReason.EMPTY, "the file is empty (0 bytes)")
    if size_bytes > max_document_mib * BYTES_PER_MIB:
        raise DocumentError(
            DocumentReason.TOO_LARGE,
            f"the file has {size_bytes / BYTES_PER_MIB:.1f} MiB, more than spec.processing.maxDocumentMiB "
            f"({max_document_mib}); raise it or split the file",
        )
    return SourceDocument(path=path, size_bytes=size_bytes)
