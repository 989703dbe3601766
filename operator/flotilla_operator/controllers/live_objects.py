"""Object in the cluster that has the name of one of a kind's parts.

It is read from the manifest while observing, so a decision sees values and no manifest.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from flotilla_operator.cluster.caches import controller_uid
from flotilla_operator.objects.resources import Manifest, ObjectRef, resource_of


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveObject:
    """One object, whoever owns it. Figures that its kind does not have are 0.

    `replicas` is what its spec asks for, `present_replicas` and the others are what its status reports.
    """

    kind: str
    ref: ObjectRef
    uid: str
    resource_version: str
    controller_uid: str | None
    labels: Mapping[str, str]
    template_annotations: Mapping[str, str]
    replicas: int = 0
    present_replicas: int = 0
    ready_replicas: int = 0
    updated_replicas: int = 0
    phase: str | None = None
    is_observed: bool = True  # its status is about its newest spec

    @property
    def name(self) -> str:
        return self.ref.name


def live_object(manifest: Manifest) -> LiveObject:
    """Read an object from its manifest."""
    metadata = manifest["metadata"]
    spec, status = manifest.get("spec") or {}, manifest.get("status") or {}
    template = (spec.get("template") or {}).get("metadata") or {}
    return LiveObject(
        kind=manifest["kind"],
        ref=resource_of(manifest).ref_to(manifest),
        uid=metadata["uid"],
        resource_version=metadata.get("resourceVersion", ""),
        controller_uid=controller_uid(manifest),
        labels=metadata.get("labels") or {},
        template_annotations=template.get("annotations") or {},
        replicas=int(spec.get("replicas") or 0),
        present_replicas=int(status.get("replicas") or 0),
        ready_replicas=int(status.get("readyReplicas") or 0),
        updated_replicas=int(status.get("updatedReplicas") or 0),
        phase=status.get("phase"),
        is_observed=int(status.get("observedGeneration") or 0) >= int(metadata.get("generation") or 0),
    )
