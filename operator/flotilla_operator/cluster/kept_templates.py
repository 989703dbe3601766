"""Keeps the pod templates of running workloads, so that an upgrade of the chart restarts nothing.

A release of the chart names new images, and a release of the operator adds parts to pod templates. A
Deployment or StatefulSet takes both when its pod template changes for another reason, when a user changes the
annotation flotilla.dev/refresh, or when none of its pods is ready: then there is nothing to interrupt, and
what is new may help. Until then it keeps the images in its annotation flotilla.dev/images and the parts in
flotilla.dev/parts. The live template itself does not count: what somebody else has set there is drift and is
corrected.

Another reason is a difference between the template that was applied and today's with the same parts and
without images. flotilla.dev/template-hash holds a hash of it.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from flotilla_operator.cluster.writes import Parts
from flotilla_operator.objects.hashes import hash_of
from flotilla_operator.objects.resources import FLOTILLA_GROUP, Manifest

ANNOTATION_IMAGES: Final = f"{FLOTILLA_GROUP}/images"
ANNOTATION_PARTS: Final = f"{FLOTILLA_GROUP}/parts"
ANNOTATION_TEMPLATE: Final = f"{FLOTILLA_GROUP}/template-hash"
WITH_LONG_LIVED_PODS: Final = frozenset({"Deployment", "StatefulSet"})
NO_PARTS: Final[frozenset[str]] = frozenset()


def with_kept_template(
    wanted: Manifest, live: Manifest | None, *, refresh: str, parts: Parts | None = None
) -> Manifest:
    """`wanted`, with the kept images and parts where they apply, and with annotations that record both.

    Other kinds are returned unchanged. `live` is the object in the cluster; `refresh` is the value of the
    user's annotation; `wanted` has all `parts`.
    """
    if wanted["kind"] not in WITH_LONG_LIVED_PODS:
        return wanted
    if live is not None and _serves(live):
        names = _noted_parts(live)
        for served in _that_may_serve(wanted, parts, names):
            if _annotations(live).get(ANNOTATION_TEMPLATE) == _template_hash(served, refresh):
                return _recorded(_with_images(served, _noted_images(live)), names, refresh)
    return _recorded(wanted, _parts_that_matter(wanted, parts), refresh)


def _serves(live: Manifest) -> bool:
    return ((live.get("status") or {}).get("readyReplicas") or 0) > 0


def _that_may_serve(wanted: Manifest, parts: Parts | None, names: frozenset[str]) -> Iterator[Manifest]:
    """The wanted manifest, and the one of before. The second is rendered only where the first does not serve.

    A workload that no part concerns has no note of parts, so its first one serves.
    """
    yield wanted
    if (older := _with_only(wanted, parts, names)) is not wanted:
        yield older


def _with_only(wanted: Manifest, parts: Parts | None, names: frozenset[str]) -> Manifest:
    """The wanted manifest, whose pod template has only the parts of these names."""
    if parts is None or names >= parts.names:
        return wanted
    template = parts.with_only(names)["spec"]["template"]
    return {**wanted, "spec": {**wanted["spec"], "template": template}}


def _parts_that_matter(wanted: Manifest, parts: Parts | None) -> frozenset[str]:
    """All parts; none where the template is the same without them, so that it gets no annotation."""
    if parts is None or _with_only(wanted, parts, NO_PARTS) == wanted:
        return NO_PARTS
    return parts.names


def _recorded(manifest: Manifest, parts: frozenset[str], refresh: str) -> Manifest:
    noted = {
        ANNOTATION_IMAGES: json.dumps(_images(manifest), sort_keys=True),
        ANNOTATION_TEMPLATE: _template_hash(manifest, refresh),
        **({ANNOTATION_PARTS: json.dumps(sorted(parts))} if parts else {}),
    }
    annotations = {**_annotations(manifest), **noted}
    return {**manifest, "metadata": {**manifest["metadata"], "annotations": annotations}}


def _annotations(manifest: Manifest) -> Mapping[str, str]:
    return manifest["metadata"].get("annotations") or {}


def _containers(manifest: Manifest) -> Iterator[dict[str, Any]]:
    pod = manifest["spec"]["template"]["spec"]
    yield from (*pod.get("initContainers", ()), *pod["containers"])


def _images(manifest: Manifest) -> dict[str, str]:
    return {container["name"]: container["image"] for container in _containers(manifest)}


def _noted_images(live: Manifest) -> dict[str, str]:
    """The images in the annotation; none when somebody has made it unreadable."""
    noted = _read(live, ANNOTATION_IMAGES)
    return noted if isinstance(noted, dict) and all(isinstance(one, str) for one in noted.values()) else {}


def _noted_parts(live: Manifest) -> frozenset[str]:
    """The parts in the annotation; none when somebody has made it unreadable."""
    noted = _read(live, ANNOTATION_PARTS)
    return frozenset(map(str, noted)) if isinstance(noted, list) else NO_PARTS


def _read(live: Manifest, annotation: str) -> Any:
    try:
        return json.loads(_annotations(live).get(annotation, "null"))
    except ValueError:
        return None


def _with_images(manifest: Manifest, images: Mapping[str, str]) -> Manifest:
    """The manifest with these images by container; a container that is not named keeps its own."""
    pod = manifest["spec"]["template"]["spec"]
    replaced = {
        part: [{**one, "image": images.get(one["name"], one["image"])} for one in pod[part]]
        for part in ("initContainers", "containers")
        if part in pod
    }
    template = {**manifest["spec"]["template"], "spec": {**pod, **replaced}}
    return {**manifest, "spec": {**manifest["spec"], "template": template}}


def _template_hash(manifest: Manifest, refresh: str) -> str:
    """A hash of the pod template without its images, and of the user's refresh annotation."""
    blank = _with_images(manifest, dict.fromkeys(_images(manifest), ""))
    return hash_of([blank["spec"]["template"], refresh])
