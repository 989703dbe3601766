"""Writes a step's report as termination message, so that no pod needs a token for the API server.

The kubelet accepts 4 KiB. A report that is longer loses its sample of dead letters and then the end of its
message, but never its figures.
"""

from pathlib import Path

from flotilla_runtime.contract import TERMINATION_LOG_BYTES, StepReport

ELLIPSIS = "…"


def fitted(report: StepReport, limit_bytes: int = TERMINATION_LOG_BYTES) -> str:
    """The report as JSON of at most `limit_bytes`."""
    while len(text := report.model_dump_json(exclude_defaults=True).encode()) > limit_bytes:
        if report.dead_letters:
            report = report.model_copy(update={"dead_letters": report.dead_letters[:-1]})
        else:
            kept = report.message[: len(report.message) * 3 // 4]
            report = report.model_copy(update={"message": kept + ELLIPSIS})
    return text.decode()


def write_report(report: StepReport, file: Path) -> None:
    """Write the report for the kubelet; nothing is written outside a pod, where the folder is missing."""
    if file.parent.is_dir():
        file.write_text(fitted(report), encoding="utf-8")
