"""Writes the files generated from the models: the CRDs, their copies in the chart, and the API reference.

`python -m flotilla_operator.api.generate` writes them. With `--check` it writes nothing and fails when a file
differs from what it would write.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from flotilla_operator.api.kinds import GROUP, KINDS
from flotilla_operator.api.reference import index_page, kind_page, not_yet_page
from flotilla_operator.api.schema import definition

ROOT = Path(__file__).parents[3]
CRDS = Path("crds")
CHART_CRDS = Path("charts/flotilla/files/crds")
REFERENCE = Path("docs/api")
HEADER = "# Written by `make generate` from operator/flotilla_operator/api; do not edit.\n"


def generated() -> Mapping[Path, str]:
    """The text of every generated file, by its path from the repository's root."""
    files: dict[Path, str] = {
        REFERENCE / "README.md": index_page(KINDS),
        REFERENCE / "not-yet.md": not_yet_page(KINDS),
    }
    for kind in KINDS:
        text = HEADER + yaml.safe_dump(definition(kind), sort_keys=False, width=110, allow_unicode=True)
        name = f"{GROUP}_{kind.plural}.yaml"
        files[CRDS / name] = text
        files[CHART_CRDS / name] = text
        files[REFERENCE / f"{kind.name.lower()}.md"] = kind_page(kind)
    return files


def stale(root: Path, wanted: Mapping[Path, str]) -> list[Path]:
    """The files that are missing or differ, and the files beside them that are not generated."""
    differing = [path for path, text in wanted.items() if _text(root / path) != text]
    folders = {path.parent for path in wanted}
    left_over = [
        path.relative_to(root)
        for folder in folders
        for path in (root / folder).glob("*")
        if path.relative_to(root) not in wanted
    ]
    return sorted([*differing, *left_over])


def write(root: Path, wanted: Mapping[Path, str]) -> None:
    """Write every file, and create its folder where it is missing."""
    for path, text in wanted.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the files, or with `--check` name the stale ones and return 1."""
    parser = argparse.ArgumentParser(description="Write the CRDs and the API reference from the models.")
    parser.add_argument("--check", action="store_true", help="change nothing; fail when a file is stale")
    if not parser.parse_args(arguments).check:
        write(ROOT, generated())
        return 0
    behind = stale(ROOT, generated())
    for path in behind:
        sys.stderr.write(f"{path} is stale; run make generate\n")
    return 1 if behind else 0


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


if __name__ == "__main__":
    sys.exit(main())
