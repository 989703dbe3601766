"""The forms of a set's spec: its revision, and what a replica of it asks of nodes."""

from dataclasses import dataclass

from flotilla_operator.api.model_replica_set import ModelReplicaSetSpec
from flotilla_operator.objects.owners import Owner
from flotilla_operator.replicas.facts import Form
from flotilla_operator.workloads.devices import accelerator_resource
from flotilla_operator.workloads.engine_pod import claim_volumes
from flotilla_operator.workloads.images import Images
from flotilla_operator.workloads.revision import revision_of
from flotilla_operator.workloads.room import asked_by
from flotilla_operator.workloads.tolerations import tolerations_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """Marks that ask for new pods: `flotilla.dev/refresh`, and the time of the engines' key."""

    refresh: str = ""
    key_made_anew: str = ""


def marked_revision(spec: ModelReplicaSetSpec, marks: Marks) -> str:
    """The revision of a spec together with its marks."""
    return revision_of(spec, refresh=" ".join(filter(None, (marks.refresh, marks.key_made_anew))))


def form_of(
    owner: Owner, spec: ModelReplicaSetSpec, marks: Marks, images: Images, revision: str = ""
) -> Form:
    """The form of a spec; `revision` is given where pods run under it already."""
    return Form(
        spec=spec,
        revision=revision or marked_revision(spec, marks),
        refresh=marks.refresh,
        asks=asked_by(owner, spec, images),
        accelerator=accelerator_resource(spec),
        tolerations=tuple(tolerations_of(spec, images)),
        claims=tuple(claim_volumes(spec)),
    )
