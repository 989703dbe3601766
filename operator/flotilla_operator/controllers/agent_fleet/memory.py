"""Memory of the controller of fleets between reconciles; losing all of it in a restart does no harm."""

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordSeen:
    """When a fleet's passwords were last looked for, and since when a running Redis has been without one.

    `digests` are the hashes of its users' passwords that were there. They are never read from Redis'
    configuration, which people may edit who may read no Secret.
    """

    at: datetime
    missing: bool = False
    lost_at: datetime | None = None
    digests: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetMemory:
    """Memory of one fleet; `password` is None before it is first looked for."""

    password: PasswordSeen | None = None


@dataclass(slots=True)
class Memory:
    """Memory of all fleets, by UID."""

    fleets: dict[str, FleetMemory] = field(default_factory=dict)

    def of(self, uid: str) -> FleetMemory:
        """Return the memory of one fleet."""
        return self.fleets.get(uid, FleetMemory())

    def note(self, uid: str, memory: FleetMemory) -> None:
        """Remember what a decision about this fleet says to remember."""
        self.fleets[uid] = memory

    def keep_only(self, uids: Set[str]) -> None:
        """Drop what is remembered of fleets that no longer exist."""
        self.fleets = {uid: memory for uid, memory in self.fleets.items() if uid in uids}
