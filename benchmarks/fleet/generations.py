"""One generation of an engine double, as its log tells it."""

from dataclasses import dataclass
from pathlib import Path

from fleet.log import lines_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """One generation as it began or ended; `at` is in milliseconds since the epoch.

    `task` and `step` are what the prompt names in brackets. `is_whole` is None at the beginning.
    """

    id: str
    at: int
    task: int
    step: str
    prompt_tokens: int
    generated_tokens: int = 0
    is_whole: bool | None = None

    @property
    def tokens(self) -> int:
        """Prompt and answer together."""
        return self.prompt_tokens + self.generated_tokens


def generations_of(path: Path) -> list[Generation]:
    """All beginnings and ends in a log."""
    return [Generation(**line) for line in lines_of(path)]
