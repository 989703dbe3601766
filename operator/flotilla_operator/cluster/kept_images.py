"""Keeps the images of running workloads, so that an upgrade of the chart restarts nothing.

A release of the chart names new images. A Deployment or StatefulSet takes them when its pod template changes
for another reason, when a user changes the annotation flotilla.dev/refresh, or when none of its pods is
ready: then there is nothing to interrupt, and the new image may help. Until then it keeps the images in its
annotation flotilla.dev/images. Those of the live template do not count: an image that somebody else has set
is drift and is corrected.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from flotilla_operator.objects.hashes import hash_of
from flotilla_operator.objects.resources import FLOTILLA_GROUP, Manifest

ANNOTATION_IMAGES: Final = f"{FLOTILLA_GROUP}/images"
ANNOTATION_TEMPLATE: Final = f"{FLOTILLA_GROUP}/template-hash"
WITH_LONG_LIVED_PODS: Final = frozenset({"Deployment", "StatefulSet"})


def with_kept_images(wanted: Manifest, live: Manifest | None, *, refresh: str) -> Manifest:
    """`wanted`, with the kept images where they apply, and with annotations that record its images.

    Other kinds are returned unchanged. `live` is the object in the cluster; `refresh` is the value of the
    user's annotation.
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
    """The images in the annotation; none when somebody has made it unreadable."""
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
    """A hash of the pod template without its images, and of the user's refresh annotation."""
    blank = _with_images(manifest, dict.fromkeys(_images(manifest), ""))
    return hash_of([blank["spec"]["template"], refresh])
