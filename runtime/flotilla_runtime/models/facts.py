"""`python -m flotilla_runtime.models.facts`: reports what determines a model's memory, before its weights
exist.

A pod has no other way to report than the termination message of a container. So a container of its own reads
the few kilobytes from which a model's size follows, and ends with them as its message. A model that fits no
accelerator is then known seconds after its first pod has started, and not after 140 GB have been fetched.

It takes the arguments of the fetcher. It reads a folder that is already complete, and else asks the hub. It
never fails: the fetcher reports what is wrong with a source, after retries and in more detail.
"""

import argparse
import json
import os
import struct
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from pydantic import BaseModel, JsonValue, TypeAdapter

from flotilla_runtime import contract
from flotilla_runtime.contract.failure_texts import tell_uncaught
from flotilla_runtime.models import files
from flotilla_runtime.models.config_fields import CONFIG_FIELDS
from flotilla_runtime.models.failures import ModelError
from flotilla_runtime.models.hub_source import hub_name
from flotilla_runtime.models.listing import refuse_unsafe
from flotilla_runtime.models.shapes import MODEL

# Only the width of the types in a safetensors header matters; the width of a type not listed is unknown.
STORED_BYTES = {"F64": 8.0, "F32": 4.0, "F16": 2.0, "BF16": 2.0, "F8_E4M3": 1.0, "F8_E5M2": 1.0}
HEADER_LIMIT_BYTES = 100_000_000  # the limit of the safetensors format
HEADER_METADATA = "__metadata__"
# Raised for files that are not JSON, are nested too deeply, or have another structure.
UNREADABLE = (OSError, ValueError, RecursionError)


class Tensor(BaseModel):
    """The fields that are read from a tensor's entry in a safetensors header."""

    dtype: str
    data_offsets: tuple[int, int]


HEADER = TypeAdapter(dict[str, Tensor])


def of_folder(folder: Path) -> contract.ModelFacts | None:
    """The facts from the files in a folder; None when they cannot be read."""
    try:
        config = json.loads((folder / MODEL.configuration).read_text("utf-8"))
        sizes = {path.name: path.stat().st_size for path in folder.iterdir() if path.is_file()}
        weights = weight_files(sizes)
        stored = stored_bytes(folder / max(weights, key=lambda name: weights[name])) if weights else None
        return facts_of(config, sum(weights.values()) or None, stored)
    except UNREADABLE:
        return None


def of_repository(name: str, revision: str | None, token: str | None) -> contract.ModelFacts | None:
    """The facts from the hub, for which only config.json is fetched; None when the hub does not answer."""
    from flotilla_runtime.models import hub

    repository = hub.Repository(name=name, revision=revision, token=token)
    try:
        listing = hub.list_files(repository)
        refuse_unsafe(repository.source, files.needed(listing.sizes))
        with tempfile.TemporaryDirectory() as scratch:
            hub.download(repository, listing, [MODEL.configuration], Path(scratch))
            config = json.loads((Path(scratch) / MODEL.configuration).read_text("utf-8"))
        return facts_of(config, sum(weight_files(listing.sizes).values()) or None, None)
    except (ModelError, *UNREADABLE):
        return None


def of_source(source: str, revision: str | None) -> contract.ModelFacts | None:
    """The facts from the hub, if the source is one of it. The fetcher tells of a token that is none."""
    name = hub_name(source)
    try:
        token = contract.secret_of(os.environ, contract.ENV_HUB_TOKEN)
    except contract.SecretError:
        return None
    return None if name is None else of_repository(name, revision, token)


def weight_files(sizes: Mapping[str, int]) -> dict[str, int]:
    """The files with the weights that an engine loads into memory."""
    return {name: size for name, size in files.needed(sizes).items() if fnmatch(name, MODEL.weights)}


def stored_bytes(path: Path) -> float | None:
    """The bytes of one number in a safetensors file, by the type of most of its bytes.

    The file begins with the length of a JSON header, in eight bytes. Each tensor's entry has its type and the
    positions at which its bytes begin and end. Any other header raises one of `UNREADABLE`.
    """
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8).ljust(8, b"\0"))
        header = json.loads(file.read(min(length, HEADER_LIMIT_BYTES)))
    if not isinstance(header, dict):
        raise ValueError(f"the header of {path} is not a JSON object")
    header.pop(HEADER_METADATA, None)
    by_type: Counter[str] = Counter()
    for tensor in HEADER.validate_python(header).values():
        begin, end = tensor.data_offsets
        by_type[tensor.dtype] += end - begin
    return STORED_BYTES.get(by_type.most_common(1)[0][0]) if by_type else None


def facts_of(config: Any, file_bytes: int | None, stored: float | None) -> contract.ModelFacts | None:
    """The facts from a config.json; None when it is not a JSON object."""
    if not isinstance(config, dict):
        return None
    return contract.ModelFacts(config=told(config), file_bytes=file_bytes, stored_bytes=stored)


def told(config: Mapping[str, Any]) -> dict[str, JsonValue]:
    """The fields from which memory is computed, including those of nested objects."""
    return {key: _value(value) for key, value in config.items() if key in CONFIG_FIELDS}


def _value(value: Any) -> JsonValue:
    if isinstance(value, Mapping):
        return told(value)
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return dict(Counter(value))
    number: JsonValue = value
    return number


def leave(facts: contract.ModelFacts | None, termination_log: Path) -> None:
    """Write the facts as termination message for the operator.

    Nothing is written when the message would be cut off, or when it cannot be encoded, for example because of
    half a character in a config.json.
    """
    if facts is None:
        return
    try:
        text = facts.model_dump_json(exclude_none=True)
        if len(text.encode()) <= contract.TERMINATION_LOG_BYTES:
            termination_log.write_text(text)
    except UNREADABLE:
        return


def main(arguments: Sequence[str] | None = None) -> int:
    """Report the facts. Always returns 0: without facts the pod starts too, only the operator knows less."""
    tell_uncaught()
    parser = argparse.ArgumentParser(prog="python -m flotilla_runtime.models.facts", description=__doc__)
    parser.add_argument("--source", required=True, help="the model, hf://organisation/name")
    parser.add_argument("--to", type=Path, required=True, help="the folder for the model's files")
    parser.add_argument("--revision", help="a branch, a tag or a commit of the source")
    parser.add_argument(
        "--termination-log",
        type=Path,
        default=Path(contract.TERMINATION_LOG_PATH),
        help="the file for the termination message",
    )
    options, _ = parser.parse_known_args(arguments)
    contents = files.read_marker(options.to)
    if contents is not None and not files.wrong_files(options.to, contents.sizes):
        facts = of_folder(options.to)
    else:
        facts = of_source(options.source, options.revision)
    leave(facts, options.termination_log)
    sys.stdout.write(
        "the size of the model is known\n" if facts else "the size of the model is not known yet\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
