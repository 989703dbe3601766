"""How a step's outcome reaches the operator: the kubelet carries 4 KiB of it, so no pod needs a token.

A report that is too long loses its sample of dead letters, then the end of its message, never its figures.
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
    """Leave the report where the kubelet looks for it; outside a pod there may be no such file."""
    if file.parent.is_dir():
        file.write_text(fitted(report), encoding="utf-8")
