"""`make upgrade-check FROM=COMMIT`: whether an upgrade from that commit disturbs what runs.

The operator of the commit settles its examples and objects with every field, on a real API server with KWOK
nodes. Then this checkout's definitions and operator take over. No pod may be replaced, no child written, no
stored object refused, no condition changed. Each finding is a line; the last line is one JSON object with
their numbers. The exit status is 1 when there is a finding.
"""

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from upgrade_check.check import upgrade
from upgrade_check.release import release_at, this_release


def main() -> int:
    """Check the upgrade, and print the findings."""
    parser = argparse.ArgumentParser(prog="upgrade_check", description=__doc__)
    parser.add_argument("commit", help="the commit whose operator runs first")
    commit = parser.parse_args().commit
    with tempfile.TemporaryDirectory(prefix="flotilla-release-") as folder:
        before, findings = upgrade(release_at(commit, Path(folder) / "before"), this_release())
    for name, reason in before.waiting.items():
        print(f"never ready: {name}: {reason}")
    found = asdict(findings)
    for what, lines in found.items():
        for line in lines:
            print(f"{what}: {line}")
    objects, waiting = len(before.conditions), len(before.waiting)
    stood = {"objects": objects, "ready": objects - waiting, "pods": len(before.pods)}
    print(json.dumps({"from": commit, **stood, **{what: len(lines) for what, lines in found.items()}}))
    return 1 if any(found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
