"""The evidence for judging a revision: its groups, their answers, and which rollback is possible."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from flotilla_operator.api.model_replica_set import Update
from flotilla_operator.replicas.group import ReplicaGroup
from flotilla_operator.replicas.revisions.answers import Answers


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Evidence of a judgement.

    `revision` is the one that the spec asks for, and `attainment` the share that the SLO asks for. `answers`
    are those of the routers that report; with `answers_known`, every router does.
    """

    revision: str
    wanted: int
    groups: Sequence[ReplicaGroup]
    update: Update
    attainment: float | None = None
    answers: Mapping[str, Answers] = field(default_factory=dict)
    answers_known: bool = True
    waits_for_room: bool = False
    paused: bool = False
    can_go_back: bool = True

    @property
    def updated(self) -> list[ReplicaGroup]:
        """The groups of the new revision that live or have just failed."""
        return [
            group
            for group in self.groups
            if group.revision == self.revision and (group.lives or group.ending is not None)
        ]

    @property
    def ready(self) -> int:
        """How many groups of the new revision serve."""
        return sum(group.ready and group.lives for group in self.updated)

    @property
    def outdated(self) -> int:
        """How many groups of other revisions still exist."""
        return sum(group.revision != self.revision for group in self.groups)

    @property
    def complete(self) -> bool:
        """Whether every wanted replica runs the new revision and serves, and no other group exists."""
        return bool(self.wanted) and self.ready >= self.wanted and not self.outdated

    @property
    def clock_stands(self) -> bool:
        """Whether the rollout waits for something that is not the revision's fault."""
        drains = any(group.revision != self.revision and group.may_return for group in self.groups)
        return self.paused or self.waits_for_room or not self.wanted or drains

    @property
    def way_back(self) -> bool:
        """Whether a rollback to the last good revision is allowed and possible."""
        return self.update.rollback and self.can_go_back

    def answered(self, *, new: bool) -> Answers:
        """The answers of the new revision, or of all others."""
        return sum(
            (
                self.answers.get(group.name, Answers())
                for group in self.groups
                if (group.revision == self.revision) is new
            ),
            Answers(),
        )
