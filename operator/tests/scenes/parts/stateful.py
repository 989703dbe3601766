"""The controllers of StatefulSets and of claims, as far as a Redis and a Milvus of ours need them."""

import copy

from flotilla_operator.objects.hashes import hash_of
from flotilla_operator.objects.resources import PERSISTENT_VOLUME_CLAIMS, PODS, STATEFUL_SETS, Manifest
from tests.scenes.parts.part import Part, controller_of, is_ready, owned_by

REVISION_LABEL = "controller-revision-hash"


class StatefulSets(Part):
    """Makes the pods of each StatefulSet. One of an old template is deleted and then made anew."""

    def look(self) -> None:
        for owner in self.api.listed(STATEFUL_SETS):
            if "deletionTimestamp" not in owner["metadata"]:
                self._look_at(owner)

    def _look_at(self, owner: Manifest) -> None:
        namespace, wanted = owner["metadata"]["namespace"], owner["spec"].get("replicas", 1)
        revision = hash_of(owner["spec"]["template"])[:10]
        pods = [
            pod for pod in self.api.listed(PODS, namespace) if controller_of(pod) == owner["metadata"]["uid"]
        ]
        names = {f"{owner['metadata']['name']}-{number}" for number in range(wanted)}
        for pod in pods:
            is_old = pod["metadata"]["labels"][REVISION_LABEL] != revision
            leaves = is_old or pod["metadata"]["name"] not in names
            if leaves and "deletionTimestamp" not in pod["metadata"]:
                self.cluster.delete(PODS, pod)
        for name in sorted(names - {pod["metadata"]["name"] for pod in pods}):
            self._make_pod(owner, name, revision)
        ready = sum(map(is_ready, pods))
        self.cluster.report(
            STATEFUL_SETS,
            owner,
            observedGeneration=owner["metadata"]["generation"],
            replicas=len(pods),
            readyReplicas=ready,
            availableReplicas=ready,
        )

    def _make_pod(self, owner: Manifest, name: str, revision: str) -> None:
        template = copy.deepcopy(owner["spec"]["template"])
        about = template.get("metadata") or {}
        about |= {
            "name": name,
            "namespace": owner["metadata"]["namespace"],
            "labels": {**about.get("labels", {}), REVISION_LABEL: revision},
            "ownerReferences": owned_by(owner),
        }
        spec = template["spec"]
        self.cluster.create(PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": about, "spec": spec})


class Claims(Part):
    """Gives each claim a volume."""

    def look(self) -> None:
        for claim in self.api.listed(PERSISTENT_VOLUME_CLAIMS):
            if (claim.get("status") or {}).get("phase") != "Bound":
                self.cluster.report(PERSISTENT_VOLUME_CLAIMS, claim, phase="Bound")
