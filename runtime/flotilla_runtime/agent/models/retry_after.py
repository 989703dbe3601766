"""Reads the header Retry-After: seconds, or a date. Pure."""

from datetime import UTC
from email.utils import parsedate_to_datetime


def retry_after_seconds(header: str | None, now: float) -> float | None:
    """How long the server asks to wait; `now` is the time of day in seconds since the epoch."""
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdecimal():
        return float(text[:9])  # a longer number is no time to wait for
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    if moment.tzinfo is None:  # "-0000": a time without a zone, which HTTP does not have
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, moment.timestamp() - now)
