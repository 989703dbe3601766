"""The facts that an index's conditions and status are made of: what was observed, and what was decided."""

from dataclasses import dataclass

from flotilla_operator.controllers.vector_index.decide import Decision
from flotilla_operator.controllers.vector_index.progress import Progress, Stage
from flotilla_operator.controllers.vector_index.seen import Observed
from flotilla_operator.objects.resources import DEPLOYMENTS
from flotilla_operator.workloads.vector_index.retriever import retriever
from flotilla_runtime.contract import StepReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """One value for all checks. `progress` is None while the embedder, and so the build, is not known.

    `key_refused` says that the key of searches could not be made.
    """

    decision: Decision
    key_refused: bool = False

    @property
    def observed(self) -> Observed:
        return self.decision.observed

    @property
    def progress(self) -> Progress | None:
        return self.decision.progress

    @property
    def failure(self) -> StepReport | None:
        """The report of the wanted build's failure, if it failed and left one."""
        failed = self.progress is not None and self.progress.stage is Stage.FAILED
        return self.progress.report if failed and self.progress is not None else None

    @property
    def planned(self) -> StepReport | None:
        """The report of the plan step, once it is complete."""
        return self.progress.planned if self.progress is not None else None

    @property
    def promotion(self) -> StepReport | None:
        """The report of the wanted build's promotion, if that left one."""
        return self.progress.report if self.decision.done and self.progress is not None else None

    @property
    def ready_retrievers(self) -> int:
        return self.observed.ready_replicas(DEPLOYMENTS.kind, retriever(self.observed.owner).name)

    @property
    def active_generation(self) -> str | None:
        """The generation that is served: what the retriever reports, else what the status said before."""
        if self.decision.done:
            return self.decision.wanted_generation
        told = self.observed.retriever_status
        if told is not None and told.generation is not None:
            return told.generation
        return self.observed.remembered.active_generation
