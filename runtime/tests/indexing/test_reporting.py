"""A report always fits into a termination message, and keeps its figures."""

from pathlib import Path

import pytest
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
from tests.support.generated import seldom_drawn

COUNTS = DocumentCounts(discovered=10**9, indexed=10**9)
LONG_TEXTS = st.builds(lambda text, times: text * times, st.text(), st.sampled_from([1, 10, 1000]))
LETTERS = st.builds(DeadLetter, document=LONG_TEXTS, reason=st.text(), message=LONG_TEXTS)
REPORTS = st.builds(
    lambda message, letters: StepReport(
        step=BuildStep.PROMOTE,
        reason=BuildReason.UNEXPECTED,
        message=message,
        documents=COUNTS,
        dead_letters=tuple(letters),
    ),
    LONG_TEXTS,
    st.lists(LETTERS, max_size=50),
)


def what_is_left(report: StepReport) -> list[str]:
    left = StepReport.model_validate_json(fitted(report))
    if left == report:
        return ["all"]
    cut_message = ["a part of the message"] if left.message != report.message else []
    some_letters = ["some dead letters"] if left.dead_letters else []
    return cut_message + some_letters


def test_reports_that_fit_and_reports_that_must_be_cut_are_drawn() -> None:
    assert seldom_drawn(["all", "some dead letters", "a part of the message"], what_is_left, REPORTS) == {}


@pytest.mark.holds(
    "decisions/0007-index-builds.md",
    "A step's outcome is its termination message, at most 4 KiB, and its exit status says whether "
    "another try helps",
)
@given(REPORTS)
def test_whatever_it_says_it_fits(report: StepReport) -> None:
    text = fitted(report)
    assert len(text.encode()) <= TERMINATION_LOG_BYTES
    left = StepReport.model_validate_json(text)
    assert left.documents == COUNTS
    assert left.dead_letters == report.dead_letters[: len(left.dead_letters)]
    if left.message != report.message:
        assert left.dead_letters == ()
        assert report.message.startswith(left.message.rstrip("…"))


def test_it_is_left_where_the_kubelet_looks(tmp_path: Path) -> None:
    report = StepReport(step=BuildStep.PLAN, shards=3)
    write_report(report, tmp_path / "termination-log")
    assert StepReport.model_validate_json((tmp_path / "termination-log").read_bytes()) == report
    write_report(report, tmp_path / "nowhere" / "termination-log")
    assert not (tmp_path / "nowhere").exists()
