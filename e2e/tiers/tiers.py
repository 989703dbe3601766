"""The tiers of the tests, what each should take, and the table that tells what each took.

A budget is for two cores with warm caches. Nothing fails for its time, because a shared machine is half as
fast on some days: the table tells how many times its budget each tier took. Where all took as many, it is the
machine; where one took more than the others, its tests have become slow.

A machine that halts for seconds can make a test fail. Where one or two fail, each is tried once more, alone,
and the table names those that pass only then: find out why. With real servers this goes for any failure.
Without them it goes only for tests in which time ran out, never for one that found something wrong. A test
marked `once` is not tried again: it checks that nothing is lost or doubled.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from local_cluster.binaries import CLUSTER_TOOLS, TOOLS
from local_cluster.declared import ENGINE, MODELS, NEWER_HAPROXY
from local_cluster.pytest_plugin import ENDS_RELEASE, TAKES_CLUSTER_DOWN
from tiers.pytest_plugin import FILES_WITH, NOTE_FAILURES

TRIED_AGAIN_AT_MOST = 2  # tests of a step: where more fail, it is not the machine
BASE_IMAGES = ("base-image", "pause-image", "coredns-image")
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

    def pytest_arguments(self, notes: Path) -> tuple[str, ...]:
        """Return the arguments of the step's call of pytest, which writes what fails into `notes`."""
        files = (f"{FILES_WITH}={self.files_with}",) if self.files_with else ()
        noted = ("-p", "no:cacheprovider", f"{NOTE_FAILURES}={notes}")
        return (*self.options, *files, *SLOWEST, *noted, "-m", self.marks)

    def tried_again(self, notes: Path) -> tuple[str, ...]:
        """Return the failed tests to try once more: none where there are many, or one found a fault."""
        failures: dict[str, bool] = json.loads(notes.read_text()) if notes.exists() else {}
        whole_modules = [test for test in failures if "::" not in test]
        found_a_fault = not self.with_servers and not all(failures.values())
        if found_a_fault or whole_modules or len(failures) > TRIED_AGAIN_AT_MOST:
            return ()
        return tuple(without_group(test) for test in sorted(failures))

    def alone(self, test: str) -> tuple[str, ...]:
        """Return the arguments for this one test. pytest finds none, and fails, where it is marked `once`."""
        return (test, "-p", "no:cacheprovider", "-m", f"({self.marks}) and not {ONCE}")


def without_group(test: str) -> str:
    """Take off the name of the group that `tests of one group run in one process` puts at a test's end."""
    last_bracket, group = test.rfind("]"), test.rfind("@")
    return test[:group] if group > last_bracket else test


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """Tests that need the same servers, in steps that run one after another.

    `needs` names what they take from the cache, which is fetched or built before the tier runs.
    """

    name: str
    budget_seconds: int
    steps: tuple[Step, ...]
    needs: tuple[str, ...] = ()


ALONE = f"({ENDS_RELEASE} or {TAKES_CLUSTER_DOWN})"
CONTROL_PLANE = (
    *("etcd", "kube-apiserver", "kubectl", "kube-controller-manager", "kube-scheduler", "kwok", "helm"),
)
SERVICES = (NEWER_HAPROXY, ENGINE, MODELS, "versitygw")
CLUSTER = (*CLUSTER_TOOLS, ENGINE, MODELS, *BASE_IMAGES)
EVERYTHING = tuple(dict.fromkeys((*TOOLS, *SERVICES, *CLUSTER)))
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
        budget_seconds=120,
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
        needs=CONTROL_PLANE,
        budget_seconds=290,
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
        needs=SERVICES,
        budget_seconds=330,
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
        needs=CLUSTER,
        budget_seconds=580,
        steps=(
            Step(
                marks=f"cluster and not {RARE} and not {ALONE}",
                files_with="cluster",
                options=("-n", "5", "--dist", "loadgroup"),
            ),
            Step(marks=f"cluster and not {RARE} and {ALONE}", files_with="cluster"),
        ),
    ),
    Tier(name=RARE, needs=EVERYTHING, budget_seconds=2300, steps=(Step(marks=RARE),)),
)


class Verdict(StrEnum):
    """How a tier ended."""

    PASSED = "passed"
    PASSED_AGAIN = "passed when tried again"
    FAILED = "FAILED"


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
        return Verdict.PASSED_AGAIN if self.passed_again else Verdict.PASSED

    def failed(self, *, strict: bool) -> bool:
        """Whether the tier must fail the command: with `strict` also where a test passed only in the end."""
        return self.verdict is Verdict.FAILED or (strict and self.verdict is Verdict.PASSED_AGAIN)


def needs(tiers: Sequence[Tier]) -> tuple[str, ...]:
    """Needs of these tiers, each once."""
    return tuple(dict.fromkeys(name for tier in tiers for name in tier.needs))


def chosen(names: Sequence[str]) -> list[Tier]:
    """The tiers of these names, in this order; ValueError names one that there is not."""
    by_name = {tier.name: tier for tier in TIERS}
    unknown = [name for name in names if name not in by_name]
    if unknown:
        raise ValueError(f"no such tier: {', '.join(unknown)}; there are {', '.join(by_name)}")
    return [by_name[name] for name in names]


def table(runs: Sequence[Run]) -> str:
    """A line for each tier: its seconds, its budget, how many times that it took, and how it ended."""
    lines = [f"{'tier':<12}{'seconds':>8}{'budget':>8}{'times':>7}"]
    lines += [f"{_times(run.tier.name, run.seconds, run.tier.budget_seconds)}  {run.verdict}" for run in runs]
    lines.append(
        _times("in all", sum(run.seconds for run in runs), sum(run.tier.budget_seconds for run in runs))
    )
    lines += [f"passed only when tried again: {test}" for run in runs for test in run.passed_again]
    return "\n".join(lines)


def _times(name: str, seconds: float, budget_seconds: int) -> str:
    return f"{name:<12}{seconds:>8.0f}{budget_seconds:>8}{seconds / budget_seconds:>7.2f}"
