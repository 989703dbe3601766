"""The garbage collector: deletes what has lost its owners, pods of nodes that are gone, and, where somebody
waits for it, what a deleted object owns before that object.
"""

import asyncio
import copy

from flotilla_operator.objects.resources import NODES, PODS, Manifest, Resource
from tests.scenes.parts.part import Part
from tests.support.fake_answers import FOREGROUND

LOOKS_EVERY_SECONDS = 20.0
NODE_IS_MISSED_AFTER_SECONDS = 40.0


class Collector(Part):
    """Looks at the owners of all objects."""

    def look(self) -> None:
        everything = list(self.api.everything())
        uids = {manifest["metadata"]["uid"] for _, manifest in everything}
        leaving = {m["metadata"]["uid"] for _, m in everything if _waits_for_dependents(m)}
        for resource, manifest in everything:
            owners = {one["uid"] for one in manifest["metadata"].get("ownerReferences") or ()}
            if owners and (not owners & uids or owners <= leaving):
                self._collect(resource, manifest)
        for resource, manifest in everything:
            if manifest["metadata"]["uid"] in leaving:
                self._let_go(resource, manifest)

    def _collect(self, resource: Resource, manifest: Manifest) -> None:
        if "deletionTimestamp" not in manifest["metadata"]:
            self.cluster.delete(resource, manifest)

    def _let_go(self, resource: Resource, manifest: Manifest) -> None:
        """Take the collector's finalizer from an object that owns nothing any more."""
        uid = manifest["metadata"]["uid"]
        for _, other in self.api.everything():
            if uid in {one["uid"] for one in other["metadata"].get("ownerReferences") or ()}:
                return
        changed = copy.deepcopy(manifest)
        changed["metadata"]["finalizers"].remove(FOREGROUND)
        self.api.change(resource, manifest, changed)


class PodCollector(Part):
    """Removes the pods of a node that has been missing for a while."""

    async def run(self) -> None:
        missed_since: dict[str, float] = {}
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(LOOKS_EVERY_SECONDS)
            pods = [pod for pod in self.api.listed(PODS) if pod["spec"].get("nodeName")]
            missing = {pod["spec"]["nodeName"] for pod in pods} - {
                node["metadata"]["name"] for node in self.api.listed(NODES)
            }
            missed_since = {node: missed_since.get(node, loop.time()) for node in missing}
            for pod in pods:
                since = missed_since.get(pod["spec"]["nodeName"], loop.time())
                if loop.time() - since >= NODE_IS_MISSED_AFTER_SECONDS:
                    self.cluster.delete(PODS, pod, gracePeriodSeconds=0)


def _waits_for_dependents(manifest: Manifest) -> bool:
    metadata = manifest["metadata"]
    return "deletionTimestamp" in metadata and FOREGROUND in (metadata.get("finalizers") or ())
