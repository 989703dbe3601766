"""The commands for HAProxy's admin socket that a plan is made of, as values. Pure.

What a plan does is decided by these values and never by their text. `text` writes a command as HAProxy 2.6 to
3.x reads it, and only HAProxy reads it. `shown` writes it for logs and errors, where no caller's key may be,
not even its hash.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from flotilla_runtime.contract import url_host
from flotilla_runtime.router.files import BACKEND, RunFiles


class AdminState(StrEnum):
    """The administrative state of a server, as set on the admin socket."""

    READY = "Ready"
    DRAIN = "Drain"
    MAINTENANCE = "Maintenance"


@dataclass(frozen=True, slots=True, kw_only=True)
class AddServer:
    """Add a server, which is in maintenance until it is enabled."""

    name: str
    id: int
    ip: str
    port: int
    max_connections: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EnableServer:
    """Send requests to a server that was added."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SetState:
    """Set the administrative state of a server."""

    name: str
    state: AdminState


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAddress:
    """Set the address of a server; open connections stay."""

    name: str
    ip: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SetMaxConnections:
    """Set how many requests a server may have at once."""

    name: str
    max_connections: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseConnections:
    """Close the open connections of a server."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteServer:
    """Delete a server that is in maintenance and has no connections."""

    name: str


class MapChange(StrEnum):
    """The change of a map's entry; the values are HAProxy's words."""

    ADD = "add"
    SET = "set"
    DELETE = "del"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeMap:
    """Change one entry of a map; `file` is one of RunFiles. An entry that is deleted has no value."""

    change: MapChange
    file: str
    key: str
    value: str = ""


Command = (
    AddServer
    | EnableServer
    | SetState
    | SetAddress
    | SetMaxConnections
    | CloseConnections
    | DeleteServer
    | ChangeMap
)

_STATES: Final = {AdminState.READY: "ready", AdminState.DRAIN: "drain", AdminState.MAINTENANCE: "maint"}


def text(command: Command, files: RunFiles) -> str:
    """The command as HAProxy reads it."""
    match command:
        case ChangeMap():
            words = f"{command.change} map {files.path(command.file)} {command.key} {command.value}"
            return words.rstrip()
        case AddServer():
            return (
                f"add server {BACKEND}/{command.name} {url_host(command.ip)}:{command.port} "
                f"id {command.id} maxconn {command.max_connections}"
            )
        case EnableServer():
            return f"enable server {BACKEND}/{command.name}"
        case SetState():
            return f"set server {BACKEND}/{command.name} state {_STATES[command.state]}"
        case SetAddress():
            return f"set server {BACKEND}/{command.name} addr {command.ip} port {command.port}"
        case SetMaxConnections():
            return f"set maxconn server {BACKEND}/{command.name} {command.max_connections}"
        case CloseConnections():
            return f"shutdown sessions server {BACKEND}/{command.name}"
        case DeleteServer():
            return f"del server {BACKEND}/{command.name}"


def changes_keys(command: Command) -> bool:
    """Whether the command changes the callers' keys."""
    return isinstance(command, ChangeMap) and command.file == RunFiles.KEYS_MAP


def shown(command: Command, files: RunFiles) -> str:
    """The command for logs and errors."""
    return "a caller's key" if changes_keys(command) else text(command, files)
