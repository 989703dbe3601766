"""How a repository of the hub is written in the spec: hf://organisation/name. Pure."""

from typing import Final

SCHEME: Final = "hf://"


def hub_source(name: str) -> str:
    """The source for a repository of this name."""
    return f"{SCHEME}{name}"


def hub_name(source: str) -> str | None:
    """The repository that a source names; None for a source of another kind."""
    return source.removeprefix(SCHEME) if source.startswith(SCHEME) else None
