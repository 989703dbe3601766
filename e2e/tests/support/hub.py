"""The hub's stand-in, seen from behind: what it was asked for, and what is to go wrong with it."""

import json
from dataclasses import dataclass
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen


@dataclass(frozen=True, kw_only=True)
class Stub:
    """A hub that counts what it is asked and fails as it is told."""

    url: str

    def set_faults(self, faults: dict[str, Any]) -> None:
        """Faults from now on, in the words of `hub_stub.configuration.Faults`."""
        urlopen(Request(f"{self.url}/admin/faults", json.dumps(faults).encode())).close()

    def requests(self) -> list[str]:
        """Everything it was asked for."""
        with urlopen(f"{self.url}/admin/requests") as response:
            seen: list[str] = json.load(response)
        return seen

    def answers(self) -> bool:
        """The hub is up."""
        try:
            self.requests()
        except URLError:
            return False
        return True


@dataclass(frozen=True, kw_only=True)
class Hub(Stub):
    """The same with the repository that a test is about."""

    repository: str

    def downloads(self, file: str) -> int:
        """How often the content of a file was asked for."""
        return self.requests().count(f"GET /large/{self.repository}/{file}")
