"""The patterns of `ctx`. docs/agents.md says when to use which.

A branch is a function without arguments that makes calls: `lambda: ctx.tool("weather", {"city": "Faro"})`, or
a coroutine function. It runs in a scope of its own, named by its key.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from flotilla_runtime.agent.patterns.branches import Make
from flotilla_runtime.agent.patterns.fan_out import fan_out_group, gathered_of
from flotilla_runtime.agent.patterns.race import Raced, race_group, raced
from flotilla_runtime.agent.patterns.runtime import Calling
from flotilla_runtime.agent.patterns.values import Gathered


class Patterns:
    """The patterns of an agent, on its calls."""

    def fan_out(
        self: Calling,
        branches: Mapping[str, Make],
        *,
        timeout_seconds: float | Mapping[str, float] | None = None,
        quorum: int | None = None,
        at_once: int | None = None,
        name: str = "fan_out",
    ) -> Awaitable[Gathered]:
        """Run all branches at once. Each key has a value, or None and a reason in `missing`.

        `timeout_seconds` is that of each branch, or of some. With `quorum`, the rest is given up when so many
        have a value. Ends with what there is; `at_least` of the result raises IncompleteError.
        """
        group = fan_out_group(
            self.branches,
            name,
            branches,
            timeout_seconds=timeout_seconds,
            quorum=quorum,
            at_once=at_once,
        )
        return gathered_of(group, branches)

    def race(
        self: Calling,
        branches: Mapping[str, Make],
        *,
        stagger_seconds: float = 0,
        is_valid: Callable[[Any], bool] | None = None,
        timeout_seconds: float | None = None,
        name: str = "race",
    ) -> Awaitable[Raced]:
        """Begin one branch after another; the first valid value counts, and the others are cancelled at once.

        Each begins so long after the one before it, or when all before it have failed. Raises NoWinnerError.
        """
        group = race_group(
            self.branches,
            name,
            branches,
            stagger_seconds=stagger_seconds,
            is_valid=is_valid,
            timeout_seconds=timeout_seconds,
        )
        return raced(group, branches)
