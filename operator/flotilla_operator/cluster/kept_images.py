"""An upgrade of the chart restarts nothing: a workload that serves keeps the images it was made with.

A release names new images. A Deployment or a StatefulSet takes them when its pod template changes for another
reason, when a user asks for it by the annotation flotilla.dev/refresh, or when none of its pods is ready, for
then there is nothing to interrupt, and the new image may be the cure. Until then the images stay those in the
annotation flotilla.dev/images, not those of the live template: an image that somebody else set is drift.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from flotilla_operator.cluster.hashing import hash_of
from flotilla_operator.cluster.resources import FLOTILLA_GROUP
from flotilla_operator.cluster.writes import Manifest

ANNOTATION_IMAGES: Final = f"{FLOTILLA_GROUP}/images"
ANNOTATION_TEMPLATE: Final = f"{FLOTILLA_GROUP}/template-hash"
WITH_LONG_LIVED_PODS: Final = frozenset({"Deployment", "StatefulSet"})


def with_kept_images(wanted: Manifest, live: Manifest | None, *, refresh: str) -> Manifest:
    """`wanted` with the images that its pods have now, where they are to be kept, and a note of its images.

    Other kinds come back as they are. `live` is the object in the cluster; `refresh` is what the user's
    annotation says.
    """
    if wanted["kind"] not in WITH_LONG_LIVED_PODS:
        return wanted
    template = _template_hash(wanted, refresh)
    images = _images(wanted)
    if live is not None and _serves(live) and _annotations(live).get(ANNOTATION_TEMPLATE) == template:
        images |= _noted_images(live)
    annotations = {
        **_annotations(wanted),
        ANNOTATION_IMAGES: json.dumps(images, sort_keys=True),
        ANNOTATION_TEMPLATE: template,
    }
    return {**_with_images(wanted, images), "metadata": {**wanted["metadata"], "annotations": annotations}}


def _serves(live: Manifest) -> bool:
    return ((live.get("status") or {}).get("readyReplicas") or 0) > 0


def _annotations(manifest: Manifest) -> Mapping[str, str]:
    return manifest["metadata"].get("annotations") or {}


def _containers(manifest: Manifest) -> Iterator[dict[str, Any]]:
    pod = manifest["spec"]["template"]["spec"]
    yield from (*pod.get("initContainers", ()), *pod["containers"])


def _images(manifest: Manifest) -> dict[str, str]:
    return {container["name"]: container["image"] for container in _containers(manifest)}


def _noted_images(live: Manifest) -> dict[str, str]:
    """What the note says; nothing where somebody has made it unreadable."""
    try:
        noted = json.loads(_annotations(live).get(ANNOTATION_IMAGES, "{}"))
    except ValueError:
        return {}
    return noted if isinstance(noted, dict) and all(isinstance(one, str) for one in noted.values()) else {}


def _with_images(manifest: Manifest, images: Mapping[str, str]) -> Manifest:
    pod = manifest["spec"]["template"]["spec"]
    replaced = {
        part: [{**container, "image": images[container["name"]]} for container in pod[part]]
        for part in ("initContainers", "containers")
        if part in pod
    }
    template = {**manifest["spec"]["template"], "spec": {**pod, **replaced}}
    return {**manifest, "spec": {**manifest["spec"], "template": template}}


def _template_hash(manifest: Manifest, refresh: str) -> str:
    """A short name for the pod template but for its images."""
    blank = _with_images(manifest, dict.fromkeys(_images(manifest), ""))
    return hash_of([blank["spec"]["template"], refresh])
