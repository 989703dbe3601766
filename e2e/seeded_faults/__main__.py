"""`python -m seeded_faults [TEXT …]`: seed the faults one after another, and fail if one is not caught.

With texts, only the faults whose names contain one of them are seeded. First all the tests run on the sound
copy: tests that fail without a fault would prove nothing.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from local_cluster.directories import CHECKOUT
from seeded_faults.faults import FAULTS
from seeded_faults.seeding import PASSED, Fault, copy_of, is_caught, run_tests


def main(arguments: Sequence[str]) -> int:
    """Seed the chosen faults; returns the number of those that no test noticed, or 1 for broken tests."""
    parser = argparse.ArgumentParser(prog="seeded_faults", description=__doc__)
    parser.add_argument("text", nargs="*", help="a part of the names of the faults to seed (default: all)")
    texts = parser.parse_args(arguments).text
    chosen = [fault for fault in FAULTS if not texts or any(text in fault.name for text in texts)]
    with tempfile.TemporaryDirectory(prefix="seeded-faults-") as folder:
        return seed_all(copy_of(CHECKOUT, Path(folder)), chosen)


def seed_all(copy: Path, faults: Sequence[Fault]) -> int:
    """Seed these faults in the copy, and print a line for each."""
    if not faults:
        print("no fault has such a name", file=sys.stderr)
        return 1
    if run_tests(copy, sorted({test for fault in faults for test in fault.tests})) != PASSED:
        print("the tests fail without any fault", file=sys.stderr)
        return 1
    missed = 0
    for fault in faults:
        caught = is_caught(copy, fault)
        missed += not caught
        print(f"{'caught' if caught else 'MISSED'}  {fault.name}", flush=True)
    print(f"{len(faults) - missed} of {len(faults)} faults caught")
    return missed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
