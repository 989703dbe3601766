"""Memory of a set's failures: `status.backoff` and `status.refusedPods`, read and written."""

import re
from collections.abc import Mapping
from typing import Any

from flotilla_operator.api.model_replica_set import (
    BackoffStatus,
    RefusedPodsStatus,
)
from flotilla_operator.api.parts import MESSAGE_LIMIT
from flotilla_operator.controllers.conditions import conditions_of
from flotilla_operator.controllers.model_replica_set.reasons import ConditionType, Reason
from flotilla_operator.controllers.stored_status import stored_part
from flotilla_operator.objects.refused_writes import WriteReason
from flotilla_operator.objects.resources import Manifest
from flotilla_operator.objects.times import parsed_timestamp, timestamp
from flotilla_operator.replicas.backoff import Backoff, RefusedPods

GROUP_NAME = re.compile(r"[a-z0-9][-a-z0-9]*")  # a refusal begins with the plural and the name of an object
Json = Mapping[str, Any]


def backoff_of(held: BackoffStatus | None, *, of_this_spec: bool) -> Backoff | None:
    """A changed spec may be allowed what was refused before, so it is tried at once."""
    if held is None:
        return None
    message, reason = held.message or "", held.reason or ""
    group, separator, why = message.partition(": ")
    named = bool(separator) and GROUP_NAME.fullmatch(group) is not None
    found = Backoff(
        failures=held.failures,
        failed_at=parsed_timestamp(held.failed_time),
        why=why if named else message,
        reason=reason,
        group=group if named else "",
    )
    return None if found.refused and not of_this_spec else found


def backoff_status(backoff: Backoff | None) -> dict[str, Any] | None:
    """`status.backoff`. The message begins with the name of the group that failed, if one did."""
    if backoff is None:
        return None
    return {
        "failures": backoff.failures,
        "failedTime": timestamp(backoff.failed_at),
        "untilTime": timestamp(backoff.until),
        "reason": backoff.reason or None,
        "message": backoff.message,
    }


def refusal_of(manifest: Manifest) -> RefusedPods | None:
    """The pods that the API server refused, unless their reason is one of a later release."""
    status: Json = manifest.get("status") or {}
    held = stored_part(RefusedPodsStatus, status.get("refusedPods")) or _refusal_of_older_releases(manifest)
    if held is None or held.reason not in tuple(WriteReason):
        return None
    return RefusedPods(reason=WriteReason(held.reason), message=held.message or "", counted=held.counted)


def _refusal_of_older_releases(manifest: Manifest) -> RefusedPodsStatus | None:
    """They kept a refusal in the condition Placed, and one that was counted in the backoff."""
    placed = next((c for c in conditions_of(manifest) if c["type"] == ConditionType.PLACED), {})
    backoff = stored_part(BackoffStatus, (manifest.get("status") or {}).get("backoff"))
    if placed.get("reason") == Reason.BACKING_OFF and backoff is not None:
        return RefusedPodsStatus(reason=backoff.reason or "", message=backoff.message, counted=True)
    reason, message = str(placed.get("reason") or ""), placed.get("message")
    return RefusedPodsStatus(reason=reason, message=message) if reason else None


def refused_pods_status(refused: RefusedPods | None) -> dict[str, Any] | None:
    """`status.refusedPods`."""
    if refused is None:
        return None
    message = refused.message[:MESSAGE_LIMIT] or None
    return {"reason": str(refused.reason), "message": message, "counted": refused.counted}
