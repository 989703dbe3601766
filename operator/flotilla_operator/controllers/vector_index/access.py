"""Access to searches: whether a key must be made, and whether searches without one are still answered. Pure.

Workers come first. A retriever that is older than keys is asked by workers that send none. It learns the keys
at once, and requires one only when no such worker is left. From then on it always does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class KeyReason(StrEnum):
    """Where the keys come from, and whether one must be made."""

    OF_THE_USERS = "OfTheUsers"  # spec.retriever.authSecretRef names a secret
    THERE = "There"
    MADE = "Made"


class AccessReason(StrEnum):
    """Why a search needs a key, or why it does not yet."""

    REQUIRED_BEFORE = "RequiredBefore"
    NEVER_SEARCHED = "NeverSearched"  # there is no retriever yet
    WORKERS_SEND_KEYS = "WorkersSendKeys"
    OLD_WORKERS = "OldWorkers"
    PAUSED = "Paused"  # nothing is changed


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchingFleet:
    """A fleet that names the index.

    `template_sends`: the workers of all its revisions do; None without any. `pods_without` are workers that
    send no key, also those that are ending: they finish their calls.
    """

    name: str
    template_sends: bool | None
    pods_without: int

    @property
    def sends_keys(self) -> bool:
        return self.template_sends is not False and not self.pods_without


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessDecision:
    """Whether a key is required now. `old_fleets` have workers that send none."""

    key: KeyReason
    reason: AccessReason
    old_fleets: tuple[str, ...] = ()

    @property
    def required(self) -> bool:
        return self.reason not in (AccessReason.OLD_WORKERS, AccessReason.PAUSED)


def access_decision(
    *,
    key_found: bool | None,
    required_before: bool,
    has_retriever: bool,
    paused: bool,
    fleets: Sequence[SearchingFleet],
) -> AccessDecision:
    """Access to searches now; `key_found` is None where the keys are the user's."""
    key = {None: KeyReason.OF_THE_USERS, True: KeyReason.THERE, False: KeyReason.MADE}[key_found]
    if required_before:
        return AccessDecision(key=key, reason=AccessReason.REQUIRED_BEFORE)
    if paused:
        return AccessDecision(key=key, reason=AccessReason.PAUSED)
    if not has_retriever:
        return AccessDecision(key=key, reason=AccessReason.NEVER_SEARCHED)
    old = tuple(sorted(fleet.name for fleet in fleets if not fleet.sends_keys))
    reason = AccessReason.OLD_WORKERS if old else AccessReason.WORKERS_SEND_KEYS
    return AccessDecision(key=key, reason=reason, old_fleets=old)
