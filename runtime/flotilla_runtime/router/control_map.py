"""The control map, in which the agent tells the rules of HAProxy what they must know. Pure.

HAProxy starts with the text of `initial_text`, and the agent changes single entries over the admin socket.
The rules of frontend.py look the entries up by these names. The entry of the servers is a text that two read:
`read_homes` here, and `ready_servers` in router.lua. An entry of it that neither can parse is left out.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

SERVERS: Final = "servers"
QUEUE_LIMIT: Final = "queue_limit"
DRAINING: Final = "draining"

NO_SERVERS: Final = "-"  # an empty value cannot be set over the admin socket
HOME: Final = re.compile(r"([^,=]+)=(\d+)", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """A server that may be the home of conversations; the id decides of which ones."""

    name: str
    id: int


def entries(*, homes: Iterable[Home], queue_limit: int, draining: bool) -> dict[str, str]:
    """All entries, in the order in which they are written."""
    return {
        SERVERS: write_homes(homes),
        QUEUE_LIMIT: str(queue_limit),
        DRAINING: "1" if draining else "0",
    }


def initial_text(queue_limit: int) -> str:
    """The content of the map's file, before the agent knows any server."""
    initial = entries(homes=(), queue_limit=queue_limit, draining=False)
    return "".join(f"{key} {value}\n" for key, value in initial.items())


def write_homes(homes: Iterable[Home]) -> str:
    """The value of the entry of the servers."""
    return ",".join(f"{home.name}={home.id}" for home in homes) or NO_SERVERS


def read_homes(value: str) -> tuple[Home, ...]:
    """The servers in the value of their entry."""
    return tuple(Home(name=name, id=int(number)) for name, number in HOME.findall(value))
