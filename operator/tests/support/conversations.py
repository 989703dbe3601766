"""Conversations with an API server: lists of requests, each about one rule that the operator relies on.

`test_fake_contract` holds them with the fake one and with a real one, and fills in the namespace. A step may
depend on what was said before: the newest document of each name, and the newest list.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flotilla_operator.cluster.client import APPLY, JSON_PATCH, MERGE_PATCH, Request
from flotilla_operator.objects.resources import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    LEASES,
    MODEL_REPLICA_SETS,
    POD_DISRUPTION_BUDGETS,
    PODS,
    SERVICES,
    Manifest,
    Resource,
)
from tests.builders.api_objects import smallest

Said = Mapping[str, Manifest]
Step = Request | Callable[[Said], Request]

GATE = {"name": "flotilla.dev/gate"}
FINALIZER = "example.com/wait"
NS = "{namespace}"


def path(resource: Resource, name: str | None = None, subresource: str | None = None) -> str:
    return resource.path(NS, name, subresource)


def get(resource: Resource, name: str) -> Request:
    return Request(method="GET", path=path(resource, name))


def listed(resource: Resource, **query: Any) -> Request:
    return Request(method="GET", path=path(resource), query=query)


def post(resource: Resource, manifest: Manifest, subresource: str | None = None, **query: Any) -> Request:
    name = manifest["metadata"]["name"] if subresource else None
    return Request(method="POST", path=path(resource, name, subresource), query=query, body=manifest)


def unnamed(manifest: Manifest) -> Manifest:
    """The same, to be named by the server."""
    metadata = {**manifest["metadata"], "generateName": f"{manifest['metadata']['name']}-"}
    del metadata["name"]
    return {**manifest, "metadata": metadata}


def put(resource: Resource, manifest: Manifest) -> Request:
    return Request(method="PUT", path=path(resource, manifest["metadata"]["name"]), body=manifest)


def apply(
    resource: Resource,
    manifest: Manifest,
    subresource: str | None = None,
    *,
    force: bool = True,
    by: str = "me",
) -> Request:
    query = {"fieldManager": by, "force": str(force).lower()}
    where = path(resource, manifest["metadata"]["name"], subresource)
    return Request(method="PATCH", path=where, query=query, body=manifest, content_type=APPLY)


def merge(resource: Resource, name: str, patch: Manifest, subresource: str | None = None) -> Request:
    where = path(resource, name, subresource)
    return Request(method="PATCH", path=where, body=patch, content_type=MERGE_PATCH)


def json_patch(resource: Resource, name: str, *operations: Manifest) -> Request:
    return Request(method="PATCH", path=path(resource, name), body=list(operations), content_type=JSON_PATCH)


def delete(resource: Resource, name: str, **options: Any) -> Request:
    return Request(method="DELETE", path=path(resource, name), body={**DELETE_OPTIONS, **options})


DELETE_OPTIONS = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}


def config(name: str = "a", data: Manifest | None = None, **metadata: Any) -> Manifest:
    return typed(CONFIG_MAPS, {"metadata": {"name": name, **metadata}, "data": data or {"k": "v"}})


def typed(resource: Resource, manifest: Manifest) -> Manifest:
    return {"apiVersion": resource.api_version, "kind": resource.kind, **manifest}


def pod(name: str = "a", **spec: Any) -> Manifest:
    resources = {"limits": {"nvidia.com/gpu": "1"}}
    container = {"name": "c", "image": "none", "resources": resources}
    labels = {"app": "a"}
    return typed(
        PODS, {"metadata": {"name": name, "labels": labels}, "spec": {"containers": [container], **spec}}
    )


def replica_set(**spec: Any) -> Manifest:
    made = smallest("ModelReplicaSet", name="a")
    del made["metadata"]["namespace"]
    return {**made, "spec": {**made["spec"], **spec}}


def deployment(replicas: int = 1) -> Manifest:
    labels = {"app": "a"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "none"}]}}
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    return typed(DEPLOYMENTS, {"metadata": {"name": "a"}, "spec": spec})


def budget() -> Manifest:
    spec = {"minAvailable": 1, "selector": {"matchLabels": {"app": "a"}}}
    return typed(POD_DISRUPTION_BUDGETS, {"metadata": {"name": "a"}, "spec": spec})


def eviction(name: str) -> Manifest:
    return {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}


def ready() -> Manifest:
    return {"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}


def uid_of(said: Said) -> str:
    return str(said["a"]["metadata"]["uid"])


def tests(where: str, value: Any) -> Manifest:
    return {"op": "test", "path": where, "value": value}


CONVERSATIONS: Mapping[str, Sequence[Step]] = {
    "what is not there": [
        get(CONFIG_MAPS, "a"),
        merge(CONFIG_MAPS, "a", {"data": {"k": "w"}}),
        json_patch(CONFIG_MAPS, "a", {"op": "add", "path": "/data/k", "value": "w"}),
        delete(CONFIG_MAPS, "a"),
        apply(MODEL_REPLICA_SETS, {**replica_set(), "status": {"replicas": 1}}, "status"),
    ],
    "an object that is created twice": [
        post(CONFIG_MAPS, config()),
        post(CONFIG_MAPS, config()),
        get(CONFIG_MAPS, "a"),
    ],
    "an apply that creates, changes, takes back, and changes nothing": [
        apply(CONFIG_MAPS, config(data={"k": "v", "l": "v"}, labels={"one": "1", "two": "2"})),
        apply(CONFIG_MAPS, config(data={"k": "w"}, labels={"one": "1"})),
        apply(CONFIG_MAPS, config(data={"k": "w"}, labels={"one": "1"})),
    ],
    "an apply that keeps what another has set": [
        apply(CONFIG_MAPS, config()),
        merge(CONFIG_MAPS, "a", {"data": {"other": "o"}, "metadata": {"labels": {"other": "o"}}}),
        apply(CONFIG_MAPS, config(data={"k": "w"})),
    ],
    "an apply in the way of another, without and with force": [
        post(CONFIG_MAPS, config()),
        apply(CONFIG_MAPS, config(data={"k": "mine"}), force=False),
        apply(CONFIG_MAPS, config(data={"k": "v"}), force=False),
        apply(CONFIG_MAPS, config(data={"k": "mine"})),
        apply(CONFIG_MAPS, config(data={"k": "theirs"}), force=False, by="them"),
    ],
    "an apply for another UID": [
        apply(CONFIG_MAPS, config(uid="of-one-that-is-gone")),
        apply(CONFIG_MAPS, config()),
        lambda said: apply(CONFIG_MAPS, config(data={"k": "w"}, uid=uid_of(said))),
        apply(CONFIG_MAPS, config(data={"k": "x"}, uid="of-one-that-is-gone")),
    ],
    "a merge patch that takes away, and one that changes nothing": [
        post(CONFIG_MAPS, config(data={"k": "v", "l": "v"}, labels={"one": "1"})),
        merge(CONFIG_MAPS, "a", {"data": {"l": None}, "metadata": {"labels": {"one": None, "two": "2"}}}),
        merge(CONFIG_MAPS, "a", {"data": {"k": "v"}}),
    ],
    "JSON patches whose tests hold and fail": [
        post(CONFIG_MAPS, config()),
        lambda said: json_patch(
            CONFIG_MAPS,
            "a",
            tests("/metadata/uid", uid_of(said)),
            tests("/metadata/resourceVersion", said["a"]["metadata"]["resourceVersion"]),
            {"op": "add", "path": "/metadata/annotations", "value": {"example.com/n": "1"}},
            {"op": "replace", "path": "/data/k", "value": "w"},
        ),
        json_patch(CONFIG_MAPS, "a", tests("/metadata/resourceVersion", "1")),
        json_patch(
            CONFIG_MAPS,
            "a",
            tests("/metadata/annotations/example.com~1n", "1"),
            {"op": "remove", "path": "/metadata/annotations/example.com~1n"},
        ),
        json_patch(CONFIG_MAPS, "a", {"op": "remove", "path": "/data/absent"}),
        json_patch(CONFIG_MAPS, "a", {"op": "replace", "path": "/data/absent", "value": "x"}),
        json_patch(CONFIG_MAPS, "a", {"op": "add", "path": "/absent/k", "value": "x"}),
        json_patch(CONFIG_MAPS, "a", tests("/metadata/labels/none", "x")),
        get(CONFIG_MAPS, "a"),
    ],
    "generations and the status of our own kind": [
        post(MODEL_REPLICA_SETS, {**replica_set(), "status": {"replicas": 5}}),
        merge(MODEL_REPLICA_SETS, "a", {"metadata": {"labels": {"one": "1"}}}),
        merge(MODEL_REPLICA_SETS, "a", {"spec": {"replicas": 3}, "status": {"replicas": 3}}),
        lambda said: apply(
            MODEL_REPLICA_SETS,
            {
                **typed(MODEL_REPLICA_SETS, {"metadata": {"name": "a", "uid": uid_of(said)}}),
                "status": {"replicas": 2, "ready": "2/3"},
            },
            "status",
            by="status",
        ),
        apply(
            MODEL_REPLICA_SETS,
            {**typed(MODEL_REPLICA_SETS, {"metadata": {"name": "a"}}), "status": {"replicas": 1}},
            "status",
            by="status",
        ),
        merge(MODEL_REPLICA_SETS, "a", {"spec": {"replicas": 7}, "status": {"ready": "1/3"}}, "status"),
        get(MODEL_REPLICA_SETS, "a"),
    ],
    "generations and the status of a Deployment": [
        post(DEPLOYMENTS, {**deployment(), "status": {"replicas": 5}}),
        merge(DEPLOYMENTS, "a", {"metadata": {"annotations": {"example.com/n": "1"}}}),
        merge(DEPLOYMENTS, "a", {"spec": {"replicas": 4}}),
        merge(DEPLOYMENTS, "a", {"status": {"replicas": 4, "observedGeneration": 2}}, "status"),
    ],
    "objects without a generation": [
        post(SERVICES, typed(SERVICES, {"metadata": {"name": "a"}, "spec": {"ports": [{"port": 1}]}})),
        merge(SERVICES, "a", {"spec": {"ports": [{"port": 2}]}}),
    ],
    "a replacement of an old version": [
        post(LEASES, typed(LEASES, {"metadata": {"name": "a"}, "spec": {"holderIdentity": "one"}})),
        lambda said: put(LEASES, {**said["a"], "spec": {"holderIdentity": "two"}}),
        lambda said: put(
            LEASES,
            {
                **said["a"],
                "metadata": {**said["a"]["metadata"], "resourceVersion": "1"},
                "spec": {"holderIdentity": "three"},
            },
        ),
        lambda said: put(LEASES, {**said["a"], "spec": {"holderIdentity": "two"}}),
    ],
    "a deletion of another UID, and of this one": [
        post(CONFIG_MAPS, config()),
        delete(CONFIG_MAPS, "a", preconditions={"uid": "of-one-that-is-gone"}),
        lambda said: delete(CONFIG_MAPS, "a", preconditions={"uid": uid_of(said)}),
        get(CONFIG_MAPS, "a"),
    ],
    "a deletion that waits for a finalizer": [
        post(MODEL_REPLICA_SETS, {**replica_set(), "metadata": {"name": "a", "finalizers": [FINALIZER]}}),
        delete(MODEL_REPLICA_SETS, "a"),
        delete(MODEL_REPLICA_SETS, "a"),
        merge(MODEL_REPLICA_SETS, "a", {"spec": {"replicas": 3}}),
        json_patch(MODEL_REPLICA_SETS, "a", {"op": "remove", "path": "/metadata/finalizers"}),
        get(MODEL_REPLICA_SETS, "a"),
    ],
    "a deletion in the foreground": [
        post(CONFIG_MAPS, config()),
        delete(CONFIG_MAPS, "a", propagationPolicy="Foreground"),
        get(CONFIG_MAPS, "a"),
    ],
    "a pod that has no node": [
        post(PODS, pod()),
        delete(PODS, "a"),
        get(PODS, "a"),
    ],
    "a pod that has a node, and its grace": [
        post(PODS, pod(nodeName="n")),
        delete(PODS, "a"),
        delete(PODS, "a", gracePeriodSeconds=60),
        delete(PODS, "a", gracePeriodSeconds=5),
        delete(PODS, "a", gracePeriodSeconds=0),
        get(PODS, "a"),
    ],
    "a pod's own grace, and the end of one that has finished": [
        post(PODS, pod(nodeName="n", terminationGracePeriodSeconds=300)),
        delete(PODS, "a"),
        post(PODS, pod("b", nodeName="n")),
        merge(PODS, "b", {"status": {"phase": "Succeeded"}}, "status"),
        delete(PODS, "b"),
        get(PODS, "b"),
    ],
    "a pod with a gate": [
        post(PODS, pod(schedulingGates=[GATE])),
        merge(PODS, "a", {"spec": {"nodeSelector": {"example.com/zone": "a"}}}),
        json_patch(PODS, "a", {"op": "remove", "path": "/spec/schedulingGates"}),
        json_patch(PODS, "a", {"op": "add", "path": "/spec/schedulingGates", "value": [GATE]}),
        merge(PODS, "a", {"spec": {"nodeSelector": {"example.com/zone": "b"}}}),
        merge(PODS, "a", {"spec": {"priority": 7}}),
        merge(PODS, "a", {"metadata": {"annotations": {"example.com/n": "1"}}}),
    ],
    "evictions under a budget": [
        post(POD_DISRUPTION_BUDGETS, budget()),
        post(PODS, pod("a", nodeName="n")),
        post(PODS, pod("b", nodeName="n")),
        merge(PODS, "a", ready(), "status"),
        merge(PODS, "b", ready(), "status"),
        merge(
            POD_DISRUPTION_BUDGETS,
            "a",
            {
                "status": {
                    "observedGeneration": 1,
                    "expectedPods": 2,
                    "currentHealthy": 2,
                    "desiredHealthy": 1,
                    "disruptionsAllowed": 1,
                }
            },
            "status",
        ),
        post(PODS, eviction("a"), "eviction"),
        get(PODS, "a"),
        post(PODS, eviction("b"), "eviction"),
        get(PODS, "b"),
    ],
    "dry runs": [
        post(CONFIG_MAPS, config("a"), dryRun="All"),
        get(CONFIG_MAPS, "a"),
        post(CONFIG_MAPS, config("a")),
        post(CONFIG_MAPS, config("a"), dryRun="All"),
        post(MODEL_REPLICA_SETS, replica_set(), dryRun="All"),
        post(MODEL_REPLICA_SETS, unnamed(replica_set()), dryRun="All"),
        listed(MODEL_REPLICA_SETS),
    ],
    "lists with selectors": [
        post(CONFIG_MAPS, config("a", labels={"app": "x", "tier": "1"})),
        post(CONFIG_MAPS, config("b", labels={"app": "x"})),
        post(CONFIG_MAPS, config("c", labels={"app": "y", "tier": "2"})),
        listed(CONFIG_MAPS, labelSelector="app=x"),
        listed(CONFIG_MAPS, labelSelector="app=x,tier"),
        listed(CONFIG_MAPS, labelSelector="app in (x, z),!tier"),
        listed(CONFIG_MAPS, labelSelector="app notin (x),app!=z"),
        listed(CONFIG_MAPS, labelSelector="tier!=1,app"),
        listed(CONFIG_MAPS, fieldSelector="metadata.name=b"),
        listed(CONFIG_MAPS, labelSelector="app==="),
    ],
    "a list in pages": [
        *(post(CONFIG_MAPS, config(name, labels={"app": "x"})) for name in "abc"),
        listed(CONFIG_MAPS, labelSelector="app=x"),
        listed(CONFIG_MAPS, fieldSelector="metadata.name!=kube-root-ca.crt", limit=2),
        lambda said: listed(
            CONFIG_MAPS,
            fieldSelector="metadata.name!=kube-root-ca.crt",
            limit=2,
            **{"continue": said[""]["metadata"]["continue"]},
        ),
    ],
}
