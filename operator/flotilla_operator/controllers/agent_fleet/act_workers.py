"""The writes to workers that are not applied as a whole: deletion costs, and the workers of older revisions.

The settings of an older revision are nowhere but in its own objects, so these are only scaled and deleted.
"""

from collections.abc import Iterable

from flotilla_operator.cluster.stripped import ANNOTATION_DELETION_COST
from flotilla_operator.cluster.writes import Delete, JsonPatch, Write
from flotilla_operator.controllers.agent_fleet.decide import Decision
from flotilla_operator.controllers.agent_fleet.seen import Observed
from flotilla_operator.controllers.agent_fleet.worker_pods import costs_to_write


def deletion_costs(observed: Observed, decision: Decision) -> Iterable[Write]:
    """Before there are fewer workers: how many tasks each one holds, so that those with fewer go first."""
    if observed.figures is None:
        return
    path = f"/metadata/annotations/{ANNOTATION_DELETION_COST.replace('/', '~1')}"
    for revision, wanted in decision.worker_pods.shares:
        workers = observed.workers.get(revision)
        if workers is None or not 0 < wanted < workers.deployment.replicas:
            continue
        for pod, cost in costs_to_write(workers.pods, observed.figures.workers):
            operations = [{"op": "add", "path": path, "value": cost}]
            yield JsonPatch(ref=pod.ref, uid=pod.uid, operations=operations)


def older_revisions(decision: Decision) -> Iterable[Write]:
    """The number of each older revision's workers, and the end of those that are needed no more."""
    for one in decision.rollout.older:
        deployment = one.workers.deployment
        wanted = decision.worker_pods.older.get(one.revision)
        if one.goes:
            yield Delete(ref=deployment.ref, uid=deployment.uid)
            if (config_map := one.workers.config_map) is not None:
                yield Delete(ref=config_map.ref, uid=config_map.uid)
        elif wanted is not None and wanted != deployment.replicas:
            operations = [{"op": "replace", "path": "/spec/replicas", "value": wanted}]
            yield JsonPatch(ref=deployment.ref, uid=deployment.uid, operations=operations)
