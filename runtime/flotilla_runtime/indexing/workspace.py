"""The files through which the steps of a build work together, on a claim. Each is written atomically.

builds/BUILD/plan.json               the counts of the plan step, and the number of shards
builds/BUILD/tokenizer.json          the embedder's tokenizer, if it has one
builds/BUILD/shards/00000.jsonl      the documents of a shard
builds/BUILD/done/00000.json         the completion marker of a shard, with its counts
builds/BUILD/dead-letters/*.jsonl    the documents that could not be indexed, and why
"""

import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict

from flotilla_runtime.contract import BuildReason, DeadLetter
from flotilla_runtime.indexing.errors import BuildError
from flotilla_runtime.indexing.records import SourceDocument

PLAN_FILE = "plan.json"
TOKENIZER_FILE = "tokenizer.json"
DISCOVERY = "discovery"
RecordType = TypeVar("RecordType", bound=BaseModel)


class _Record(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class PlannedDocument(_Record):
    """One line of a shard's file."""

    path: str
    size_bytes: int


class BuildPlan(_Record):
    """The result of the plan step; `job` is the UID of the Job that made it."""

    discovered: int
    dead_lettered: int
    shards: int
    tokenizer: str
    job: str = ""


class ShardResult(_Record):
    """A shard's completion marker; documents = indexed + dead_lettered."""

    documents: int
    indexed: int
    dead_lettered: int
    unchanged: int
    chunks: int
    indexed_ids: tuple[str, ...]


class Workspace:
    """The files of one build."""

    def __init__(self, root: Path, build: str) -> None:
        self._builds = root / "builds"
        self._folder = self._builds / build

    def clear(self) -> None:
        """Remove this build's files; the plan goes first, so that an incomplete one is never used."""
        (self._folder / PLAN_FILE).unlink(missing_ok=True)
        if self._folder.exists():
            shutil.rmtree(self._folder)

    def write_plan(
        self, plan: BuildPlan, tokenizer: str | None, shards: Sequence[Sequence[SourceDocument]]
    ) -> None:
        """Write the tokenizer and the shards, and the plan last: without it the build is not planned."""
        if tokenizer is not None:
            _write(self._folder / TOKENIZER_FILE, tokenizer)
        for number, documents in enumerate(shards):
            _write_lines(
                self._folder / "shards" / f"{number:05d}.jsonl",
                (
                    PlannedDocument(path=document.path, size_bytes=document.size_bytes)
                    for document in documents
                ),
            )
        _write(self._folder / PLAN_FILE, plan.model_dump_json())

    def plan(self) -> BuildPlan | None:
        """The plan, None when there is none yet."""
        file = self._folder / PLAN_FILE
        return BuildPlan.model_validate_json(file.read_bytes()) if file.is_file() else None

    def require_plan(self) -> BuildPlan:
        """The plan. Raises BuildError without one: the workspace was lost and the build must start again."""
        plan = self.plan()
        if plan is None:
            raise BuildError(
                BuildReason.WORKSPACE_INCOMPLETE,
                f"spec.build.workspace: {self._folder / PLAN_FILE} is missing; the build starts again",
            )
        return plan

    def tokenizer(self) -> str | None:
        """The content of the embedder's tokenizer file; None when there is none."""
        file = self._folder / TOKENIZER_FILE
        return file.read_text(encoding="utf-8") if file.is_file() else None

    def shard(self, number: int) -> list[SourceDocument]:
        """The documents of a shard."""
        planned = _read_lines(self._folder / "shards" / f"{number:05d}.jsonl", PlannedDocument)
        return [SourceDocument(path=document.path, size_bytes=document.size_bytes) for document in planned]

    def finish_shard(self, number: int, result: ShardResult) -> None:
        """Write the completion marker of a shard."""
        _write(self._folder / "done" / f"{number:05d}.json", result.model_dump_json())

    def shard_result(self, number: int) -> ShardResult | None:
        """The completion marker of a shard; None while it is not complete."""
        file = self._folder / "done" / f"{number:05d}.json"
        return ShardResult.model_validate_json(file.read_bytes()) if file.is_file() else None

    def write_dead_letters(self, origin: str, letters: Iterable[DeadLetter]) -> None:
        """Replace the dead letters of one origin: `DISCOVERY` or the number of a shard."""
        _write_lines(self._folder / "dead-letters" / f"{origin}.jsonl", letters)

    def dead_letters(self) -> list[DeadLetter]:
        """All dead letters of the build, sorted by document."""
        files = sorted((self._folder / "dead-letters").glob("*.jsonl"))
        letters = [letter for file in files for letter in _read_lines(file, DeadLetter)]
        return sorted(letters, key=lambda letter: letter.document)

    def remove_other_builds(self, keep: int) -> None:
        """Remove the folders of other builds, except the newest `keep`."""
        others = [folder for folder in self._builds.iterdir() if folder != self._folder]
        others.sort(key=lambda folder: folder.stat().st_mtime, reverse=True)
        for folder in others[keep:]:
            shutil.rmtree(folder, ignore_errors=True)


def _read_lines(file: Path, record: type[RecordType]) -> list[RecordType]:
    """The records of a file. Only a line feed ends one: names may contain every other line separator."""
    return [record.model_validate_json(line) for line in file.read_bytes().split(b"\n") if line]


def _write_lines(file: Path, records: Iterable[BaseModel]) -> None:
    _write(file, "".join(record.model_dump_json() + "\n" for record in records))


def _write(file: Path, content: str) -> None:
    """Write a file atomically: readers see the old or the new content, even after a crash."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    with draft.open("w", encoding="utf-8") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    draft.replace(file)
