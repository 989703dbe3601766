"""`python -m tiers NAME...`: run these tiers of the tests one after another, and print what each took.

`--prepare` fetches and builds what they need into the cache instead, so that no tier's time holds a download.
All tiers run, also after one that failed; the exit status is 1 when any did. With `--strict` it is also 1
when a test passed only when it was tried again.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from engine.environment import ensure as ensure_engine
from engine.models import ensure_models
from local_cluster import base_image
from local_cluster.binaries import TOOLS, binary
from local_cluster.directories import CHECKOUT, directories
from local_cluster.newer_haproxy import newer_haproxies
from local_cluster.progress import Progress
from local_cluster.pytest_plugin import KEEP_CLUSTER
from tiers.tiers import Run, Step, Tier, chosen, table

TESTS_FAILED = 1  # pytest's exit status; others mean that it could not run them


def main() -> int:
    """Run the tiers, or prepare them."""
    parser = argparse.ArgumentParser(prog="tiers", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="TIER")
    parser.add_argument("--prepare", action="store_true", help="fill the caches and run nothing")
    again = "fail where a test passed only when tried again"
    parser.add_argument("--strict", action="store_true", help=again)
    options = parser.parse_args()
    if options.prepare:
        prepare()
        return 0
    try:
        tiers = chosen(options.names)
    except ValueError as problem:
        print(problem, file=sys.stderr)
        return 2
    return run_all(tiers, strict=options.strict)


def prepare() -> None:
    """Fill the cache with what is fetched or built only once: programs, packages, models, base images."""
    progress = Progress()
    for name in TOOLS:
        binary(name, progress=progress)
    newer_haproxies()
    ensure_engine()
    ensure_models()
    base_image.ensure_base(directories(), progress)
    base_image.ensure_pause(directories(), progress)
    base_image.ensure_coredns(directories(), progress)


def run_all(tiers: Sequence[Tier], *, strict: bool = False) -> int:
    """Run one tier after the other; 1 when one failed, or with `strict` had a test that failed at first."""
    runs = []
    for tier in tiers:
        print(f"== {tier.name} (budget {tier.budget_seconds} s)", flush=True)
        began = time.monotonic()
        steps = [run_step(step, last=step is tier.steps[-1]) for step in tier.steps]
        statuses = tuple(status for status, _ in steps)
        passed_again = tuple(test for _, tests in steps for test in tests)
        seconds = time.monotonic() - began
        runs.append(Run(tier=tier, statuses=statuses, seconds=seconds, passed_again=passed_again))
    print(f"\n{table(runs)}", flush=True)
    return int(any(run.failed(strict=strict) for run in runs))


def run_step(step: Step, *, last: bool, folder: Path | None = None) -> tuple[int, tuple[str, ...]]:
    """Run one step; return its exit status and the tests that passed when tried again.

    The cluster is kept unless the step is the last.
    """
    environment = {**os.environ} if last else {**os.environ, KEEP_CLUSTER: "1"}
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
