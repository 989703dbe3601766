"""Fan-out: calls that do not depend on each other are made at once, and come back under their keys."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from flotilla_runtime.agent.patterns.branches import Branch, Group, Make
from flotilla_runtime.agent.patterns.plans import Plan, never_enough, values_in
from flotilla_runtime.agent.patterns.runtime import Branching
from flotilla_runtime.agent.patterns.values import Gathered, PatternKind, gathered

MOST_BRANCHES: Final = 10_000


def fan_out_group(
    branching: Branching,
    name: str,
    branches: Mapping[str, Make],
    *,
    timeout_seconds: float | Mapping[str, float] | None = None,
    quorum: int | None = None,
    at_once: int | None = None,
) -> Group:
    """The branches of a fan-out; raises ValueError for what cannot be meant."""
    if quorum is not None and not 1 <= quorum <= len(branches):
        raise ValueError(f"quorum is {quorum}, but there are {len(branches)} branches")
    if at_once is not None and at_once < 1:
        raise ValueError("at_once must be at least 1")
    if len(branches) > MOST_BRANCHES:
        raise ValueError(f"a fan-out has at most {MOST_BRANCHES} branches")
    if isinstance(timeout_seconds, Mapping) and (unknown := timeout_seconds.keys() - branches.keys()):
        raise ValueError(f"timeout_seconds names branches that there are not: {', '.join(sorted(unknown))}")
    plan = Plan(
        kind=PatternKind.FAN_OUT,
        enough=never_enough if quorum is None else partial(has_quorum, quorum),
        at_once=at_once,
        is_decided=quorum is not None and quorum < len(branches),
    )
    all_branches = [
        Branch(key=key, make=make, timeout_seconds=timeout_of(timeout_seconds, key))
        for key, make in branches.items()
    ]
    return Group(branching, branching.allotted(name), all_branches, plan)


def has_quorum(quorum: int, ended: Mapping[str, Any]) -> bool:
    """Whether so many branches have a value."""
    return values_in(ended) >= quorum


def timeout_of(timeout_seconds: float | Mapping[str, float] | None, key: str) -> float | None:
    """The time of one branch."""
    return timeout_seconds.get(key) if isinstance(timeout_seconds, Mapping) else timeout_seconds


async def gathered_of(group: Group, branches: Mapping[str, Make]) -> Gathered:
    """Return the results of the branches, in the order in which they were asked for."""
    return gathered(list(branches), await group.ended())
