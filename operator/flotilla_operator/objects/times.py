"""Times as the API server writes them."""

from datetime import UTC, datetime


def timestamp(time: datetime) -> str:
    """A time as the API server writes it: UTC, whole seconds."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parsed_timestamp(text: str) -> datetime:
    """The time in one of the API server's timestamps."""
    return datetime.fromisoformat(text)


def known_time(text: str | None) -> datetime | None:
    """The time in a timestamp that may be absent."""
    return parsed_timestamp(text) if text else None


def known_timestamp(time: datetime | None) -> str | None:
    """The timestamp of a time that may be unknown."""
    return None if time is None else timestamp(time)
