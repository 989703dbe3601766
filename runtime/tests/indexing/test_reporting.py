"""A report always fits into a termination message, and keeps its figures."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from flotilla_runtime.contract import (
    TERMINATION_LOG_BYTES,
    BuildReason,
    BuildStep,
    DeadLetter,
    DocumentCounts,
    StepReport,
)
from flotilla_runtime.indexing.reporting import fitted, write_report

LETTERS = st.builds(DeadLetter, document=st.text(), reason=st.text(), message=st.text())


@given(st.text(max_size=6000), st.lists(LETTERS, max_size=50))
def test_whatever_it_says_it_fits(message: str, letters: list[DeadLetter]) -> None:
    counts = DocumentCounts(discovered=10**9, indexed=10**9)
    report = StepReport(
        step=BuildStep.PROMOTE,
        reason=BuildReason.UNEXPECTED,
        message=message,
        documents=counts,
        dead_letters=tuple(letters),
    )
    text = fitted(report)
    assert len(text.encode()) <= TERMINATION_LOG_BYTES
    assert StepReport.model_validate_json(text).documents == counts


def test_it_is_left_where_the_kubelet_looks(tmp_path: Path) -> None:
    report = StepReport(step=BuildStep.PLAN, shards=3)
    write_report(report, tmp_path / "termination-log")
    assert StepReport.model_validate_json((tmp_path / "termination-log").read_bytes()) == report
    write_report(report, tmp_path / "nowhere" / "termination-log")
    assert not (tmp_path / "nowhere").exists()
