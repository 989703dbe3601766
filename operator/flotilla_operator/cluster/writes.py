"""The writes a plan may ask for, as values.

A controller's `plan` returns these and touches nothing; `cluster.writer` carries them out, in order, and is
the only code that does. A write names everything it needs, so that a log line, a test and the API call show
the same thing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

Manifest = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectRef:
    """Where an object stands: `group` is empty for core/v1, `plural` the path's word, for example `pods`."""

    group: str
    version: str
    plural: str
    namespace: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Apply:
    """Server-side apply of a whole manifest, skipped when neither it nor the live copy has changed.

    The live object must carry our controller owner reference (by UID) or not exist; else the write is
    refused and reported as `NameTaken`. A `retained` object carries no owner reference and is recognised by
    its labels. `field` is the user's field that asks for it, where Kubernetes may refuse a change of it.
    `needs` are objects that earlier writes of the plan make: where one is refused, this is not sent.
    """

    manifest: Manifest
    retained: bool = False
    field: str = ""
    needs: frozenset[ObjectRef] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Create:
    """POST of an object that is replaced and never edited (pods, jobs); one that exists is left alone.

    `needs` are objects that earlier writes of the plan make: this waits for them, and where one is refused
    it is not sent.
    """

    manifest: Manifest
    needs: frozenset[ObjectRef] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonPatch:
    """A JSON patch (RFC 6902) guarded by a test on `resource_version`, or, where what else changes in the
    object does not matter, on its `uid`. Of an object that the same plan creates neither is known: it
    `needs` that, as a `Create` does, and its operations guard themselves.
    """

    ref: ObjectRef
    operations: Sequence[Mapping[str, Any]]
    resource_version: str | None = None
    uid: str | None = None
    needs: frozenset[ObjectRef] = frozenset()

    @property
    def guards(self) -> list[Mapping[str, Any]]:
        """The tests that the patch begins with."""
        tested = {"resourceVersion": self.resource_version, "uid": self.uid}
        return [
            {"op": "test", "path": f"/metadata/{name}", "value": value}
            for name, value in tested.items()
            if value is not None
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Delete:
    """A delete with a precondition on `uid`; `grace_period_seconds` of None leaves the object's own."""

    ref: ObjectRef
    uid: str
    grace_period_seconds: int | None = None
    propagation: str = "Background"


Write = Apply | Create | JsonPatch | Delete


class EventType(StrEnum):
    """Kubernetes' two event types."""

    NORMAL = "Normal"
    WARNING = "Warning"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """An events.k8s.io event about the reconciled object; repeats become a series.

    `subject` is what of the object it tells of (a group, a step, a condition type): the same news of two
    subjects are two events.
    """

    type: EventType
    reason: str
    note: str
    subject: str = ""
    action: str = "Reconcile"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a reconcile wants done.

    `status` is the whole wanted status (None leaves it alone), `finalizers` the whole wanted list of the
    reconciled object (None leaves it alone), `look_again_seconds` the time to the next look when nothing
    changes. `rests_on` names the writes that something said in advance rests on, by the event's subject or
    the condition's type: when one of them is refused, that event is not told and that condition is False.
    """

    writes: Sequence[Write] = ()
    status: Mapping[str, Any] | None = None
    finalizers: Sequence[str] | None = None
    events: Sequence[Event] = field(default=())
    look_again_seconds: float | None = None
    rests_on: Mapping[str, frozenset[ObjectRef]] = field(default_factory=dict)
