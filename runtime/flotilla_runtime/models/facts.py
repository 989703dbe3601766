"""`python -m flotilla_runtime.models.facts`: says what memory a model needs, before its weights are there.

A pod cannot write into the cluster, and its containers are heard of only when they end. So a container of its
own reads the few kilobytes that tell a model's size and ends with them as its message, and a model that fits
no accelerator is known seconds after its first pod has started, not after 140 GB have been fetched. It takes
the arguments of the fetcher, reads a folder that is complete already and else asks the hub, and it never
fails: what is wrong with a source the fetcher says, with patience and in better words.
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
from flotilla_runtime.models import files
from flotilla_runtime.models.config_fields import CONFIG_FIELDS
from flotilla_runtime.models.failures import ModelError
from flotilla_runtime.models.shapes import MODEL

SCHEME = "hf://"
# Of the types in a safetensors header only the width matters; a type that is not listed says nothing.
STORED_BYTES = {"F64": 8.0, "F32": 4.0, "F16": 2.0, "BF16": 2.0, "F8_E4M3": 1.0, "F8_E5M2": 1.0}
HEADER_LIMIT_BYTES = 100_000_000  # the format's own
HEADER_METADATA = "__metadata__"
# Of files that anybody may have put there: what is no JSON, or nests without end, or is of another shape.
UNREADABLE = (OSError, ValueError, RecursionError)


class Tensor(BaseModel):
    """What is read of a tensor's entry in a safetensors header."""

    dtype: str
    data_offsets: tuple[int, int]


HEADER = TypeAdapter(dict[str, Tensor])


def of_folder(folder: Path) -> contract.ModelFacts | None:
    """What the files in a folder say, None where they cannot be read."""
    try:
        config = json.loads((folder / MODEL.configuration).read_text("utf-8"))
        sizes = {path.name: path.stat().st_size for path in folder.iterdir() if path.is_file()}
        weights = weight_files(sizes)
        stored = stored_bytes(folder / max(weights, key=lambda name: weights[name])) if weights else None
        return facts_of(config, sum(weights.values()) or None, stored)
    except UNREADABLE:
        return None


def of_repository(name: str, revision: str | None, token: str | None) -> contract.ModelFacts | None:
    """What the hub says, having given out no more than a config.json; None where it says nothing."""
    from flotilla_runtime.models import hub

    repository = hub.Repository(name=name, revision=revision, token=token)
    try:
        listing = hub.list_files(repository)
        with tempfile.TemporaryDirectory() as scratch:
            hub.download(repository, listing, [MODEL.configuration], Path(scratch))
            config = json.loads((Path(scratch) / MODEL.configuration).read_text("utf-8"))
        return facts_of(config, sum(weight_files(listing.sizes).values()) or None, None)
    except (ModelError, *UNREADABLE):
        return None


def weight_files(sizes: Mapping[str, int]) -> dict[str, int]:
    """The files that an engine loads into memory."""
    return {name: size for name, size in files.needed(sizes).items() if fnmatch(name, MODEL.weights)}


def stored_bytes(path: Path) -> float | None:
    """Bytes of one number in a safetensors file, by the type that most of its bytes have.

    The file begins with the length of a JSON header, in eight bytes; each tensor's entry has its type and
    where its bytes begin and end. A header that is not like this raises one of `UNREADABLE`.
    """
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8).ljust(8, b"\0"))
        header = json.loads(file.read(min(length, HEADER_LIMIT_BYTES)))
    if not isinstance(header, dict):
        raise ValueError(f"the header of {path} is no object")
    header.pop(HEADER_METADATA, None)
    by_type: Counter[str] = Counter()
    for tensor in HEADER.validate_python(header).values():
        begin, end = tensor.data_offsets
        by_type[tensor.dtype] += end - begin
    return STORED_BYTES.get(by_type.most_common(1)[0][0]) if by_type else None


def facts_of(config: Any, file_bytes: int | None, stored: float | None) -> contract.ModelFacts | None:
    """The facts in a config.json, None where it is none."""
    if not isinstance(config, dict):
        return None
    return contract.ModelFacts(config=told(config), file_bytes=file_bytes, stored_bytes=stored)


def told(config: Mapping[str, Any]) -> dict[str, JsonValue]:
    """The fields that matter, those of inner parts too."""
    return {key: _value(value) for key, value in config.items() if key in CONFIG_FIELDS}


def _value(value: Any) -> JsonValue:
    if isinstance(value, Mapping):
        return told(value)
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return dict(Counter(value))
    number: JsonValue = value
    return number


def leave(facts: contract.ModelFacts | None, termination_log: Path) -> None:
    """Put the facts where the operator finds them; a message that would be cut off is not left, nor is one
    that cannot be written, as half a character of a config.json cannot.
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
    """Always 0: without facts the operator knows less, and the pod starts all the same."""
    parser = argparse.ArgumentParser(prog="python -m flotilla_runtime.models.facts", description=__doc__)
    parser.add_argument("--source", required=True)
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--revision")
    parser.add_argument("--termination-log", type=Path, default=Path(contract.TERMINATION_LOG_PATH))
    options, _ = parser.parse_known_args(arguments)
    contents = files.read_marker(options.to)
    if contents is not None and not files.wrong_files(options.to, contents.sizes):
        facts = of_folder(options.to)
    else:
        token = os.environ.get(contract.ENV_HUB_TOKEN) or None
        facts = of_repository(options.source.removeprefix(SCHEME), options.revision, token)
    leave(facts, options.termination_log)
    sys.stdout.write("the model's size is known\n" if facts else "the model's size is not known yet\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
