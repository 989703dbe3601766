"""Decides the next step of an index, from what was observed. Pure. The stages, in order:

deleted?  The collections in an external Milvus are removed (farewell.py). Kubernetes removes everything else.
progress  How far the wanted build is, from its Jobs.
access    Whether a key for searches must be made, and whether those without one are still answered.
names     An object that holds a name of ours and belongs to another owner is left alone.
outside   Whether a finalizer must hold the index until its collections are removed.
claim     Milvus Lite's claim follows the deletion policy.
lite      Milvus Lite is deleted once the index is live on an external Milvus.
next      The next step of the build (next_step.py). A paused index only reports its status.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from flotilla_operator.api.parts import DeletionPolicy
from flotilla_operator.controllers.claims import ClaimReason, claim_reason
from flotilla_operator.controllers.vector_index.access import AccessDecision, access_decision
from flotilla_operator.controllers.vector_index.farewell import Farewell, farewell
from flotilla_operator.controllers.vector_index.names import NameTaken, is_retained_claim, names_taken
from flotilla_operator.controllers.vector_index.next_step import NextStep, next_step
from flotilla_operator.controllers.vector_index.progress import Progress, Stage, progress_of
from flotilla_operator.controllers.vector_index.seen import Leaving, Observed
from flotilla_operator.objects.resources import DEPLOYMENTS, PERSISTENT_VOLUME_CLAIMS
from flotilla_operator.workloads.vector_index.identity import build_id, generation_id, promotion_id
from flotilla_operator.workloads.vector_index.milvus import milvus
from flotilla_operator.workloads.vector_index.retriever import retriever
from flotilla_operator.workloads.vector_index.steps import WantedBuild


class LiteReason(StrEnum):
    """Whether Milvus Lite is needed."""

    IN_USE = "InUse"
    NOT_LIVE_ELSEWHERE = "NotLiveElsewhere"  # it serves the previous generation
    STILL_READ = "StillRead"  # by a retriever that is not replaced yet
    UNUSED = "Unused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Desired state of an index now. `progress` is None until the embedder is known."""

    observed: Observed
    progress: Progress | None
    names_taken: tuple[NameTaken, ...]
    leaves_data_outside: bool
    claim: ClaimReason
    lite: LiteReason
    access: AccessDecision
    next: NextStep

    @property
    def done(self) -> bool:
        """Whether the wanted build was promoted."""
        return self.progress is not None and self.progress.stage is Stage.DONE

    @property
    def wanted_generation(self) -> str | None:
        return self.progress.build.generation if self.progress is not None else None


def decide(observed: Observed | Leaving, now: datetime) -> Decision | Farewell:
    """The next step of an index, or the farewell of one that is being deleted."""
    if isinstance(observed, Leaving):
        return farewell(observed, now)
    wanted = wanted_build(observed)
    progress = progress_of(wanted, observed.jobs) if wanted is not None else None
    taken = names_taken(observed)
    return Decision(
        observed=observed,
        progress=progress,
        names_taken=taken,
        leaves_data_outside=observed.milvus_external and not _retains(observed),
        claim=_claim(observed),
        lite=_lite(observed, progress),
        access=_access(observed),
        next=next_step(observed, progress, taken, now),
    )


def wanted_build(observed: Observed) -> WantedBuild | None:
    """The build that the spec asks for; None until the embedder is known, which is part of its name."""
    if observed.embedder is None:
        return None
    spec = observed.spec
    generation = generation_id(spec, observed.embedder.model)
    build = build_id(spec, generation)
    return WantedBuild(
        generation=generation,
        id=build,
        promotion=promotion_id(spec, build),
        shared_workspace=observed.shared_workspace,
    )


def _access(observed: Observed) -> AccessDecision:
    found = observed.part(DEPLOYMENTS.kind, retriever(observed.owner).name)
    return access_decision(
        key_found=observed.key_found,
        required_before=observed.remembered.required_keys,
        has_retriever=found is not None and found.controller_uid == observed.owner.uid,
        paused=observed.spec.paused,
        fleets=observed.fleets,
    )


def _retains(observed: Observed) -> bool:
    return observed.spec.retention.deletion_policy is DeletionPolicy.RETAIN


def _claim(observed: Observed) -> ClaimReason:
    owner = observed.owner
    claim = observed.part(PERSISTENT_VOLUME_CLAIMS.kind, milvus(owner).name)
    ours = claim is not None and (claim.controller_uid == owner.uid or is_retained_claim(observed, claim))
    return claim_reason(claim, owner, retained=_retains(observed), ours=ours)


def _lite(observed: Observed, progress: Progress | None) -> LiteReason:
    """Milvus Lite stays until the last retriever that reads from it is gone."""
    if not observed.milvus_external:
        return LiteReason.IN_USE
    if progress is None or progress.stage is not Stage.DONE:
        return LiteReason.NOT_LIVE_ELSEWHERE
    found = observed.part(DEPLOYMENTS.kind, retriever(observed.owner).name)
    if found is None or not found.ready_replicas or not 0 < found.updated_replicas == found.present_replicas:
        return LiteReason.STILL_READ
    return LiteReason.UNUSED
