"""Finds the names of ours that objects of other owners hold; the writer leaves those objects alone. Pure."""

from dataclasses import dataclass

from flotilla_operator.controllers.live_objects import LiveObject
from flotilla_operator.controllers.vector_index.seen import Observed
from flotilla_operator.objects.resources import PERSISTENT_VOLUME_CLAIMS
from flotilla_operator.workloads.vector_index.milvus import milvus


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class NameTaken:
    """A name of ours that another object holds."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


def names_taken(observed: Observed) -> tuple[NameTaken, ...]:
    """The names that are taken, sorted by kind. A retained claim is ours without an owner reference."""
    return tuple(
        sorted(
            NameTaken(kind=live.kind, name=live.name)
            for live in observed.live.values()
            if live.controller_uid != observed.owner.uid and not is_retained_claim(observed, live)
        )
    )


def is_retained_claim(observed: Observed, live: LiveObject) -> bool:
    """Whether this claim is retained: for or by an index of this name."""
    if live.kind != PERSISTENT_VOLUME_CLAIMS.kind or live.controller_uid is not None:
        return False
    return milvus(observed.owner).selector.items() <= live.labels.items()
