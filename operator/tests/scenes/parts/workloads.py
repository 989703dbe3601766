"""The controller of Deployments, as far as router pods need it."""

import copy

from flotilla_operator.objects.hashes import hash_of
from flotilla_operator.objects.resources import DEPLOYMENTS, PODS, Manifest
from tests.scenes.parts.part import Cluster, Part, controller_of, is_ready, owned_by
from tests.support.fake_objects import REPLICA_SETS

HASH_LABEL = "pod-template-hash"
DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"


class Deployments(Part):
    """Makes the pods of each Deployment. One of an old template goes when a new one is ready in its place."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        self._made = 0

    def look(self) -> None:
        for deployment in self.api.listed(DEPLOYMENTS):
            if "deletionTimestamp" not in deployment["metadata"]:
                self._look_at(deployment)

    def _look_at(self, deployment: Manifest) -> None:
        spec, wanted = deployment["spec"], deployment["spec"].get("replicas", 1)
        newest = self._replica_set(deployment)
        mine = {newest["metadata"]["uid"]} | {
            one["metadata"]["uid"]
            for one in self.api.listed(REPLICA_SETS, deployment["metadata"]["namespace"])
            if controller_of(one) == deployment["metadata"]["uid"]
        }
        pods = [
            pod
            for pod in self.api.listed(PODS, deployment["metadata"]["namespace"])
            if controller_of(pod) in mine and "deletionTimestamp" not in pod["metadata"]
        ]
        new = [pod for pod in pods if controller_of(pod) == newest["metadata"]["uid"]]
        old = [pod for pod in pods if pod not in new]
        for _ in range(wanted - len(new)):
            self._make_pod(newest, spec["template"])
        for pod in sorted(new, key=_deletion_cost, reverse=True)[wanted:]:
            self.cluster.delete(PODS, pod)
        ready = sum(map(is_ready, new))
        for pod in old[max(0, wanted - ready) :]:
            self.cluster.delete(PODS, pod)
        self._report(deployment, pods, new)

    def _replica_set(self, deployment: Manifest) -> Manifest:
        metadata, template = deployment["metadata"], deployment["spec"]["template"]
        digest = hash_of(template)[:10]
        name = f"{metadata['name']}-{digest}"
        found = self.api.get(REPLICA_SETS, metadata["namespace"], name)
        if found is not None:
            return found
        labels = {**template["metadata"].get("labels", {}), HASH_LABEL: digest}
        about = {"name": name, "namespace": metadata["namespace"], "labels": labels}
        made = {"metadata": {**about, "ownerReferences": owned_by(deployment)}, "spec": {}}
        return self.api.put(REPLICA_SETS, made)

    def _make_pod(self, replica_set: Manifest, template: Manifest) -> None:
        self._made += 1
        about = copy.deepcopy(template.get("metadata") or {})
        metadata = replica_set["metadata"]
        about |= {
            "name": f"{metadata['name']}-{self._made:05}",
            "namespace": metadata["namespace"],
            "labels": metadata["labels"],
            "ownerReferences": owned_by(replica_set),
        }
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": about, "spec": copy.deepcopy(template["spec"])}
        self.cluster.create(PODS, pod)

    def _report(self, deployment: Manifest, pods: list[Manifest], new: list[Manifest]) -> None:
        ready, wanted = sum(map(is_ready, pods)), deployment["spec"].get("replicas", 1)
        conditions = self.cluster.condition(deployment, "Available", str(ready >= wanted))
        self.cluster.report(
            DEPLOYMENTS,
            deployment,
            observedGeneration=deployment["metadata"]["generation"],
            replicas=len(pods),
            updatedReplicas=len(new),
            readyReplicas=ready,
            availableReplicas=ready,
            conditions=conditions,
        )


def _deletion_cost(pod: Manifest) -> int:
    return int((pod["metadata"].get("annotations") or {}).get(DELETION_COST, "0"))
