"""`make bench-strangers`: play every attack that docs/security.md says is stopped.

The attacks are tests with the mark `attack`. They run against a real API server, and where they need one a
real kubelet or a real server.

- `rows`: attacks that the page lists in its tables "who tries what".
- `reached`: of these, the ones where a test found that the attacker got further than the page says.
- `untried`: of these, the ones that no test plays.
- `unknown`: attacks that tests play and the page does not list.
- `operator_peak_mib`: the most memory the operator took while strangers filled the cluster.

The last line of the output is one JSON object. The exit status is 1 unless `reached`, `untried` and `unknown`
are 0 and the memory is under 300 MiB.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from local_cluster.directories import CHECKOUT
from strangers.attacks import MARK, Played, attacks_of, report
from strangers.plugin import OPTION
from wanted import add_only_print, at_most, conclude, under

PAGE = CHECKOUT / "docs" / "security.md"
# Those of the cluster come last and share its one node; three of the others wait for servers at once.
STEPS = ((f"{MARK} and not cluster", "3"), (f"{MARK} and cluster", "4"))
WANTED = (
    at_most(0, "reached"),
    at_most(0, "untried"),
    at_most(0, "unknown"),
    under(300, "operator_peak_mib"),
    under(15 * 60, "seconds"),
)


def measure(arguments: Sequence[str]) -> dict[str, Any]:
    """Play the attacks; what was reached, untried or unknown is printed."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="flotilla-attacks-") as name:
        notes = Path(name) / "attacks.jsonl"
        notes.touch()
        for marks, processes in STEPS:
            play(marks, processes, notes, arguments)
        found = report(attacks_of(PAGE.read_text(encoding="utf-8")), played(notes))
    for word in ("reached", "untried", "unknown"):
        for attack in getattr(found, word):
            print(f"{word}: {attack}", flush=True)
    return {
        "rows": len(found.rows),
        "reached": len(found.reached),
        "untried": len(found.untried),
        "unknown": len(found.unknown),
        "operator_peak_mib": found.operator_peak_mib,
        "seconds": round(time.monotonic() - began, 1),
    }


def play(marks: str, processes: str, notes: Path, arguments: Sequence[str]) -> None:
    """Run the tests with these marks. Whether they pass stands in the notes."""
    shared_out = ("-n", processes, "--dist", "loadgroup")
    noted = ("-p", "strangers.plugin", f"{OPTION}={notes}")
    command = [sys.executable, "-m", "pytest", "--quiet", *shared_out, *noted, "-m", marks, *arguments]
    subprocess.run(command, cwd=CHECKOUT, check=False)


def played(notes: Path) -> Iterator[Played]:
    """Notes of the run."""
    for line in notes.read_text(encoding="utf-8").splitlines():
        yield Played(**json.loads(line))


def main() -> int:
    """Play the attacks, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_only_print(parser)
    options, arguments = parser.parse_known_args()
    return conclude(measure(arguments), WANTED, only_print=options.only_print)


if __name__ == "__main__":
    sys.exit(main())
