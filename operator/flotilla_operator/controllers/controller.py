"""The interface between the reconcile loop and the controller of a kind.

A reconcile is four verbs. `observe` reads the caches (and secrets by name) into a value and decides nothing.
`decide` is a pure function from that value to what is wanted. `act` turns the decision into writes, which the
loop carries out. `tell` makes the status, its conditions and the events from the decision and from the writes
that were refused. All four get the same `now`. A reconcile right after one that was carried out has no
writes.

A key is woken by an event of the object itself, of an object that it controls by owner reference, of one with
its `flotilla.dev/kind` and `flotilla.dev/owner` labels, or of one that it names in `references`. It is also
woken by whatever `wakes` adds, when what its pods report changes a decision or the figures of its status
(`steering`), and after `look_again_seconds`.

While a deleted object carries a finalizer of ours, `decide` sees `metadata.deletionTimestamp`, and `act`
returns `finalizers=()` when nothing is left to do. Once the object is gone, only `left_behind` is called.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, TypeVar

from flotilla_operator.cluster.caches import Caches
from flotilla_operator.cluster.writes import Acts, Delete, Told
from flotilla_operator.controllers.absent_nodes import AbsentNodes
from flotilla_operator.controllers.config import OperatorConfig
from flotilla_operator.controllers.steering import Decisions, Steering
from flotilla_operator.objects.hashes import keyed_hash
from flotilla_operator.objects.refused_writes import RefusedWrite
from flotilla_operator.objects.resources import SECRETS, Key, Manifest, Reference, Resource
from flotilla_operator.objects.send_to import why_not_sent
from flotilla_operator.objects.used_by import Used, User, why_not_used
from flotilla_operator.telemetry.measurements import Measurements
from flotilla_runtime.contract import SecretForm, what_is_wrong

Facts = TypeVar("Facts")
Decision = TypeVar("Decision")


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """A secret's entries, decoded. They are left out of `repr`, so they cannot get into a log line.

    `send_to` is its annotation that says where they may be sent, `used_by` the one that says who may use it.
    """

    name: str
    uid: str
    resource_version: str
    data: Mapping[str, bytes] = field(repr=False)
    controller_uid: str | None = None
    send_to: str | None = None
    used_by: str | None = None

    def problem(self, key: str, form: SecretForm = SecretForm.HEADER) -> str | None:
        """Why the entry is missing or cannot be used, and the fix; None if it can."""
        if key not in self.data:
            return f"the Secret {self.name!r} has no entry {key!r}; add it"
        wrong = what_is_wrong(self.data[key], form)
        return None if wrong is None else f"the entry {key!r} of the Secret {self.name!r} {wrong}"

    def holds_a_key(self) -> bool:
        """Whether any entry is a key that a caller could send, so that somebody may call."""
        return any(self.problem(key) is None for key in self.data)

    def version(self, key: str) -> str:
        """A hash that changes when this entry's value changes, and not when another entry is added.

        It is keyed by the secret's UID, which only those can read who can read the secret itself.
        """
        return keyed_hash(self.data[key], key=self.uid)


class SecretReader(Protocol):
    """Reads one secret by name; secrets are never listed or watched."""

    async def get(self, namespace: str, name: str, *, owned_by: str | None = None) -> Secret | None:
        """The secret, or None when it does not exist.

        A secret may be cached for up to a minute, a missing one for up to ten seconds. With `owned_by`, the
        UID of the object that makes the secret, it is read again until that object's secret was seen.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Everything `observe` may look at. `steady` is a clock in seconds that does not jump."""

    caches: Caches
    measurements: Measurements
    config: OperatorConfig
    secrets: SecretReader
    decisions: Decisions
    absent_nodes: AbsentNodes
    steady: Callable[[], float]

    async def secret(self, namespace: str, name: str) -> Secret | None:
        """One secret by name, or None when it does not exist."""
        return await self.secrets.get(namespace, name)

    def why_not_sent(
        self, secret: Secret, url: str | None, *, through: Iterable[str | None] = ()
    ) -> str | None:
        """Why a secret's values may not be sent to a URL through these proxies, None where they may."""
        return why_not_sent(secret.send_to, url, required=self.config.restrict.enabled, through=through)

    def why_not_mounted(self, namespace: str, secret: Secret, user: User) -> str | None:
        """Why an object's pods may not mount a secret of its namespace, None where they may."""
        used = Used(resource=SECRETS, namespace=namespace, name=secret.name, annotation=secret.used_by)
        return self.why_not_used(used, user)

    def why_not_used(self, used: Used, user: User) -> str | None:
        """Why an object may not use a Secret or a claim, None where it may."""
        return why_not_used(used, user, required=self.config.restrict.enabled)

    async def own_secret(self, namespace: str, name: str, owner_uid: str) -> Secret | None:
        """The secret of this name if this object made it, else None: it may belong to another object."""
        secret = await self.secrets.get(namespace, name, owned_by=owner_uid)
        return secret if secret is not None and secret.controller_uid == owner_uid else None


class Controller(Protocol[Facts, Decision]):
    """Interface of the controller of one kind."""

    @property
    def resource(self) -> Resource:
        """The kind it reconciles."""

    @property
    def watches(self) -> Sequence[Resource]:
        """The other resources that it reads from the caches: those it owns and those it refers to."""

    def references(self, manifest: Manifest) -> Iterable[Reference]:
        """The objects that this one refers to without owning them; a change of one wakes this object."""

    def wakes(self, resource: Resource, manifest: Manifest, caches: Caches) -> Iterable[Key]:
        """Further keys to wake on an event of a watched object, besides owners and `references`; often none.

        For example, a node that became free wakes the sets that have a waiting group.
        """

    async def observe(self, key: Key, manifest: Manifest, world: World, now: datetime) -> Facts:
        """Everything that a decision needs, read from the caches, without list calls or writes."""

    def decide(self, facts: Facts, now: datetime) -> Decision:
        """Decide the desired state; a pure function."""

    def act(self, facts: Facts, decision: Decision, now: datetime) -> Acts:
        """The writes that lead there."""

    def tell(self, facts: Facts, decision: Decision, refusals: Sequence[RefusedWrite], now: datetime) -> Told:
        """The status and the events, once the writes are done or refused."""

    def steering(self, facts: Facts, decision: Decision) -> Steering:
        """How the object follows what its pods report until its next reconcile."""

    def left_behind(self, key: Key, world: World) -> Sequence[Delete]:
        """Return the deletes for an object that is gone: of objects that no owner reference takes along."""

    def carried_out(self, manifest: Manifest) -> None:
        """Called when the writes of this object are done or refused; the caches hold the results."""

    def was_told(self, manifest: Manifest) -> None:
        """Called when the status is written, or is as it was."""
