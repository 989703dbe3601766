"""Puts a fault into a copy of the checkout and runs the tests that must notice it.

The copy shares only the virtual environment with the checkout, so the checkout itself is never changed.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

LEFT_OUT = shutil.ignore_patterns(".git", ".venv", ".*_cache", "__pycache__", ".hypothesis", "*.egg-info")
PACKAGES = ("e2e", "operator", "runtime", "cli", "benchmarks")
PASSED, TESTS_FAILED = 0, 1  # pytest's exit statuses; the others mean that it could not run the tests


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A text that occurs once in a file, its broken version, and the tests that must notice it."""

    name: str
    path: str
    sound: str
    broken: str
    tests: tuple[str, ...]

    def occurrences(self, checkout: Path) -> int:
        """How often the sound text occurs in the file."""
        return (checkout / self.path).read_text(encoding="utf-8").count(self.sound)

    def seed(self, checkout: Path) -> None:
        """Break the file; raises ValueError unless the sound text occurs exactly once."""
        if (found := self.occurrences(checkout)) != 1:
            raise ValueError(f"{self.name}: its text occurs {found} times in {self.path}; update the fault")
        path = checkout / self.path
        path.write_text(path.read_text(encoding="utf-8").replace(self.sound, self.broken), encoding="utf-8")


def copy_of(checkout: Path, folder: Path) -> Path:
    """A copy of the checkout, without caches, in this folder."""
    copy = folder / "checkout"
    shutil.copytree(checkout, copy, ignore=LEFT_OUT)
    (copy / ".venv").symlink_to(checkout / ".venv")
    return copy


def run_tests(checkout: Path, tests: Sequence[str]) -> int:
    """Run the tests on the code of this checkout, until the first fails; returns pytest's exit status."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    environment = {
        **os.environ,
        # Before what the virtual environment has installed, which is the code of the other checkout.
        "PYTHONPATH": os.pathsep.join(str(checkout / package) for package in PACKAGES),
        "PYTHONDONTWRITEBYTECODE": "1",  # a file of byte code could outlive the fault
    }
    return subprocess.run(
        command, cwd=checkout, env=environment, check=False, stdout=subprocess.DEVNULL
    ).returncode


def is_caught(copy: Path, fault: Fault) -> bool:
    """Whether the fault's tests fail with it; afterwards the copy is sound again."""
    path = copy / fault.path
    sound = path.read_bytes()
    fault.seed(copy)
    try:
        return run_tests(copy, fault.tests) == TESTS_FAILED
    finally:
        path.write_bytes(sound)
