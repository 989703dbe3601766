"""The searches of the built-in agent: what each index gave, and what of it is shown. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flotilla_runtime.agent.builtin.citations import citation
from flotilla_runtime.agent.builtin.prompts import Source, interleaved


@dataclass(slots=True, kw_only=True)
class Searches:
    """The passages found so far, in the order of the fleet's indexes, whichever answered first."""

    indexes: Sequence[str]
    found: dict[str, list[Source]] = field(default_factory=dict)
    missing_by_index: dict[str, str] = field(default_factory=dict)

    @property
    def sources(self) -> list[Source]:
        """All passages found, by rank."""
        return interleaved(self.found[index] for index in self.indexes if index in self.found)

    @property
    def missing(self) -> dict[str, str]:
        """The indexes whose search failed, each with the reason."""
        failed = self.missing_by_index
        return {index: failed[index] for index in self.indexes if index in failed}

    @property
    def none_answered(self) -> bool:
        """Whether every index failed, where there is one."""
        return bool(self.indexes) and len(self.missing_by_index) == len(self.indexes)

    def partial(self, answer: str = "") -> dict[str, Any] | None:
        """The partial result of a task: passages by rank, failed indexes and an answer that was cut."""
        if not self.found and not self.missing_by_index and not answer:
            return None
        passages = [citation(number, source) for number, source in enumerate(self.sources, start=1)]
        shown: dict[str, Any] = {"passages": passages, "missing": self.missing}
        return shown | {"answer": answer} if answer else shown


def result_of(answer: str, cited: Any, missing: Mapping[str, str]) -> dict[str, Any]:
    """The result of a task."""
    return {
        "answer": answer.strip(),
        "citations": cited.documents(),
        "citedBy": str(cited.by),
        "complete": not missing,
        "missing": dict(missing),
    }
