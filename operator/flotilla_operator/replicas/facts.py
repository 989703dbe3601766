"""Facts of one set: values that policies read and never change."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from flotilla_operator.api.model_replica_set import ModelReplicaSetSpec
from flotilla_operator.objects.owners import Owner
from flotilla_operator.placement import Group
from flotilla_operator.replicas.group import ReplicaGroup
from flotilla_operator.replicas.memory import Remembered
from flotilla_operator.replicas.revisions.answers import Answers


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A spec that can be in force.

    `refresh` is the value of `flotilla.dev/refresh` that its pods are made with. `asks` is what a replica of
    it asks of nodes, and `accelerator` the name under which placement counts its accelerators; None without
    one. `tolerations` are those of its pods (core/v1), and `claims` their volumes that may exist in only one
    zone.
    """

    spec: ModelReplicaSetSpec
    revision: str
    refresh: str = ""
    asks: Group | None = None
    accelerator: str | None = None
    tolerations: Sequence[Mapping[str, Any]] = ()
    claims: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedPin:
    """A node to which a group was pinned without being bound, and what the node had free then."""

    node: str
    free: int
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterLoad:
    """Figures that the routers report together; a figure that is not known is None.

    `unusable` maps pods to which no request is sent to the problem. `used` names the groups to which a router
    sends requests, or of which one has requests.
    """

    waiting: int | None = None
    running: int | None = None
    by_group: Mapping[str, int] = field(default_factory=dict)
    sessions: Mapping[str, int] = field(default_factory=dict)
    idle_seconds: float | None = None
    answers: Mapping[str, Answers] = field(default_factory=dict)
    arrivals_per_second: float | None = None
    kept_per_second: float | None = None
    kv_usage: float | None = None
    unusable: Mapping[str, str] = field(default_factory=dict)
    used: frozenset[str] = frozenset()

    @property
    def of_all(self) -> bool:
        """Whether every router has answered: only then is the idle time known."""
        return self.idle_seconds is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class SetFacts:
    """One set as its object, its pods and its records show it.

    `newest` is what the user's object asks for. `good` is the last good revision, where it is recorded and
    differs from the newest; `newest_failed` says that the newest is one that has failed. `groups` are as the
    pods show them, before they are judged. `key_made_anew` is the time when the engines' key was replaced,
    empty for the first key.
    """

    owner: Owner
    newest: Form
    good: Form | None = None
    newest_failed: bool = False
    leaves: bool = False
    groups: tuple[ReplicaGroup, ...] = ()
    memory: Remembered = field(default_factory=Remembered)
    priority: int = 0
    failed_pins: tuple[FailedPin, ...] = ()
    key_made_anew: str = ""

    @property
    def can_go_back(self) -> bool:
        """Whether a rollback would lead anywhere; before the first good revision nothing is asked for."""
        return self.good is not None or self.memory.rollout.good in ("", self.newest.revision)
