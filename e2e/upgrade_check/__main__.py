"""`make upgrade-check FROM=COMMIT`: whether an upgrade from that commit disturbs what runs.

The operator of the commit settles its examples and objects with every field, on a real API server with KWOK
nodes. Then this checkout's definitions and operator take over. No pod may be replaced, no child written, no
stored object refused, no condition changed, but what announced.yaml lists; and that must happen. Each finding
is a line, and so is each announced change that was not found; the last line is one JSON object with their
numbers. The exit status is 1 for a finding that was not announced and for an announced one that is missing.
"""

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from local_cluster.directories import CHECKOUT
from upgrade_check.announced import announced_between, judged
from upgrade_check.check import upgrade
from upgrade_check.release import release_at, this_release


def main() -> int:
    """Check the upgrade, and print the findings."""
    parser = argparse.ArgumentParser(prog="upgrade_check", description=__doc__)
    parser.add_argument("commit", help="the commit whose operator runs first")
    commit = parser.parse_args().commit
    with tempfile.TemporaryDirectory(prefix="flotilla-release-") as folder:
        release = release_at(commit, Path(folder) / "before")
        announced = announced_between(release.folder, CHECKOUT)
        before, findings = upgrade(release, this_release())
    for name, reason in before.waiting.items():
        print(f"never ready: {name}: {reason}")
    found = judged(findings, announced)
    for kind, line in found.announced:
        print(f"announced: {kind}: {line}")
    for kind, line in found.unannounced:
        print(f"NOT ANNOUNCED: {kind}: {line}")
    for change in found.missing:
        print(f"ANNOUNCED AND NOT FOUND: {change.kind}: {change.what} ({change.changelog})")
    objects, waiting = len(before.conditions), len(before.waiting)
    numbers = {
        "objects": objects,
        "ready": objects - waiting,
        "pods": len(before.pods),
        **{kind: len(lines) for kind, lines in asdict(findings).items()},
        "announced": len(found.announced),
        "not_announced": len(found.unannounced),
        "not_found": len(found.missing),
    }
    print(json.dumps({"from": commit, **numbers}))
    return 0 if found.is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
