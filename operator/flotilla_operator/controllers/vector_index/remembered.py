"""Memory in an index's own status: the served generation, the last counts and validation, and conditions.

A status that is not valid is an empty memory. The retriever then says what is served, and the next build what
it counts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flotilla_operator.api.vector_index import VectorIndexStatus
from flotilla_operator.controllers.stored_status import as_written, conditions_before, stored_status
from flotilla_operator.objects.resources import Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """Words of the last reconcile; empty for a new index.

    `documents`, `gate` and `keys` have the fields that were written, because they are written again as they
    were. `whole` is the whole status, which an index that is being deleted keeps.
    """

    phase: str | None = None
    active_generation: str | None = None
    documents: Mapping[str, Any] | None = None
    chunks: int | None = None
    gate: Mapping[str, Any] | None = None
    keys: Mapping[str, Any] | None = None
    conditions: Sequence[Mapping[str, Any]] = ()
    whole: Mapping[str, Any] = field(default_factory=dict)

    @property
    def required_keys(self) -> bool:
        """Whether searches without a key were refused."""
        return bool(self.keys is not None and self.keys.get("required"))


def remembered(manifest: Manifest) -> Remembered:
    """Memory in the status of this index."""
    status = stored_status(VectorIndexStatus, manifest)
    return Remembered(
        phase=status.phase,
        active_generation=status.active_generation,
        documents=as_written(status.documents) if status.documents is not None else None,
        chunks=status.chunks,
        gate=as_written(status.gate) if status.gate is not None else None,
        keys=as_written(status.keys) if status.keys is not None else None,
        conditions=conditions_before(status),
        whole=as_written(status),
    )


def requires_keys(manifest: Manifest) -> bool:
    """Whether an index refuses searches without a key, as its status says."""
    keys = (manifest.get("status") or {}).get("keys")
    return isinstance(keys, Mapping) and keys.get("required") is True
