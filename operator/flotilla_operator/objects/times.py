"""Times as the API server writes them."""

from datetime import UTC, datetime


def timestamp(time: datetime) -> str:
    """A time as the API server writes it: UTC, whole seconds."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parsed_timestamp(text: str) -> datetime:
    """The time in one of the API server's timestamps."""
    return datetime.fromisoformat(text)
