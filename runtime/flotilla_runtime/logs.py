"""The logs of every part of the runtime: one JSON object per line on standard output."""

import logging
import sys
from typing import Final

import structlog
from structlog.typing import Processor

from flotilla_runtime.contract.failure_texts import OfLibraries, tell_uncaught, traced

# Libraries whose warnings quote addresses, headers or answers. What matters of it we say ourselves.
QUOTING: Final = (
    *("aiohttp", "grpc", "h11", "httpcore2", "httpx2", "huggingface_hub", "mcp", "opentelemetry"),
    *("psycopg", "pymilvus", "redis", "requests", "urllib3"),
)


def configure_logs(level: int = logging.INFO) -> None:
    """Log our events, and warnings of libraries, in the same format."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        traced,
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stdout),
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.addFilter(OfLibraries())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processor=structlog.processors.JSONRenderer(), foreign_pre_chain=shared
        )
    )
    tell_uncaught()
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for library in QUOTING:
        logging.getLogger(library).setLevel(logging.CRITICAL)
