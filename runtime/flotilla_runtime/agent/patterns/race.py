"""A race: the same thing is tried in several ways, and the first valid result counts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flotilla_runtime.agent.failures import NoWinnerError
from flotilla_runtime.agent.patterns.branches import Branch, Group, Make
from flotilla_runtime.agent.patterns.plans import Plan, values_in
from flotilla_runtime.agent.patterns.runtime import Branching
from flotilla_runtime.agent.patterns.values import Missing, MissingReason, PatternKind, problems_of

NOT_VALID = "is_valid did not take its value"


@dataclass(frozen=True, slots=True, kw_only=True)
class Raced:
    """The result of a race: the winner, its value and, in `missing`, why each other branch has none."""

    winner: str
    value: Any
    is_slow_path: bool  # another branch than the first one has won
    missing: Mapping[str, Missing] = field(default_factory=dict)


def race_group(
    branching: Branching,
    name: str,
    branches: Mapping[str, Make],
    *,
    stagger_seconds: float,
    is_valid: Callable[[Any], bool] | None,
    timeout_seconds: float | None,
) -> Group:
    """The branches of a race."""
    if not branches:
        raise ValueError("a race needs at least one branch")
    plan = Plan(
        kind=PatternKind.RACE,
        enough=has_a_winner,
        stagger_seconds=stagger_seconds,
        is_decided=len(branches) > 1,
    )
    all_branches = [
        Branch(key=key, make=_checked(make, is_valid), timeout_seconds=timeout_seconds)
        for key, make in branches.items()
    ]
    return Group(branching, branching.allotted(name), all_branches, plan)


async def raced(group: Group, branches: Mapping[str, Make]) -> Raced:
    """The winner; raises NoWinnerError."""
    ended = await group.ended()
    missing = {key: one for key in branches if isinstance(one := ended[key], Missing)}
    winner = next((key for key, one in ended.items() if not isinstance(one, Missing)), None)
    if winner is None:
        raise NoWinnerError(problems_of(missing))
    is_slow_path = winner != next(iter(branches))
    return Raced(winner=winner, value=ended[winner], is_slow_path=is_slow_path, missing=missing)


def has_a_winner(ended: Mapping[str, Any]) -> bool:
    """Whether a branch has a value."""
    return values_in(ended) > 0


def _checked(make: Make, is_valid: Callable[[Any], bool] | None) -> Make:
    if is_valid is None:
        return make

    async def checked() -> Any:
        value = await make()
        return value if is_valid(value) else Missing(reason=MissingReason.REFUSED, problem=NOT_VALID)

    return checked
