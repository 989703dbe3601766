"""Decides which files an engine needs, and whether a folder has them completely.

A marker file, which is written last, lists every file with its size. A folder without it may be an incomplete
download. With it the sizes are compared again, because a full disk or an interrupted copy can leave a marker
beside a short file. Of a folder with a marker only sizes are compared: hashing 140 GB would delay every start
by minutes. Hashes are compared before the marker is written.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from flotilla_runtime.models.failures import CACHE, SOURCE, ModelError, Reason
from flotilla_runtime.models.listing import Hash
from flotilla_runtime.models.shapes import ADAPTER, MODEL, Shape

MARKER = ".flotilla-model.json"
PIECE_BYTES = 1024**2
# The same weights in formats for other programs.
FOR_OTHERS = ("original/*", "onnx/*", "openvino/*", "coreml/*", ".*")
# Mistral's own format of weights that the repository also has under the usual names.
SECOND_COPY = "consolidated*.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """The content of a complete folder: its source, its commit, and the size of every file."""

    source: str
    requested_revision: str | None
    commit: str
    sizes: Mapping[str, int]

    @property
    def total_bytes(self) -> int:
        """The total size of all files."""
        return sum(self.sizes.values())


def needed(sizes: Mapping[str, int], shape: Shape = MODEL) -> dict[str, int]:
    """The files of a repository that an engine opens."""
    chosen = {
        name: size
        for name, size in sizes.items()
        if any(fnmatch(name, pattern) for pattern in shape.needed)
        and not any(fnmatch(name, pattern) for pattern in FOR_OTHERS)
    }
    usual = [name for name in chosen if fnmatch(name, shape.weights) and not fnmatch(name, SECOND_COPY)]
    if usual:
        chosen = {name: size for name, size in chosen.items() if not fnmatch(name, SECOND_COPY)}
    return chosen


def refuse_what_does_not_fit(
    source: str, sizes: Mapping[str, int], shape: Shape = MODEL, field: str = SOURCE
) -> None:
    """Raise ModelError for a repository without configuration or safetensors, which no engine could load."""
    if shape.configuration not in sizes:
        missing = f"no {shape.configuration}"
    elif not any(fnmatch(name, shape.weights) for name in sizes):
        missing = "no safetensors file"
    else:
        return
    raise ModelError(
        shape.refused_as,
        field=field,
        problem=f"{source} has {missing}",
        fix=f"name a repository with {shape.noun} in the safetensors format",
    )


def wrong_files(folder: Path, sizes: Mapping[str, int]) -> list[str]:
    """The files that are missing or have another size."""
    return [name for name, size in sizes.items() if _size(folder / name) != size]


def has_content(path: Path, wanted: Hash) -> bool:
    """Whether a file has the content of this hash."""
    digest = hashlib.sha1(usedforsecurity=False) if wanted.of_blob else hashlib.sha256()
    with path.open("rb") as file:
        if wanted.of_blob:
            digest.update(b"blob %d\0" % os.fstat(file.fileno()).st_size)
        while piece := file.read(PIECE_BYTES):
            digest.update(piece)
    return digest.hexdigest() == wanted.digest


def refuse_links(folder: Path) -> None:
    """Raise ModelError for a folder that is, or has, a symbolic link.

    Through a link, files of another model would be deleted or overwritten. A hub cannot make one; whoever
    else writes to the claim can.
    """
    linked = [folder] if folder.is_symlink() else [path for path in _below(folder) if path.is_symlink()]
    if linked:
        raise ModelError(
            Reason.FOLDER_LINKED,
            field=CACHE,
            problem=f"{linked[0]} is a symbolic link, through which files of others could be changed",
            fix="remove it, or name another claim",
        )


def _below(folder: Path) -> Iterator[Path]:
    """All files and folders below a folder; links are not followed."""
    for at, folders, others in os.walk(folder):
        yield from (Path(at, name) for name in (*folders, *others))


def bytes_in(folder: Path) -> int:
    """The total size of the files below a folder, which may change while it is read."""
    return sum(_size(path) or 0 for path in folder.rglob("*") if path.is_file())


def remove_unfinished(folder: Path) -> None:
    """Delete incomplete files of a downloader that was killed.

    The hub's client starts such a file again under another name, so the old one would take space forever.
    """
    for path in folder.rglob("*.incomplete"):
        if path.is_file():
            path.unlink(missing_ok=True)


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def read_marker(folder: Path) -> Contents | None:
    """The content that the folder's marker lists; None when the marker is missing or cannot be read."""
    try:
        marker = json.loads((folder / MARKER).read_text())
        return Contents(
            source=marker["source"],
            requested_revision=marker["requestedRevision"],
            commit=marker["commit"],
            sizes=marker["sizes"],
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_marker(folder: Path, contents: Contents) -> None:
    """Mark the folder as complete. The marker survives a power cut or is not written at all."""
    body = {
        "source": contents.source,
        "requestedRevision": contents.requested_revision,
        "commit": contents.commit,
        "sizes": dict(contents.sizes),
    }
    scratch = folder / f"{MARKER}.{os.getpid()}"
    with scratch.open("w") as file:
        json.dump(body, file)
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(folder / MARKER)


def remove_marker(folder: Path) -> None:
    """Remove the marker."""
    (folder / MARKER).unlink(missing_ok=True)


def verify(folder: Path, shape: Shape = MODEL, field: str = SOURCE) -> None:
    """Raise ModelError for a folder of the user's that an engine could not load."""
    if not folder.is_dir():
        raise ModelError(
            Reason.FOLDER_MISSING,
            field=field,
            problem=f"there is no folder {folder.name} on the claim",
            fix=f"correct the path after the claim's name, or copy {shape.noun} there",
        )
    names = _names(folder, field)
    if not names:
        raise ModelError(
            Reason.FOLDER_EMPTY,
            field=field,
            problem=f"the folder {folder.name} is empty",
            fix=f"copy the files of {shape.noun} there",
        )
    if shape.configuration not in names or not any(fnmatch(n, p) for n in names for p in shape.any_weights):
        missing = shape.configuration if shape.configuration not in names else "weights (safetensors)"
        raise ModelError(
            shape.refused_as,
            field=field,
            problem=f"the folder {folder.name} has no {missing}",
            fix=f"name the folder that contains {shape.configuration} and the weights",
        )
    for name in names:
        if not os.access(folder / name, os.R_OK):
            raise _unreadable(folder, name, field)
    _verify_sizes(folder, field)


def verify_rank(folder: Path, highest: int, field: str) -> None:
    """Raise ModelError for an adapter above the highest rank; the engine would end with a stack trace."""
    try:
        config = json.loads((folder / ADAPTER.configuration).read_text())
        ranks = [int(config["r"]), *(int(rank) for rank in (config.get("rank_pattern") or {}).values())]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as unreadable:
        raise ModelError(
            Reason.NOT_AN_ADAPTER,
            field=field,
            problem=f"{ADAPTER.configuration} in {folder.name} has no rank r",
            fix="name an adapter in PEFT's format",
        ) from unreadable
    if max(ranks) > highest:
        raise ModelError(
            Reason.RANK_TOO_HIGH,
            field=f"{field}.rank",
            problem=f"the adapter in {folder.name} has rank {max(ranks)}, but the field says {highest}",
            fix=f"set it to {max(ranks)}",
        )


def _names(folder: Path, field: str) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    except PermissionError as denied:
        raise _unreadable(folder, folder.name, field) from denied


def _unreadable(folder: Path, name: str, field: str) -> ModelError:
    return ModelError(
        Reason.FOLDER_UNREADABLE,
        field=field,
        problem=f"{name} in {folder.name} cannot be read by user {os.getuid()}, group {os.getgid()}",
        fix="make the files readable for this group or for everybody",
    )


def _verify_sizes(folder: Path, field: str) -> None:
    contents = read_marker(folder)
    wrong = wrong_files(folder, contents.sizes) if contents else []
    if wrong:
        raise ModelError(
            Reason.INCOMPLETE,
            field=field,
            problem=f"{wrong[0]} in {folder.name} is missing or has another size than when it was fetched"
            + (f", and so have {len(wrong) - 1} more files" if len(wrong) > 1 else ""),
            fix=f"copy the files again, or delete {MARKER} if they were changed on purpose",
        )
