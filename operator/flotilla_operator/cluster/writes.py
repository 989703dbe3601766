"""The writes that a controller can ask for, and what it tells, as values.

A controller's `act` returns writes and changes nothing itself; only `cluster.writer` carries them out. A
write holds everything that it needs, so that a log line, a test and the API call show the same thing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from flotilla_operator.objects.resources import Key, Manifest, ObjectRef


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Parts that releases added to a pod template: the names of all, and the manifest with only some of them.

    `with_only` ignores names that it does not know.
    """

    names: frozenset[str]
    with_only: Callable[[frozenset[str]], Manifest]


@dataclass(frozen=True, slots=True, kw_only=True)
class Apply:
    """Server-side apply of a whole manifest; skipped when neither it nor the live object has changed.

    The live object must have our controller owner reference (by UID) or must not exist. Otherwise the write
    is refused with `NameTaken`. A `retained` object has no owner reference and is recognised by its labels.
    `field` names the user's field for which Kubernetes may refuse it, for the message. `needs` are objects
    that earlier writes make; if one of them is refused, this write is skipped. `manifest` has all `parts`;
    the writer leaves those out that a workload which serves does not have yet.
    """

    manifest: Manifest
    parts: Parts | None = field(default=None, compare=False, repr=False)
    retained: bool = False
    field: str = ""
    needs: frozenset[ObjectRef] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Create:
    """POST of an object that is never edited, only replaced (pods, jobs); an existing one is left alone.

    `field` names the user's field for which Kubernetes may refuse it. `needs` are objects that earlier writes
    make. This write waits for them, and is skipped if one of them is refused. A `retained` object has no
    controller and is recognised by its labels, as in `Apply`.
    """

    manifest: Manifest
    retained: bool = False
    field: str = ""
    needs: frozenset[ObjectRef] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonPatch:
    """A JSON patch (RFC 6902).

    It tests the object's `resource_version` first, or only its `uid` where other changes of the object do not
    matter. For an object that the same reconcile creates neither is known yet: the patch then `needs` that
    object, as a `Create` does, and its operations must test what they rely on.
    """

    ref: ObjectRef
    operations: Sequence[Mapping[str, Any]]
    resource_version: str | None = None
    uid: str | None = None
    needs: frozenset[ObjectRef] = frozenset()

    @property
    def guards(self) -> list[Mapping[str, Any]]:
        """The test operations at the beginning of the patch."""
        tested = {"resourceVersion": self.resource_version, "uid": self.uid}
        return [
            {"op": "test", "path": f"/metadata/{name}", "value": value}
            for name, value in tested.items()
            if value is not None
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Delete:
    """A delete with a precondition on `uid`; without `grace_period_seconds` the object's own applies.

    With a `resource_version` it deletes only the version that the decision was made from. A decision that
    rests on something that has not happened yet names it, because it may have happened meanwhile. `needs` are
    objects that are deleted first; if one of these deletions is refused, this one is left out.
    """

    ref: ObjectRef
    uid: str
    resource_version: str | None = None
    needs: frozenset[ObjectRef] = frozenset()
    grace_period_seconds: int | None = None
    propagation: str = "Background"


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRun:
    """A POST of which the API server keeps nothing: whether it would take this object as a new one.

    What would refuse a new object refuses it: the schema, admission policies and webhooks. A quota that is
    used up does not count, because nothing is added. `ref` is the object of ours that wants to know.
    """

    ref: ObjectRef
    manifest: Manifest
    needs: frozenset[ObjectRef] = frozenset()


Write = Apply | Create | JsonPatch | Delete | DryRun


class EventType(StrEnum):
    """Kubernetes' two event types."""

    NORMAL = "Normal"
    WARNING = "Warning"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """An events.k8s.io event about the reconciled object; repeats become a series.

    `subject` says which part of the object it is about (a group, a step, a condition type). Events with the
    same reason about two subjects are not counted as repeats.
    """

    type: EventType
    reason: str
    note: str
    subject: str = ""
    action: str = "Reconcile"


@dataclass(frozen=True, slots=True, kw_only=True)
class Acts:
    """Actions of a reconcile.

    `finalizers` is the whole list of our finalizers; None leaves them unchanged. `look_again_seconds` is the
    time until the next reconcile when nothing changes. `wakes` names other objects that this decision
    concerns, each with the seconds until its own reconcile.
    """

    writes: Sequence[Write] = ()
    finalizers: Sequence[str] | None = None
    look_again_seconds: float | None = None
    wakes: Mapping[Key, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """Reports of a reconcile after its writes; a `status` of None leaves the status unchanged."""

    status: Mapping[str, Any] | None = None
    events: Sequence[Event] = ()
