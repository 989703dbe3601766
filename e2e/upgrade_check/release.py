"""A release: the operator's code in a folder, and the interpreter with what that code depends on."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from local_cluster.directories import CHECKOUT

Manifest = dict[str, Any]
LOCK = Path("requirements/operator.txt")
OWN_WORLD = """\
import json
from tests.builders import agent_fleet, model_replica_set, vector_index
from tests.support.tiny_controller import IMAGES
kinds = (model_replica_set, vector_index, agent_fleet)
print(json.dumps({"images": IMAGES, "objects": [kind.full_featured_objects() for kind in kinds]}))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """An operator's code, and the Python that runs it."""

    folder: Path
    python: str

    @property
    def definitions(self) -> Path:
        """Where its custom resource definitions are."""
        return self.folder / "crds"

    @property
    def lists_node_paths(self) -> bool:
        """Whether its configuration lists folders of nodes that sets may name; else it refuses the key."""
        config = self.folder / "operator" / "flotilla_operator" / "controllers" / "config.py"
        return "node_paths" in config.read_text()

    def examples(self) -> list[list[Manifest]]:
        """The objects of each of its examples."""
        files = sorted((self.folder / "examples").glob("*.yaml"))
        return [[one for one in yaml.safe_load_all(file.read_text()) if one] for file in files]

    def own_world(self) -> "OwnWorld":
        """Ask its tests for the images and for objects that use every field."""
        path = os.pathsep.join(str(self.folder / package) for package in ("operator", "runtime", "e2e"))
        out = subprocess.run(
            [self.python, "-c", OWN_WORLD],
            env={**os.environ, "PYTHONPATH": path},
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout
        found = json.loads(out)
        return OwnWorld(images=found["images"], full_featured=found["objects"])


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnWorld:
    """Fixtures of a release's own tests: the images of its configuration, and objects with every field."""

    images: dict[str, str]
    full_featured: list[list[Manifest]]


def this_release() -> Release:
    """The checkout's own code."""
    return Release(folder=CHECKOUT, python=sys.executable)


def release_at(commit: str, folder: Path) -> Release:
    """The code of a commit of this repository, in a new folder; raises CalledProcessError without it."""
    folder.mkdir()
    archive = ["git", "-C", str(CHECKOUT), "archive", commit]
    content = subprocess.run(archive, check=True, stdout=subprocess.PIPE).stdout
    subprocess.run(["tar", "--extract", f"--directory={folder}"], input=content, check=True)
    return Release(folder=folder, python=_python_for(folder))


def _python_for(folder: Path) -> str:
    """This interpreter where its packages are those of the release's lock file, else one with the others.

    The tests of a release, which its objects come from, need no more than the operator does.
    """
    if (folder / LOCK).read_text() == (CHECKOUT / LOCK).read_text():
        return sys.executable
    made = folder / ".venv"
    uv = [sys.executable, "-m", "uv"]
    subprocess.run([*uv, "venv", "--quiet", str(made)], check=True)
    python = str(made / "bin" / "python")
    install = ["pip", "install", "--quiet", "--require-hashes", f"--python={python}"]
    subprocess.run([*uv, *install, f"--requirement={folder / LOCK}"], check=True)
    return python
