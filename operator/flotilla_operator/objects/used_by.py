"""Annotation `flotilla.dev/used-by`: the objects that may use a Secret or a claim.

`AgentFleet/support, ModelReplicaSet/llama`: objects of the same namespace, whose spec may name it. It is for
what pods mount and do not send; where values may be sent says `send_to`.
"""

import re
from dataclasses import dataclass
from typing import Final

from flotilla_operator.objects.resources import (
    OUR_KINDS,
    PERSISTENT_VOLUME_CLAIMS,
    SECRETS,
    Resource,
)
from flotilla_runtime.contract import DOMAIN

ANNOTATION: Final = f"{DOMAIN}/used-by"
KINDS: Final = tuple(sorted(resource.kind for resource in OUR_KINDS))
NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
QUOTED: Final = 80  # characters of an entry that cannot be read
LONGEST_COMMAND: Final = 2_000  # with more objects than these, the command is shown for the new one alone
SHORT: Final = {SECRETS: "secret", PERSISTENT_VOLUME_CLAIMS: "pvc"}


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class User:
    """An object of one of our kinds that names a Secret or a claim of its namespace."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """A Secret or a claim, and its annotation."""

    resource: Resource
    namespace: str
    name: str
    annotation: str | None

    def command(self, users: list[User]) -> str:
        """The line that writes the annotation with these users."""
        again = "" if self.annotation is None else " --overwrite"
        what = f"-n {self.namespace} {SHORT[self.resource]} {self.name}"
        return f"kubectl annotate{again} {what} {ANNOTATION}='{', '.join(map(str, users))}'"


def why_not_used(used: Used, user: User, *, required: bool) -> str | None:
    """Why this object may not use a Secret or a claim; None where it may.

    Without the annotation every object of the namespace may, unless the annotation is `required`.
    """
    if used.annotation is None:
        if not required:
            return None
        return f"it does not say who may use it; if this object may, run: {used.command([user])}"
    listed = [entry.strip() for entry in used.annotation.split(",") if entry.strip()]
    for entry in listed:
        if (wrong := _why_wrong(entry)) is not None:
            return f"its annotation {ANNOTATION} has the entry {entry[:QUOTED]!r}, {wrong}"
    users = [_user(entry) for entry in listed]
    if user in users:
        return None
    command = used.command([*users, user])
    if len(command) > LONGEST_COMMAND:
        return f"its annotation {ANNOTATION} does not list {user}; if this object may use it, add that entry"
    return f"its annotation {ANNOTATION} does not list {user}; if this object may use it, run: {command}"


def _why_wrong(entry: str) -> str | None:
    parts = entry.split("/")
    if len(parts) > 2:
        return (
            "which names a namespace; only objects of its own namespace can use it, so write KIND/NAME, or "
            "remove the entry"
        )
    if len(parts) == 2 and parts[0] in KINDS and NAME.fullmatch(parts[1]):
        return None
    return f"which is no KIND/NAME; write one of {', '.join(KINDS)}, a slash and a name, or remove the entry"


def _user(entry: str) -> User:
    kind, name = entry.split("/")
    return User(kind=kind, name=name)
