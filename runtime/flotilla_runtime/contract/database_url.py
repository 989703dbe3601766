"""The URL of a PostgreSQL in a secret: read alike by the operator, which compares its host, and by workers.

It names one host, and no option that would lead elsewhere or read a file:
`postgresql://user:password@host:5432/name`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar
from urllib.parse import parse_qsl, unquote, urlsplit


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseUrl:
    """Where a database is, and how to log in."""

    SCHEMES: ClassVar[frozenset[str]] = frozenset({"postgresql", "postgres"})
    USUAL_PORT: ClassVar[int] = 5432
    HIGHEST_PORT: ClassVar[int] = 65_535
    OPTIONS: ClassVar[Mapping[str, frozenset[str]]] = {
        "sslmode": frozenset({"disable", "allow", "prefer", "require", "verify-ca", "verify-full"}),
        "sslrootcert": frozenset({"system"}),
    }

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    name: str
    options: tuple[tuple[str, str], ...] = ()

    @property
    def address(self) -> str:
        """The URL without what is secret."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"postgresql://{host}:{self.port}"


class DatabaseUrlError(ValueError):
    """The URL cannot be used. The message has no part of it."""


def read_database_url(text: str) -> DatabaseUrl:
    """The parts of a URL; a DatabaseUrlError says what is wrong, and never has a part of it."""
    try:
        parts = urlsplit(text.strip())
        port = parts.port or DatabaseUrl.USUAL_PORT
    except ValueError:
        raise DatabaseUrlError("it is no URL") from None
    if parts.scheme not in DatabaseUrl.SCHEMES:
        raise DatabaseUrlError("it does not begin with postgresql://")
    host, name = parts.hostname or "", unquote(parts.path.removeprefix("/"))
    if not host or any(mark in host for mark in ",%/") or not 0 < port <= DatabaseUrl.HIGHEST_PORT:
        raise DatabaseUrlError("it does not name one host")
    if not name or not parts.username:
        raise DatabaseUrlError("it needs a user and the name of a database")
    options = tuple(parse_qsl(parts.query, keep_blank_values=True))
    for option, value in options:
        if value not in DatabaseUrl.OPTIONS.get(option, ()):
            raise DatabaseUrlError("of the options only sslmode, and sslrootcert=system, are allowed")
    return DatabaseUrl(
        host=host,
        port=port,
        user=unquote(parts.username),
        password=unquote(parts.password or ""),
        name=name,
        options=options,
    )
