"""`python -m tiers NAME...`: run these tiers of the tests one after another, and print what each took.

What they need is fetched and built into the cache first, so that no tier's time holds a download. `--prepare`
does only that; without a name, for all tiers.
All tiers run, also after one that failed; the exit status is 1 when any did. With `--strict` it is also 1
when a test passed only when it was tried again.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from engine.environment import ensure as ensure_engine
from engine.models import ensure_models
from local_cluster import base_image
from local_cluster.binaries import TOOLS, binary
from local_cluster.declared import DECLARED, ENGINE, MODELS, NEWER_HAPROXY
from local_cluster.directories import CHECKOUT, directories
from local_cluster.newer_haproxy import newer_haproxies
from local_cluster.progress import Progress
from local_cluster.pytest_plugin import KEEP_CLUSTER
from tiers.tiers import TIERS, Run, Step, Tier, chosen, needs, table

# Programs of TOOLS are built; this is the rest that a tier may need.
OTHERS: Mapping[str, Callable[[Progress], object]] = {
    NEWER_HAPROXY: lambda _: newer_haproxies(),
    ENGINE: lambda _: ensure_engine(),
    MODELS: lambda _: ensure_models(),
    "base-image": lambda progress: base_image.ensure_base(directories(), progress),
    "pause-image": lambda progress: base_image.ensure_pause(directories(), progress),
    "coredns-image": lambda progress: base_image.ensure_coredns(directories(), progress),
}
TESTS_FAILED = 1  # pytest's exit status; others mean that it could not run them


def main() -> int:
    """Run the tiers, or prepare them."""
    parser = argparse.ArgumentParser(prog="tiers", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="TIER")
    parser.add_argument("--prepare", action="store_true", help="fill the caches and run nothing")
    again = "fail where a test passed only when tried again"
    parser.add_argument("--strict", action="store_true", help=again)
    options = parser.parse_args()
    try:
        tiers = chosen(options.names or [tier.name for tier in TIERS if options.prepare])
    except ValueError as problem:
        print(problem, file=sys.stderr)
        return 2
    began = time.monotonic()
    prepare(tiers)
    print(f"== caches are filled ({time.monotonic() - began:.0f} s)", flush=True)
    if options.prepare:
        return 0
    return run_all(tiers, strict=options.strict)


def prepare(tiers: Sequence[Tier]) -> None:
    """Fill the cache with what these tiers need: programs, packages, models, base images."""
    progress = Progress()
    for name in needs(tiers):
        make_or_find(name, progress)


def make_or_find(name: str, progress: Progress) -> None:
    """Fetch or build one thing that is not in the cache."""
    if name in TOOLS:
        binary(name, progress=progress)
    else:
        OTHERS[name](progress)


def run_all(tiers: Sequence[Tier], *, strict: bool = False) -> int:
    """Run one tier after the other; 1 when one failed, or with `strict` had a test that failed at first."""
    runs = []
    for tier in tiers:
        print(f"== {tier.name} (budget {tier.budget_seconds} s)", flush=True)
        began = time.monotonic()
        steps = [run_step(step, last=step is tier.steps[-1], needs=tier.needs) for step in tier.steps]
        statuses = tuple(status for status, _ in steps)
        passed_again = tuple(test for _, tests in steps for test in tests)
        seconds = time.monotonic() - began
        runs.append(Run(tier=tier, statuses=statuses, seconds=seconds, passed_again=passed_again))
    print(f"\n{table(runs)}", flush=True)
    return int(any(run.failed(strict=strict) for run in runs))


def run_step(
    step: Step, *, last: bool, folder: Path | None = None, needs: Sequence[str] = ()
) -> tuple[int, tuple[str, ...]]:
    """Run one step; return its exit status and the tests that passed when tried again.

    The cluster is kept unless the step is the last. Its tests may take from the cache what `needs` names.
    """
    environment = {**os.environ, DECLARED: " ".join(needs)}
    if not last:
        environment[KEEP_CLUSTER] = "1"
    with tempfile.TemporaryDirectory() as temporary:
        notes = Path(temporary) / "failures.json"
        status = run_pytest(step.pytest_arguments(notes), environment, folder or CHECKOUT)
        again = step.tried_again(notes) if status == TESTS_FAILED else ()
    if again and all(run_pytest(step.alone(test), environment, folder or CHECKOUT) == 0 for test in again):
        return 0, again
    return status, ()


def run_pytest(arguments: Sequence[str], environment: Mapping[str, str], folder: Path) -> int:
    """Run pytest in this folder and return its exit status."""
    command = [sys.executable, "-m", "pytest", "--quiet", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
