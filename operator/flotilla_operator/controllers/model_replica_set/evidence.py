"""What a revision is judged by: its groups, what they answered, and what may be done about it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from flotilla_operator.api.model_replica_set import Update
from flotilla_operator.controllers.model_replica_set.life import ReplicaGroup


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What was answered, and how."""

    count: int = 0
    failed: int = 0
    kept: int = 0

    def __add__(self, other: "Answers") -> "Answers":
        return Answers(
            count=self.count + other.count, failed=self.failed + other.failed, kept=self.kept + other.kept
        )

    def since(self, earlier: "Answers") -> "Answers":
        """Those that were given since then."""
        count = max(0, self.count - earlier.count)
        return Answers(
            count=count,
            failed=min(count, max(0, self.failed - earlier.failed)),
            kept=min(count, max(0, self.kept - earlier.kept)),
        )

    def at_most(self, other: "Answers") -> "Answers":
        """What is left of these, where all that is known now is the other."""
        return Answers(
            count=min(self.count, other.count),
            failed=min(self.failed, other.failed),
            kept=min(self.kept, other.kept),
        )

    @classmethod
    def of_status(cls, held: Mapping[str, int] | None) -> "Answers":
        """As the last plan wrote them."""
        return cls(**(held or {}))

    @property
    def status(self) -> dict[str, int] | None:
        """As they stand in the status."""
        return {"count": self.count, "failed": self.failed, "kept": self.kept} if self.count else None

    @property
    def attainment(self) -> float:
        """The share that kept the promise."""
        return self.kept / self.count if self.count else 1.0

    @property
    def failed_share(self) -> float:
        """The share of 5xx."""
        return self.failed / self.count if self.count else 0.0


NO_ANSWERS = Answers()


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a judgement rests on; `revision` is what the spec asks for, `attainment` what the SLO does.
    `answers` are of those routers that answer, which is every one where `answers_known`.
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
        """The groups of the new revision that stay, or that have just failed."""
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
        """How many groups of others are there still."""
        return sum(group.revision != self.revision for group in self.groups)

    @property
    def complete(self) -> bool:
        """Whether every wanted replica is of the new revision and serves, and no other is there."""
        return bool(self.wanted) and self.ready >= self.wanted and not self.outdated

    @property
    def clock_stands(self) -> bool:
        """Whether what is waited for is nothing that the revision could be blamed for."""
        drains = any(group.revision != self.revision and group.may_return for group in self.groups)
        return self.paused or self.waits_for_room or not self.wanted or drains

    @property
    def way_back(self) -> bool:
        """Whether the last good revision may and can be returned to."""
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
