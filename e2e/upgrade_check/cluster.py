"""A cluster with everything that a release's examples and full-featured objects name.

KWOK plays the pods. Each object gets a namespace in which its name is free.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml

from cluster_site import control_plane, wait_for
from flotilla_operator.objects.resources import OUR_KINDS, PODS
from local_cluster.control_plane import ControlPlane, Options
from local_cluster.errors import ApiError
from local_cluster.kwok import gpu_node
from upgrade_check.findings import Sight, sight_of
from upgrade_check.release import Manifest, Release

MANIFESTS = Path(__file__).parent / "manifests"
NAMESPACES = ("one", "two", "three", "four")  # of the examples, four have a fleet of the same name
LARGE_NODES = 14  # of the product that the full-featured objects ask for
SMALL_NODES = 6  # of the product and with the labels that the others ask for
VOLUMES = {"": 32, "fast": 4, "shared": 4}  # by storage class
DEVICES = 8
QUIET_SECONDS = 15.0
SETTLED_WITHIN_SECONDS = 300.0


@contextmanager
def cluster(folder: Path, release: Release) -> Iterator[ControlPlane]:
    """A control plane with the release's definitions, nodes, volumes, and what objects name."""
    options = Options(
        controller_manager=True,
        scheduler=True,
        kwok=True,
        kwok_stages=(MANIFESTS / "pods.yaml").read_text(),
        definitions=release.definitions,
    )
    with control_plane(folder, options, nodes=list(_nodes()), namespace=NAMESPACES[0]) as plane:
        _apply(plane, (MANIFESTS / "everywhere.yaml").read_text())
        _apply(plane, yaml.safe_dump_all([*_volumes(), *_slices()]))
        for namespace in NAMESPACES[1:]:
            plane.kubectl("create", "namespace", namespace)
        for namespace in NAMESPACES:
            _apply(plane, (MANIFESTS / "companions.yaml").read_text(), namespace)
        yield plane


def create_objects(plane: ControlPlane, groups: Sequence[Sequence[Manifest]]) -> None:
    """Apply each group of objects, in the first namespace in which all their names are free."""
    taken: set[tuple[str, str, str]] = set()
    for group in groups:
        names = [(one["kind"], one["metadata"]["name"]) for one in group]
        namespace = next(ns for ns in NAMESPACES if not any((ns, *name) in taken for name in names))
        taken.update((namespace, *name) for name in names)
        _apply(plane, yaml.safe_dump_all([as_a_user_writes(one) for one in group]), namespace)


def as_a_user_writes(manifest: Manifest) -> Manifest:
    """Without what only the API server sets, and not paused."""
    written = {**manifest, "metadata": {"name": manifest["metadata"]["name"]}}
    written.pop("status", None)
    if "paused" in written.get("spec", {}):
        written["spec"] = {**written["spec"], "paused": False}
    return written


def settled(plane: ControlPlane) -> Sight:
    """Wait until nothing changes any more; what stands then. Raises TimeoutError."""
    seen, since = see(plane), time.monotonic()

    def is_quiet() -> bool:
        nonlocal seen, since
        now = see(plane)
        if now != seen:
            seen, since = now, time.monotonic()
        return time.monotonic() - since > QUIET_SECONDS

    wait_for(is_quiet, "a cluster at rest", seconds=SETTLED_WITHIN_SECONDS, every_seconds=2.0)
    return seen


def see(plane: ControlPlane) -> Sight:
    """State of the cluster now."""
    pods = [pod for namespace in NAMESPACES for pod in plane.client.get(PODS.path(namespace))["items"]]
    return sight_of(pods, stored(plane))


def stored(plane: ControlPlane) -> list[Manifest]:
    """Every object of our kinds."""
    paths = [ours.path(namespace) for ours in OUR_KINDS for namespace in NAMESPACES]
    return [one for path in paths for one in plane.client.get(path)["items"]]


def refused(plane: ControlPlane, objects: Sequence[Manifest]) -> Iterator[str]:
    """The objects, with their statuses, that the API server would not take again, and why."""
    for one in objects:
        metadata = one["metadata"]
        resource = next(ours for ours in OUR_KINDS if ours.kind == one["kind"])
        path = resource.path(metadata["namespace"], metadata["name"])
        for part in (path, f"{path}/status"):
            try:
                plane.client.request("PUT", f"{part}?dryRun=All&fieldValidation=Strict", body=one)
            except ApiError as error:
                yield str(error)


def _apply(plane: ControlPlane, manifests: str, namespace: str = "default") -> None:
    plane.kubectl("apply", "--server-side", "--filename=-", f"--namespace={namespace}", manifest=manifests)


def _nodes() -> Iterator[Manifest]:
    for number in range(LARGE_NODES):
        zone, rack = f"zone-{number // 6}", f"rack-{number // 2}"
        yield gpu_node(f"large-{number}", product="H100", zone=zone, rack=rack)
    for number in range(SMALL_NODES):
        labels = {"pool": "inference", "node-pool": "gpu"}
        yield gpu_node(f"small-{number}", zone="zone-s", rack="rack-s", labels=labels)


def _volumes() -> Iterator[Manifest]:
    for storage_class, count in VOLUMES.items():
        for number in range(count):
            spec = {
                "accessModes": ["ReadWriteOnce", "ReadWriteMany"],
                "capacity": {"storage": "100Gi"},
                "hostPath": {"path": "/nowhere"},
                "storageClassName": storage_class,
            }
            name = f"volume-{storage_class or 'default'}-{number}"
            yield {
                "apiVersion": "v1",
                "kind": "PersistentVolume",
                "metadata": {"name": name},
                "spec": spec,
            }


def _slices() -> Iterator[Manifest]:
    attributes = {"product": {"string": "H100"}, "ecc": {"bool": True}}
    devices = [{"name": f"gpu-{number}", "attributes": attributes} for number in range(DEVICES)]
    for number in range(4):
        node = f"small-{number}"
        pool = {"name": node, "generation": 1, "resourceSliceCount": 1}
        yield {
            "apiVersion": "resource.k8s.io/v1",
            "kind": "ResourceSlice",
            "metadata": {"name": node},
            "spec": {"driver": "gpu.example", "nodeName": node, "pool": pool, "devices": devices},
        }
