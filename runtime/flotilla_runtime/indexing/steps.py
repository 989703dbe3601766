"""The inputs that all steps of a build share, and the points at which a test can end a step."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flotilla_runtime.contract import BuildConfig, DeadLetter, DocumentCounts, StepReport
from flotilla_runtime.indexing.embedding import EmbeddingClient
from flotilla_runtime.indexing.store import Store
from flotilla_runtime.indexing.workspace import Workspace

SAMPLE_DEAD_LETTERS = 5  # in a report, which has to fit into a termination message
LONGEST_SAMPLE_CHARACTERS = 200

CrashPoint = Callable[[str], None]


def no_crash(point: str) -> None:
    """Do nothing; the crash point of every real run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepContext:
    """The configuration of a step and its connections; `crash_point` is called before and after every write.

    `job` is the UID of the Job to which the step's pod belongs, and `index_uid` that of the VectorIndex.
    """

    config: BuildConfig
    workspace: Workspace
    store: Store
    embedder: EmbeddingClient
    tokenizer_folder: Path
    hub_token: str | None = None
    job: str = ""
    index_uid: str = ""
    crash_point: CrashPoint = no_crash


def sample(letters: list[DeadLetter]) -> tuple[DeadLetter, ...]:
    """The first few dead letters, shortened for a report."""
    return tuple(
        DeadLetter(
            document=letter.document[-LONGEST_SAMPLE_CHARACTERS:],
            reason=letter.reason,
            message=letter.message[:LONGEST_SAMPLE_CHARACTERS],
        )
        for letter in letters[:SAMPLE_DEAD_LETTERS]
    )


def accounted(counts: DocumentCounts) -> bool:
    """Whether every document that was found is indexed, a duplicate or a dead letter."""
    return counts.discovered == counts.indexed + counts.duplicates + counts.dead_lettered


def counts_text(report: StepReport) -> str:
    """The report's figures as a text for the log."""
    counts = report.documents
    return (
        f"{counts.discovered} discovered = {counts.indexed} indexed + {counts.duplicates} duplicates + "
        f"{counts.dead_lettered} dead letters; {report.chunks} chunks"
    )
