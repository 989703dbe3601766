"""The passwords of a managed Redis: which must be made, and with which ones pods were started.

A password that is missing while a Redis runs with it was lost: Redis still uses it, and nobody can read it
any more. The new one is made once every pod with the old one is being replaced. Redis' pod template records
when its password was made, so a later reconcile replaces no pod again. A Redis that a release before users
has started knows no passwords of them, so theirs are made like first ones.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from flotilla_operator.api.fleet_queue import RedisMode
from flotilla_operator.controllers.agent_fleet.memory import PasswordSeen
from flotilla_operator.controllers.agent_fleet.seen import Observed, RedisSecret
from flotilla_operator.controllers.live_objects import LiveObject
from flotilla_operator.objects.owners import Owner
from flotilla_operator.objects.resources import STATEFUL_SETS, Manifest
from flotilla_operator.objects.times import timestamp
from flotilla_operator.workloads import agent_fleet as workloads
from flotilla_runtime import contract

ANNOTATION_PASSWORD_MADE = f"{contract.DOMAIN}/password-made"


class PasswordReason(StrEnum):
    """Whether a password must be made, and why."""

    OF_THE_USERS = "OfTheUsers"  # spec.queue.redis names a Redis that is not ours
    NOT_LOOKED_FOR = "NotLookedFor"  # it was there a short while ago
    THERE = "There"
    FIRST = "First"
    LOST = "Lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordDecision:
    """Decision about passwords: the Secrets to create now, and the memory to keep of it.

    `recorded` is the time that the pod templates get. It is None while the first passwords are in use.
    """

    reason: PasswordReason
    made: tuple[RedisSecret, ...] = ()
    seen: PasswordSeen | None = None
    recorded: str | None = None


def password_decision(observed: Observed, now: datetime) -> PasswordDecision:
    """Decide about the password. A Redis that the user runs has a password that is not ours."""
    if observed.spec.queue.redis.mode is not RedisMode.MANAGED:
        return PasswordDecision(reason=PasswordReason.OF_THE_USERS)
    redis = observed.part(STATEFUL_SETS.kind, workloads.redis(observed.owner).name)
    before = observed.memory.password
    if observed.secrets_found is None:
        return PasswordDecision(
            reason=PasswordReason.NOT_LOOKED_FOR, seen=before, recorded=password_made(redis)
        )
    missing = tuple(secret for secret in observed.secrets_needed if secret not in observed.secrets_found)
    if not missing:
        seen = PasswordSeen(at=now, digests=observed.redis_digests)
        return PasswordDecision(reason=PasswordReason.THERE, seen=seen, recorded=password_made(redis))
    lost = any(_runs_with(redis, secret, observed.owner) for secret in missing)
    lost_at = (before.lost_at if before is not None else None) or (now if lost else None)
    seen = PasswordSeen(at=now, missing=True, lost_at=lost_at)
    if lost_at is None:
        recorded = password_made(redis)
        return PasswordDecision(reason=PasswordReason.FIRST, made=missing, seen=seen, recorded=recorded)
    recorded = timestamp(lost_at)
    return PasswordDecision(reason=PasswordReason.LOST, made=missing, seen=seen, recorded=recorded)


def _runs_with(redis: LiveObject | None, secret: RedisSecret, owner: Owner) -> bool:
    """Whether this fleet's Redis runs with the passwords of a secret."""
    if redis is None or redis.controller_uid != owner.uid:
        return False
    users = redis.template_annotations.get(workloads.ANNOTATION_USERS)
    match secret:
        case RedisSecret.PASSWORD:
            return True
        case RedisSecret.USERS:
            return users is not None
        case RedisSecret.EXECUTOR:
            return workloads.EXECUTOR_USER in (users or "").split(",")


def password_made(redis: LiveObject | None) -> str | None:
    """When the password of the running pods was made, as Redis' pod template records; None for the first."""
    return None if redis is None else redis.template_annotations.get(ANNOTATION_PASSWORD_MADE)


def with_password_made(workload: Manifest, made: str | None) -> Manifest:
    """The workload with this time in its pod template, so that another time replaces the pods."""
    if made is None:
        return workload
    template = workload["spec"]["template"]
    metadata = template.get("metadata") or {}
    annotations = {**(metadata.get("annotations") or {}), ANNOTATION_PASSWORD_MADE: made}
    rolled = {**template, "metadata": {**metadata, "annotations": annotations}}
    return {**workload, "spec": {**workload["spec"], "template": rolled}}
