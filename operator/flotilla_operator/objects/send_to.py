"""Where the values of a Secret may be sent: the annotation `flotilla.dev/send-to`, a list of hosts.

`huggingface.co, milvus.example.com:19530, [fd00::7]:443`: a host without a port stands for each of its ports.
Names are compared as they are written, without regard to case and to a dot at their end; none stands for
those below it.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from flotilla_runtime.contract import DOMAIN

ANNOTATION: Final = f"{DOMAIN}/send-to"
HOST: Final = r"\[[0-9a-fA-F:.]+\]|[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\.?"
ENTRY: Final = re.compile(rf"(?P<host>{HOST})(:(?P<port>[0-9]{{1,5}}))?")
# Nothing that clients read in different ways, and nothing that the kubelet replaces: no user, no `$(NAME)`.
URL: Final = re.compile(
    rf"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<host>{HOST})(:(?P<port>[0-9]{{1,5}}))?(/.*)?", re.IGNORECASE
)
HIGHEST_PORT: Final = 65_535
PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A host in lower case, and a port; None stands for every port."""

    host: str
    port: int | None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"

    def covers(self, other: "Address") -> bool:
        """Whether the other address is this one, or one of its ports."""
        return self.host == other.host and self.port in (None, other.port)


def why_not_sent(
    annotation: str | None, url: str | None, *, required: bool, through: Iterable[str | None] = ()
) -> str | None:
    """Why the values of a Secret with this annotation may not be sent to a URL; None where they may.

    The proxies that lead to it, `through`, may read them, so they need the same. An address is None where it
    is not known. Without the annotation a Secret may be sent anywhere, unless the annotation is `required`.
    """
    if annotation is None and not required:
        return None
    if (why := _why_not_to(annotation, url)) is not None:
        return why
    refused = (why for proxy in through if (why := _why_not_to(annotation, proxy)) is not None)
    return next((f"for the proxy of its variables, {why}" for why in refused), None)


def _why_not_to(annotation: str | None, url: str | None) -> str | None:
    if url is None:
        return "its address is not known before a pod starts; write it as a value, not by valueFrom"
    to = address_of(url)
    if to is None:
        return (
            "its address has no readable host; write it as https://host:port/path, without a user "
            "and without variables"
        )
    if annotation is None:
        return f"it does not say where it may be sent; annotate it with {ANNOTATION}: {to}"
    listed = [entry.strip() for entry in annotation.split(",") if entry.strip()]
    addresses = [_address(entry) for entry in listed]
    if None in addresses:
        wrong = listed[addresses.index(None)]
        return f"its annotation {ANNOTATION} has the entry {wrong!r}, which is no host and no host:port"
    if any(address is not None and address.covers(to) for address in addresses):
        return None
    return f"its annotation {ANNOTATION} does not list {to}; add it there, or use another Secret"


def address_of(url: str) -> Address | None:
    """The host and port that a URL leads to; None where every reader may not see the same ones."""
    found = URL.fullmatch(url)
    if found is None:
        return None
    port = PORTS.get(found["scheme"].lower()) if found["port"] is None else int(found["port"])
    if port is None or not 0 < port <= HIGHEST_PORT:
        return None
    return Address(host=_plain(found["host"]), port=port)


def _address(entry: str) -> Address | None:
    found = ENTRY.fullmatch(entry)
    if found is None:
        return None
    port = None if found["port"] is None else int(found["port"])
    return Address(host=_plain(found["host"]), port=port)


def _plain(host: str) -> str:
    return host.strip("[]").rstrip(".").lower()
