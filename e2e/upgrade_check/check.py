"""An upgrade on a real API server: one release settles its objects, then another takes over."""

import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from at_rest import reconciles_in
from cluster_site import wait_for
from local_cluster import definitions
from local_cluster.control_plane import ControlPlane
from tests.support.processes import WHOLE, OperatorProcess, operator_process
from upgrade_check.cluster import MANIFESTS, NAMESPACES, cluster, create_objects, refused, settled, stored
from upgrade_check.findings import Findings, Sight, changed, replaced, written
from upgrade_check.release import Release

USER = "the-operator"
NODE_PATHS = ["/srv/models"]  # of the tests' full-featured sets


def upgrade(before: Release, after: Release) -> tuple[Sight, Findings]:
    """State before the upgrade, and the upgrade's faults.

    The objects are the examples of the release before and its tests' full-featured ones.
    """
    world = before.own_world()
    parts = list(yaml.safe_load_all((MANIFESTS / "parts.yaml").read_text()))
    with (
        tempfile.TemporaryDirectory(prefix="flotilla-upgrade-") as name,
        cluster(Path(name) / "control-plane", before) as plane,
    ):
        with _operator(plane, Path(name), before, world.images):
            create_objects(plane, [*before.examples(), parts, *world.full_featured])
            seen = settled(plane)
        objects, asked = stored(plane), _asked(plane)
        definitions.install(plane.client, after.definitions)
        not_taken = list(refused(plane, objects))
        with _operator(plane, Path(name), after, after.own_world().images) as process:
            wait_for(lambda: _looks(process) >= len(objects), "a look at every object")
            now = settled(plane)
        return seen, Findings(
            pods_replaced=list(replaced(seen, now)),
            children_written=list(written(list(plane.audit_events(user=USER))[asked:])),
            refused=not_taken,
            conditions_changed=list(changed(seen, now)),
        )


@contextmanager
def _operator(
    plane: ControlPlane, folder: Path, release: Release, images: dict[str, str]
) -> Iterator[OperatorProcess]:
    """The release's operator, ready; at the end it has time to give its lease back."""
    config: dict[str, Any] = {"images": images, "watchNamespaces": list(NAMESPACES)}
    if release.lists_node_paths:
        config["modelCache"] = {"nodePaths": NODE_PATHS}
    kubeconfig = plane.kubeconfig_for(USER, groups=["system:masters"])
    with operator_process(
        folder, kubeconfig, module=WHOLE, python=release.python, checkout=release.folder, **config
    ) as process:
        wait_for(lambda: process.get("health", "/readyz")[0] == 200, "a ready operator")
        yield process
        process.signal(signal.SIGTERM)
        process.ended()


def _looks(process: OperatorProcess) -> int:
    return reconciles_in(process.get("metrics", "/metrics")[1])


def _asked(plane: ControlPlane) -> int:
    return len(list(plane.audit_events(user=USER)))
