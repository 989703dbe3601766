"""Structured logs: one JSON object per line on standard output, for our logs and those of libraries."""

import logging
import sys

import structlog

from flotilla_runtime.contract.failure_texts import OfLibraries, tell_uncaught, traced


def configure_logs(level: str) -> None:
    """Log from this level on, but libraries only from warnings on: kopf would log every event."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        traced,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.addFilter(OfLibraries())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    tell_uncaught()
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for library in ("kopf", "aiohttp.access", "asyncio"):
        logging.getLogger(library).setLevel(logging.WARNING)
    # kopf warns that it handles no signals outside the main thread; our own code handles them.
    logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)
