"""The tiers of the tests, what each may take, and the table that tells what each took.

A budget is for two cores with warm caches. A tier that takes longer is told so; one that takes twice as long
fails, also when its tests pass: the suite must stay short enough to be run for every change.

Tests with real servers wait for them, and a machine that halts for seconds can make one fail. Where one or
two fail, each is tried once more, alone, and the table names those that pass only then: find out why. A test
marked `once` is not tried again: it checks that nothing is lost or doubled.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from local_cluster.pytest_plugin import ENDS_RELEASE, TAKES_CLUSTER_DOWN
from tiers.pytest_plugin import FILES_WITH

FAILS_AT = 2.0  # times the budget
TRIED_AGAIN_AT_MOST = 2  # tests of a step: where more fail, it is not the machine
RARE = "rare"
ONCE = "once"
SLOWEST = ("--durations=10", "--durations-min=5")  # listed after each step, so that they can be made faster


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One call of pytest: the expression that selects its tests, and how they are shared out.

    `files_with` names a mark that all its tests have, and that stands in their files: others are not read.
    """

    marks: str
    files_with: str = ""
    options: tuple[str, ...] = ()
    with_servers: bool = True

    def pytest_arguments(self, cache: Path) -> tuple[str, ...]:
        """Return the arguments of the step's call of pytest, which notes in `cache` what fails."""
        files = (f"{FILES_WITH}={self.files_with}",) if self.files_with else ()
        return (*self.options, *files, *SLOWEST, "-o", f"cache_dir={cache}", "-m", self.marks)

    def tried_again(self, cache: Path) -> tuple[str, ...]:
        """Return the failed tests to try once more: none where there are many, or without servers."""
        noted = cache / "v" / "cache" / "lastfailed"
        failed = sorted(json.loads(noted.read_text())) if noted.exists() else []
        whole_modules = [test for test in failed if "::" not in test]
        if not self.with_servers or whole_modules or len(failed) > TRIED_AGAIN_AT_MOST:
            return ()
        return tuple(without_group(test) for test in failed)

    def alone(self, test: str) -> tuple[str, ...]:
        """Return the arguments for this one test. pytest finds none, and fails, where it is marked `once`."""
        return (test, "-p", "no:cacheprovider", "-m", f"({self.marks}) and not {ONCE}")


def without_group(test: str) -> str:
    """Take off the name of the group that `tests of one group run in one process` puts at a test's end."""
    last_bracket, group = test.rfind("]"), test.rfind("@")
    return test[:group] if group > last_bracket else test


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """Tests that need the same servers, in steps that run one after another."""

    name: str
    budget_seconds: int
    steps: tuple[Step, ...]


ALONE = f"({ENDS_RELEASE} or {TAKES_CLUSTER_DOWN})"
# Cluster tests wait for the kubelet most of the time, so more of them run at once than there are cores.
TIERS = (
    Tier(
        name="unit",
        budget_seconds=180,
        steps=(
            Step(
                marks=f"not (scenes or apiserver or services or cluster or {RARE})",
                options=("-n", "2"),
                with_servers=False,
            ),
        ),
    ),
    Tier(
        name="scenes",
        budget_seconds=150,
        steps=(
            Step(
                marks=f"scenes and not {RARE}",
                files_with="scenes",
                options=("-n", "2"),
                with_servers=False,
            ),
        ),
    ),
    Tier(
        name="apiserver",
        budget_seconds=330,
        steps=(
            Step(
                marks=f"apiserver and not {RARE}",
                files_with="apiserver",
                options=("-n", "3", "--dist", "loadgroup"),
            ),
        ),
    ),
    Tier(
        name="services",
        budget_seconds=360,
        steps=(
            Step(
                marks=f"services and not {RARE}",
                files_with="services",
                options=("-n", "2", "--dist", "loadgroup"),
            ),
        ),
    ),
    Tier(
        name="cluster",
        budget_seconds=780,
        steps=(
            Step(
                marks=f"cluster and not {RARE} and not {ALONE}",
                files_with="cluster",
                options=("-n", "5", "--dist", "loadgroup"),
            ),
            Step(marks=f"cluster and not {RARE} and {ALONE}", files_with="cluster"),
        ),
    ),
    Tier(name=RARE, budget_seconds=2000, steps=(Step(marks=RARE),)),
)


class Verdict(StrEnum):
    """How a tier ended."""

    PASSED = "passed"
    OVER_BUDGET = "passed, over its budget"
    FAILED = "FAILED"
    TOO_SLOW = "FAILED: took twice its budget"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One tier's run: each step's exit status, its time, and what passed only when it was tried again."""

    tier: Tier
    statuses: tuple[int, ...]
    seconds: float
    passed_again: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """How the tier ended. An exit status other than 0 is a failure, also when pytest found no test."""
        if any(self.statuses):
            return Verdict.FAILED
        if self.seconds > FAILS_AT * self.tier.budget_seconds:
            return Verdict.TOO_SLOW
        return Verdict.OVER_BUDGET if self.seconds > self.tier.budget_seconds else Verdict.PASSED

    @property
    def failed(self) -> bool:
        """True if the tier's failure must fail the command."""
        return self.verdict in {Verdict.FAILED, Verdict.TOO_SLOW}


def chosen(names: Sequence[str]) -> list[Tier]:
    """The tiers of these names, in this order; ValueError names one that there is not."""
    by_name = {tier.name: tier for tier in TIERS}
    unknown = [name for name in names if name not in by_name]
    if unknown:
        raise ValueError(f"no such tier: {', '.join(unknown)}; there are {', '.join(by_name)}")
    return [by_name[name] for name in names]


def table(runs: Sequence[Run]) -> str:
    """A line for each tier: its seconds beside its budget, and how it ended."""
    lines = [f"{'tier':<12}{'seconds':>8}{'budget':>8}"]
    lines += [
        f"{run.tier.name:<12}{run.seconds:>8.0f}{run.tier.budget_seconds:>8}  {run.verdict}" for run in runs
    ]
    lines.append(f"{'in all':<12}{sum(run.seconds for run in runs):>8.0f}")
    lines += [f"passed only when tried again: {test}" for run in runs for test in run.passed_again]
    return "\n".join(lines)
