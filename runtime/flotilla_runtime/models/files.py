"""Which files of a model an engine needs, and whether a folder holds them whole.

A marker file, written last, lists every file with its size. A folder without it may be half a download; with
it the sizes are compared once more, because a disk that filled up or a copy that was cut leaves a marker
beside a short file. Sizes, not hashes: hashing 140 GB would hold every start back by minutes.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from flotilla_runtime.models.failures import SOURCE, ModelError, Reason

MARKER = ".flotilla-model.json"
CONFIGURATION = "config.json"
WEIGHTS = "*.safetensors"
NEEDED = (WEIGHTS, "*.json", "*.jinja", "*.model", "*.tiktoken", "*.txt")
# The same weights in other forms, for other programs.
FOR_OTHERS = ("original/*", "onnx/*", "openvino/*", "coreml/*", ".*")
# Mistral's own form of weights that lie beside it under the usual name as well.
SECOND_COPY = "consolidated*.safetensors"
ANY_WEIGHTS = (WEIGHTS, "*.bin", "*.pt", "*.gguf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """A complete model: where it came from, which commit it is, and the size of every file."""

    source: str
    requested_revision: str | None
    commit: str
    sizes: Mapping[str, int]

    @property
    def total_bytes(self) -> int:
        """The size of all files together."""
        return sum(self.sizes.values())


def needed(sizes: Mapping[str, int]) -> dict[str, int]:
    """The files of a repository that an engine opens."""
    chosen = {
        name: size
        for name, size in sizes.items()
        if any(fnmatch(name, pattern) for pattern in NEEDED)
        and not any(fnmatch(name, pattern) for pattern in FOR_OTHERS)
    }
    usual = [name for name in chosen if fnmatch(name, WEIGHTS) and not fnmatch(name, SECOND_COPY)]
    if usual:
        chosen = {name: size for name, size in chosen.items() if not fnmatch(name, SECOND_COPY)}
    return chosen


def refuse_what_is_no_model(source: str, sizes: Mapping[str, int]) -> None:
    """An engine could not load a repository without configuration or safetensors."""
    if CONFIGURATION not in sizes:
        missing = f"no {CONFIGURATION}"
    elif not any(fnmatch(name, WEIGHTS) for name in sizes):
        missing = "no safetensors file"
    else:
        return
    raise ModelError(
        Reason.NOT_A_MODEL,
        field=SOURCE,
        problem=f"{source} holds {missing}",
        fix="name a repository with a model in the safetensors form",
    )


def wrong_files(folder: Path, sizes: Mapping[str, int]) -> list[str]:
    """The files that are missing or do not have their size."""
    return [name for name, size in sizes.items() if _size(folder / name) != size]


def bytes_in(folder: Path, pattern: str = "*") -> int:
    """The size of all files below a folder that may change while it is read."""
    return sum(_size(path) or 0 for path in folder.rglob(pattern) if path.is_file())


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def read_marker(folder: Path) -> Contents | None:
    """What the folder claims to hold; None where it claims nothing or nothing that can be read."""
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
    """Say that the folder is complete, so that it survives a power cut or is not said at all."""
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
    """Take the claim back."""
    (folder / MARKER).unlink(missing_ok=True)


def verify(folder: Path) -> None:
    """Refuse a folder that the user filled and an engine could not load."""
    if not folder.is_dir():
        raise ModelError(
            Reason.FOLDER_MISSING,
            field=SOURCE,
            problem=f"there is no folder {folder.name} on the claim",
            fix="correct the path after the claim's name, or copy the model there",
        )
    names = _names(folder)
    if not names:
        raise ModelError(
            Reason.FOLDER_EMPTY,
            field=SOURCE,
            problem=f"the folder {folder.name} is empty",
            fix="copy the model's files there",
        )
    if CONFIGURATION not in names or not any(fnmatch(n, p) for n in names for p in ANY_WEIGHTS):
        missing = CONFIGURATION if CONFIGURATION not in names else "weights (safetensors)"
        raise ModelError(
            Reason.NOT_A_MODEL,
            field=SOURCE,
            problem=f"the folder {folder.name} has no {missing}",
            fix=f"name the folder that directly holds the model's {CONFIGURATION} and weights",
        )
    _verify_readable(folder, names)
    _verify_sizes(folder)


def _names(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    except PermissionError as denied:
        raise _unreadable(folder, folder.name) from denied


def _verify_readable(folder: Path, names: list[str]) -> None:
    for name in names:
        if not os.access(folder / name, os.R_OK):
            raise _unreadable(folder, name)


def _unreadable(folder: Path, name: str) -> ModelError:
    return ModelError(
        Reason.FOLDER_UNREADABLE,
        field=SOURCE,
        problem=f"{name} in {folder.name} cannot be read by user {os.getuid()}, group {os.getgid()}",
        fix="make the files readable for that group or for all",
    )


def _verify_sizes(folder: Path) -> None:
    contents = read_marker(folder)
    wrong = wrong_files(folder, contents.sizes) if contents else []
    if wrong:
        raise ModelError(
            Reason.INCOMPLETE,
            field=SOURCE,
            problem=f"{wrong[0]} in {folder.name} is missing or has another size than when it was fetched"
            + (f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""),
            fix=f"copy it again, or delete {MARKER} if the files were changed on purpose",
        )
