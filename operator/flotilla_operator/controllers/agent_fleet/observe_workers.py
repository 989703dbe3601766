"""Gathers the workers of each revision of a fleet from the caches."""

import json
from collections.abc import Iterable

from flotilla_operator.cluster.caches import Caches, controller_uid
from flotilla_operator.controllers.agent_fleet.rollout import RevisionWorkers
from flotilla_operator.controllers.agent_fleet.worker_pods import WorkerPod, worker_pod
from flotilla_operator.controllers.live_objects import live_object
from flotilla_operator.objects.owners import Owner
from flotilla_operator.objects.resources import CONFIG_MAPS, DEPLOYMENTS, PODS, Manifest, Resource
from flotilla_operator.workloads import agent_fleet as workloads
from flotilla_runtime import contract


def workers_by_revision(owner: Owner, caches: Caches) -> dict[str, RevisionWorkers]:
    """The Deployments of workers that this fleet made, by revision."""
    config_maps = {one["metadata"]["name"]: live_object(one) for one in _ours(CONFIG_MAPS, owner, caches)}
    pods = _pods(owner, caches)
    found = {}
    for deployment in _ours(DEPLOYMENTS, owner, caches):
        revision = _revision(deployment)
        found[revision] = RevisionWorkers(
            revision=revision,
            deployment=live_object(deployment),
            config_map=config_maps.get(deployment["metadata"]["name"]),
            pods=tuple(pod for pod in pods if pod.revision == revision),
        )
    return found


def adopted_by(owner: Owner, caches: Caches) -> tuple[str, ...]:
    """The revisions that any workers of the fleet were told to adopt."""
    lists = (
        (config_map.get("data") or {}).get(contract.ADOPTED_FILE)
        for config_map in _ours(CONFIG_MAPS, owner, caches)
    )
    return tuple(sorted({revision for text in lists if text is not None for revision in _listed(text)}))


def _listed(text: str) -> Iterable[str]:
    """The entries of a list that we wrote; none where somebody has made it unreadable."""
    try:
        found = json.loads(text)
    except ValueError:
        return ()
    return (one for one in found if isinstance(one, str)) if isinstance(found, list) else ()


def _ours(resource: Resource, owner: Owner, caches: Caches) -> list[Manifest]:
    component = workloads.workers(owner).component
    return [
        one
        for one in caches.by_label(resource, contract.LABEL_OWNER_NAME, owner.name)
        if one["metadata"].get("namespace") == owner.namespace
        and controller_uid(one) == owner.uid
        and (one["metadata"].get("labels") or {}).get(contract.LABEL_COMPONENT) == component
        and "deletionTimestamp" not in one["metadata"]
    ]


def _pods(owner: Owner, caches: Caches) -> list[WorkerPod]:
    selector = workloads.workers(owner).selector
    return [
        worker_pod(pod)
        for pod in caches.by_label(PODS, contract.LABEL_OWNER_NAME, owner.name)
        if pod["metadata"].get("namespace") == owner.namespace
        and selector.items() <= (pod["metadata"].get("labels") or {}).items()
        and "deletionTimestamp" not in pod["metadata"]
    ]


def _revision(deployment: Manifest) -> str:
    revision: str = deployment["metadata"]["labels"].get(contract.LABEL_REVISION, "")
    return revision
