"""How many answers a group or a revision gave, and how many of them were good."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """How many answers were given, how many failed, and how many kept the SLO."""

    count: int = 0
    failed: int = 0
    kept: int = 0

    def __add__(self, other: "Answers") -> "Answers":
        return Answers(
            count=self.count + other.count, failed=self.failed + other.failed, kept=self.kept + other.kept
        )

    def since(self, earlier: "Answers") -> "Answers":
        """The answers that were given after `earlier` was counted."""
        count = max(0, self.count - earlier.count)
        return Answers(
            count=count,
            failed=min(count, max(0, self.failed - earlier.failed)),
            kept=min(count, max(0, self.kept - earlier.kept)),
        )

    def at_most(self, other: "Answers") -> "Answers":
        """Return the most that can be left of these answers when only `other` are known now."""
        return Answers(
            count=min(self.count, other.count),
            failed=min(self.failed, other.failed),
            kept=min(self.kept, other.kept),
        )

    @property
    def attainment(self) -> float:
        """The share of answers that kept the SLO."""
        return self.kept / self.count if self.count else 1.0

    @property
    def failed_share(self) -> float:
        """The share of answers with a 5xx status."""
        return self.failed / self.count if self.count else 0.0


NO_ANSWERS = Answers()
