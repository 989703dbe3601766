"""A set's object as it is read: its spec, and what its status remembers."""

from dataclasses import dataclass

from flotilla_operator.api.model_replica_set import ModelReplicaSet, ModelReplicaSetSpec
from flotilla_operator.controllers.model_replica_set.remembered.remembered import remembered
from flotilla_operator.controllers.stored_status import without_status
from flotilla_operator.objects.resources import Manifest
from flotilla_operator.replicas.memory import Remembered


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedSet:
    """A set's manifest with its parsed spec and what its status remembers."""

    manifest: Manifest
    spec: ModelReplicaSetSpec
    memory: Remembered

    @property
    def uid(self) -> str:
        return str(self.manifest["metadata"]["uid"])

    @property
    def full_name(self) -> str:
        """The set's name for placement, which is unique in the cluster."""
        metadata = self.manifest["metadata"]
        return f"{metadata['namespace']}/{metadata['name']}"


def parsed(manifest: Manifest) -> ParsedSet:
    """Parse the set. The reconcile loop turns an error of pydantic into a condition."""
    spec = ModelReplicaSet.model_validate(without_status(manifest)).spec
    return ParsedSet(manifest=manifest, spec=spec, memory=remembered(manifest))


def parsed_or_none(manifest: Manifest) -> ParsedSet | None:
    """Another set; None when its spec or its status is invalid. Such a set asks for nothing."""
    try:
        return parsed(manifest)
    except ValueError:
        return None
