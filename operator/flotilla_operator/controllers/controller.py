"""What a kind must give the loop, and what the loop gives a kind.

A controller has three steps. `observe` reads caches (and secrets by name) into a value of its own; `plan` is
a pure function from that value and the time to a `Plan`; the loop carries the plan out. Planning again right
after a plan was carried out gives no writes.

What wakes a key: an event of the object itself; of anything it controls by owner reference, or that carries
its `flotilla.dev/kind` and `flotilla.dev/owner` labels; of anything it names in `references`; whatever
`wakes` adds; a scrape target that became known or unknown; the end of `look_again_seconds`.

A deleted object: while it carries a finalizer of ours, `plan` sees `metadata.deletionTimestamp` and returns
`finalizers=()` when nothing is left to do. When it is gone, there is no call.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, TypeVar

from flotilla_operator.cluster.caches import Caches
from flotilla_operator.cluster.resources import Key, Reference, Resource
from flotilla_operator.cluster.writes import Manifest, Plan
from flotilla_operator.controllers.config import OperatorConfig
from flotilla_operator.telemetry.measurements import Measurements, Target
from flotilla_operator.workloads.hashing import keyed_hash

Observed = TypeVar("Observed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """A secret's entries, decoded. They never appear in a representation, so no log line can hold them."""

    name: str
    uid: str
    resource_version: str
    data: Mapping[str, bytes] = field(repr=False)
    controller_uid: str | None = None

    def version(self, key: str) -> str:
        """What changes when this entry's value does, and not when another entry is added beside it.

        Keyed by the UID, which only those may read who may read the secret.
        """
        return keyed_hash(self.data[key], key=self.uid)


class SecretReader(Protocol):
    """Reads one secret by name; secrets are never listed or watched."""

    async def get(self, namespace: str, name: str, *, owned_by: str | None = None) -> Secret | None:
        """The secret, at most a minute old, or None when it does not exist (ten seconds old at most).

        With the UID of an object that makes it, it is read anew until that object's secret has been seen.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Everything `observe` may look at."""

    caches: Caches
    measurements: Measurements
    config: OperatorConfig
    secrets: SecretReader

    async def secret(self, namespace: str, name: str) -> Secret | None:
        """One secret by name, or None when it does not exist."""
        return await self.secrets.get(namespace, name)

    async def own_secret(self, namespace: str, name: str, owner_uid: str) -> Secret | None:
        """The secret that this object made, or None: one of this name may be another's."""
        secret = await self.secrets.get(namespace, name, owned_by=owner_uid)
        return secret if secret is not None and secret.controller_uid == owner_uid else None


class Controller(Protocol[Observed]):
    """One kind's story."""

    @property
    def resource(self) -> Resource:
        """The kind it reconciles."""

    @property
    def watches(self) -> Sequence[Resource]:
        """The other resources it reads from the caches: what it owns and what it refers to."""

    def references(self, manifest: Manifest) -> Iterable[Reference]:
        """What the object names without owning it; a change of one of these wakes the object."""

    def wakes(self, resource: Resource, manifest: Manifest, caches: Caches) -> Iterable[Key]:
        """Keys that an event of a watched object wakes beyond owner and references; often none.

        For example: a node that became free wakes the sets that have a group waiting.
        """

    async def observe(self, key: Key, manifest: Manifest, world: World) -> Observed:
        """Everything `plan` needs, read from caches; no list calls, no writes."""

    def plan(self, observed: Observed, now: datetime) -> Plan:
        """What to do about it; pure."""

    def scrape_targets(self, observed: Observed) -> Sequence[Target]:
        """What telemetry should scrape for this object from now on."""

    def carried_out(self, manifest: Manifest) -> None:
        """The writes of this object's plan are done or refused, and the caches hold what they made."""
