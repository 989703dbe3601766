"""Folders as repositories: their files, the files' hashes, and a commit id made from them."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

PIECE_BYTES = 1 << 20
LARGE_SUFFIXES = {".safetensors", ".bin", ".gguf"}


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """One file of a repository."""

    name: str
    path: Path
    size: int
    sha256: str
    blob: str
    """Git's hash of the content, by which the list of files identifies it."""

    @property
    def large(self) -> bool:
        """Whether the hub would keep it in its large-file store and redirect downloads there."""
        return self.path.suffix in LARGE_SUFFIXES


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All current files of a repository."""

    files: dict[str, StoredFile]

    @property
    def commit(self) -> str:
        """Forty digits that change when any file does."""
        digest = hashlib.sha1(usedforsecurity=False)
        for name, file in sorted(self.files.items()):
            digest.update(f"{name}\0{file.sha256}\n".encode())
        return digest.hexdigest()


@dataclass(slots=True)
class Repositories:
    """Reads folders; a file is hashed again only when its size or time has changed."""

    root: Path
    _hashes: dict[tuple[Path, int, int], tuple[str, str]] = field(default_factory=dict)

    def snapshot(self, repository: str) -> Snapshot | None:
        """The repository's files, or None when there is no such folder."""
        folder = (self.root / repository).resolve()
        if not folder.is_dir() or not folder.is_relative_to(self.root.resolve()):
            return None
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        names = {path.relative_to(folder).as_posix(): path for path in paths}
        return Snapshot(files={name: self._stored(name, path) for name, path in names.items()})

    def _stored(self, name: str, path: Path) -> StoredFile:
        status = path.stat()
        key = (path, status.st_size, status.st_mtime_ns)
        if key not in self._hashes:
            self._hashes[key] = _hashes_of(path, status.st_size)
        sha256, blob = self._hashes[key]
        return StoredFile(name=name, path=path, size=status.st_size, sha256=sha256, blob=blob)


def _hashes_of(path: Path, size: int) -> tuple[str, str]:
    sha256 = hashlib.sha256()
    blob = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with path.open("rb") as content:
        while piece := content.read(PIECE_BYTES):
            sha256.update(piece)
            blob.update(piece)
    return sha256.hexdigest(), blob.hexdigest()
