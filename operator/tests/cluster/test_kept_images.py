"""A new release's images wait until a workload's pods are made anew for another reason."""

from copy import deepcopy
from typing import Any

import pytest

from flotilla_operator.cluster.kept_images import ANNOTATION_IMAGES, with_kept_images
from flotilla_operator.objects.resources import Manifest


def workload(release: int, *, kind: str = "Deployment", argument: str = "a") -> Manifest:
    return {
        "kind": kind,
        "metadata": {"name": "w", "annotations": {"theirs": "kept"}},
        "spec": {
            "replicas": 1,
            "template": {
                "metadata": {"labels": {"a": "b"}},
                "spec": {
                    "initContainers": [{"name": "render", "image": f"runtime:{release}"}],
                    "containers": [{"name": "haproxy", "image": f"haproxy:{release}", "args": [argument]}],
                },
            },
        },
    }


def running(wanted: Manifest, *, ready: int = 1) -> Manifest:
    """What the cluster holds after `wanted` was applied, with what the server adds."""
    live = deepcopy(with_kept_images(wanted, None, refresh=""))
    live["spec"]["template"]["spec"]["dnsPolicy"] = "ClusterFirst"
    live["status"] = {"readyReplicas": ready} if ready else {}
    return live


def images(manifest: Manifest) -> list[str]:
    pod = manifest["spec"]["template"]["spec"]
    return [container["image"] for container in (*pod["initContainers"], *pod["containers"])]


OLD, NEW = ["runtime:1", "haproxy:1"], ["runtime:2", "haproxy:2"]


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet"])
def test_a_workload_that_serves_keeps_its_images_and_nothing_of_it_changes(kind: str) -> None:
    first = with_kept_images(workload(1, kind=kind), None, refresh="")
    assert with_kept_images(workload(2, kind=kind), running(workload(1, kind=kind)), refresh="") == first


@pytest.mark.parametrize(
    ("wanted", "live", "refresh"),
    [
        pytest.param(workload(2), None, "", id="it is not there yet"),
        pytest.param(workload(2, argument="b"), running(workload(1)), "", id="the template changed"),
        pytest.param(workload(2), running(workload(1), ready=0), "", id="no pod is ready"),
        pytest.param(workload(2), running(workload(1)), "today", id="a user asked for it"),
    ],
)
def test_new_images_are_taken(wanted: Manifest, live: Manifest | None, refresh: str) -> None:
    assert images(with_kept_images(wanted, live, refresh=refresh)) == NEW


def test_an_image_that_somebody_else_set_is_not_kept() -> None:
    live = running(workload(1))
    live["spec"]["template"]["spec"]["containers"][0]["image"] = "theirs:9"
    assert images(with_kept_images(workload(2), live, refresh="")) == OLD


@pytest.mark.parametrize("note", ["{not json", "[1]", '{"haproxy": 1}'])
def test_a_note_that_cannot_be_read_is_as_none(note: str) -> None:
    live = running(workload(1))
    live["metadata"]["annotations"][ANNOTATION_IMAGES] = note
    assert images(with_kept_images(workload(2), live, refresh="")) == NEW


def test_a_number_of_replicas_is_no_reason() -> None:
    scaled: dict[str, Any] = workload(2)
    scaled["spec"]["replicas"] = 5
    assert images(with_kept_images(scaled, running(workload(1)), refresh="")) == OLD


def test_other_kinds_and_annotations_are_left_as_they_are() -> None:
    job = {"kind": "Job", "metadata": {"name": "j"}, "spec": {}}
    assert with_kept_images(job, None, refresh="") is job
    kept = with_kept_images(workload(1), None, refresh="")
    assert kept["metadata"]["annotations"]["theirs"] == "kept"
