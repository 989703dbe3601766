"""Where the parts of a router pod find each other: the files in the directory they share, and the names in
HAProxy's configuration that the agent uses on its socket.
"""

from dataclasses import dataclass
from pathlib import PurePosixPath

BACKEND = "engines"
NO_SERVERS = "-"  # an empty value cannot be set over the admin socket
REQUEST_RING = "requests"
ARRIVED = "proc.arrived"  # a variable of the process: the requests that came


@dataclass(frozen=True, slots=True)
class RunFiles:
    """Paths under the run directory; the names alone are what `render` returns."""

    directory: str

    CONFIG = "haproxy.cfg"
    LUA = "router.lua"
    REFUSALS = "refusals.lua"
    CONTROL_MAP = "control.map"
    KEYS_MAP = "keys.map"
    MODELS = "models.json"
    ADMIN_SOCKET = "admin.sock"

    @staticmethod
    def model(index: int) -> str:
        """The name of the answer that tells of one model."""
        return f"model-{index}.json"

    def path(self, name: str) -> str:
        """The absolute path of one file."""
        return str(PurePosixPath(self.directory) / name)
