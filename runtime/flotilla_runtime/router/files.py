"""The names that the parts of a router pod share: the files in the run directory, and the names in HAProxy's
configuration that the agent uses on the admin socket.
"""

from dataclasses import dataclass
from pathlib import PurePosixPath

BACKEND = "engines"
REQUEST_RING = "requests"
ARRIVED = "proc.arrived"  # a variable of HAProxy's process: the number of requests that arrived


@dataclass(frozen=True, slots=True)
class RunFiles:
    """The paths under the run directory; `render` uses only the names."""

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
        """The name of the file with the answer to GET /v1/models/NAME for one model."""
        return f"model-{index}.json"

    def path(self, name: str) -> str:
        """The absolute path of one file."""
        return str(PurePosixPath(self.directory) / name)
