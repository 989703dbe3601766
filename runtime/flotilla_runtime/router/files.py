"""Where the parts of a router pod find each other: the files in the directory they share."""

from dataclasses import dataclass
from pathlib import PurePosixPath


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

    def path(self, name: str) -> str:
        """The absolute path of one file."""
        return str(PurePosixPath(self.directory) / name)
