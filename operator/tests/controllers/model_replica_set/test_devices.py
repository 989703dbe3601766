"""Sets that ask for devices of a class: what is seen of slices and claims, and what follows from it."""

from dataclasses import replace
from typing import Any

import pytest

from flotilla_operator.api.annotations import ANNOTATION_REBALANCE
from flotilla_operator.api.model_replica_set import ModelReplicaSet, ModelReplicaSetSpec
from flotilla_operator.cluster.caches import Caches
from flotilla_operator.cluster.writes import Apply, Create, Delete
from flotilla_operator.controllers.failures import corrected
from flotilla_operator.controllers.model_replica_set.act.records import Making, record
from flotilla_operator.controllers.model_replica_set.controller import ModelReplicaSetController
from flotilla_operator.controllers.model_replica_set.observe.memory import Memory
from flotilla_operator.controllers.model_replica_set.observe.observe import observe
from flotilla_operator.controllers.model_replica_set.reasons import Reason
from flotilla_operator.objects.refused_writes import RefusedWrite, WriteReason
from flotilla_operator.objects.resources import RESOURCE_CLAIMS, RESOURCE_SLICES, Key, resource_of
from flotilla_operator.placement.manifests import pinned_node
from flotilla_operator.replicas.rounds import Asks
from flotilla_operator.workloads.devices import ANNOTATION_DEVICES
from flotilla_operator.workloads.revision import revision_of
from flotilla_runtime import contract
from tests.builders.model_replica_set import OWNER, model_replica_set
from tests.builders.pods import NOW, engine_pod, stage_pod
from tests.builders.world import world
from tests.support.planned import Plan, plan_by
from tests.support.planned import plan_of_set as plan

API = "resource.k8s.io/v1"
DRIVER = "gpu.example"
RESOURCE = "devices/gpu?product=H100"


def dra(kind: str, name: str, **fields: Any) -> dict[str, Any]:
    metadata = {"name": name, "uid": f"uid-{name}", "resourceVersion": "1"}
    if kind.startswith("ResourceClaim"):
        metadata["namespace"] = "default"
    return {"apiVersion": API, "kind": kind, "metadata": metadata, **fields}


def device_class(expression: str = f"device.driver == '{DRIVER}'") -> dict[str, Any]:
    return dra("DeviceClass", "gpu", spec={"selectors": [{"cel": {"expression": expression}}]})


def resource_slice(node: str, product: str = "H100", count: int = 4) -> dict[str, Any]:
    attributes = {"product": {"string": product}}
    devices = [{"name": str(index), "attributes": attributes} for index in range(count)]
    pool = {"name": node, "generation": 1, "resourceSliceCount": 1}
    return dra(
        "ResourceSlice", node, spec={"driver": DRIVER, "nodeName": node, "pool": pool, "devices": devices}
    )


def resource_claim(name: str, node: str, count: int) -> dict[str, Any]:
    results = [{"driver": DRIVER, "pool": node, "device": str(index)} for index in range(count)]
    status = {"allocation": {"devices": {"results": results}}} if count else {}
    return dra("ResourceClaim", name, status=status)


def node(name: str) -> dict[str, Any]:
    allocatable = {"cpu": "64", "memory": "512Gi", "pods": "110"}
    conditions = [{"type": "Ready", "status": "True"}]
    status = {"allocatable": allocatable, "conditions": conditions}
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "status": status}


def on_devices(name: str = "llama", **spec: Any) -> dict[str, Any]:
    wanted = {
        "accelerator": {"deviceClass": {"name": "gpu", "attributes": {"product": "H100"}}},
        "parallelism": {"tensor": 4},
        "replicas": 1,
    }
    return model_replica_set(name, **{**wanted, **spec})


def spec_of_manifest(manifest: dict[str, Any]) -> ModelReplicaSetSpec:
    return ModelReplicaSet.model_validate(manifest).spec


def pinned_pod(*, claim: str | None = None, devices: str = f"4 {RESOURCE}") -> dict[str, Any]:
    pod = engine_pod("other-1", pin="a", owner_uid="uid-other")
    pod["metadata"]["annotations"][ANNOTATION_DEVICES] = devices
    pod["metadata"]["labels"][contract.LABEL_OWNER_KIND] = "ModelReplicaSet"
    if claim is not None:
        pod["status"]["resourceClaimStatuses"] = [{"name": "accelerators", "resourceClaimName": claim}]
    return {"apiVersion": "v1", "kind": "Pod", **pod}


async def planned(manifest: dict[str, Any], *around: dict[str, Any]) -> Plan:
    return plan(await observe(manifest, world(manifest, *around), Memory(), NOW), NOW)


def created(done: Plan, kind: str) -> list[dict[str, Any]]:
    return [w.manifest for w in done.writes if isinstance(w, Create) and w.manifest["kind"] == kind]


def condition(done: Plan, condition_type: str) -> tuple[str, str]:
    assert done.status is not None
    (found,) = (c for c in done.status["conditions"] if c["type"] == condition_type)
    return found["reason"], found["message"]


@pytest.mark.holds(
    "placement.md", "Devices are free when no claim of any namespace and no pinned pod has them"
)
@pytest.mark.holds(
    "placement.md",
    "Sets that ask for the same devices in other words know of each other once these are allocated",
)
@pytest.mark.parametrize(
    ("around", "free"),
    [
        pytest.param([], 4, id="nothing is held"),
        pytest.param([resource_claim("c", "a", 3)], 1, id="what claims hold, whoever has them"),
        pytest.param([resource_claim("c", "a", 0)], 4, id="a claim without devices holds none"),
        pytest.param([pinned_pod()], 0, id="a pinned pod whose claim does not exist yet"),
        pytest.param([pinned_pod(claim="c")], 0, id="a pinned pod whose claim is not seen yet"),
        pytest.param(
            [pinned_pod(claim="c"), resource_claim("c", "a", 0)],
            0,
            id="a pinned pod whose claim is not allocated yet",
        ),
        pytest.param(
            [pinned_pod(claim="c"), resource_claim("c", "a", 4)], 0, id="an allocated claim counts once"
        ),
        pytest.param([pinned_pod(devices="what?")], 4, id="an annotation that says nothing"),
        pytest.param([pinned_pod(devices="4 devices/gpu")], 4, id="another ask, until it is allocated"),
    ],
)
async def test_what_is_free_of_four(around: list[dict[str, Any]], free: int) -> None:
    set_ = on_devices()
    found = world(set_, node("a"), device_class(), resource_slice("a"), *around)
    seen = await observe(set_, found, Memory(), NOW)
    assert seen.around.free("a", RESOURCE) == free


@pytest.mark.holds(
    "placement.md",
    "A set can ask for devices of a class, each stage with a claim from a template of its revision",
)
async def test_a_group_gets_a_template_first_and_then_pods_that_name_it() -> None:
    done = await planned(on_devices(), node("a"), device_class(), resource_slice("a"))
    (template,), (pod,) = created(done, "ResourceClaimTemplate"), created(done, "Pod")
    kinds = [w.manifest["kind"] for w in done.writes if isinstance(w, Apply | Create)]
    assert kinds.index("ResourceClaimTemplate") < kinds.index("Pod")
    (claim,) = pod["spec"]["resourceClaims"]
    assert claim["resourceClaimTemplateName"] == template["metadata"]["name"]
    engine = next(c for c in pod["spec"]["containers"] if c["name"] == "engine")
    assert engine["resources"]["claims"] == [{"name": claim["name"]}]
    (request,) = template["spec"]["spec"]["devices"]["requests"]
    assert (request["exactly"]["deviceClassName"], request["exactly"]["count"]) == ("gpu", 4)
    assert pinned_node(pod["spec"]) == "a"
    (key,) = created(done, "Secret")
    made_first = {resource_of(one).ref_to(one) for one in (key, template, pod)}
    assert done.rests_on["Placed"] == made_first


async def test_pods_are_not_made_without_their_template_and_hold_no_room_then() -> None:
    done = await planned(on_devices(), node("a"), device_class(), resource_slice("a"))
    (template,) = created(done, "ResourceClaimTemplate")
    ref = resource_of(template).ref_to(template)
    pods = [w for w in done.writes if isinstance(w, Create) and w.manifest["kind"] == "Pod"]
    assert [ref in pod.needs for pod in pods] == [True]
    assert all(ref in rests_on for rests_on in done.rests_on.values()), "nor is it told that they were placed"


@pytest.mark.parametrize(
    ("slices", "failures"),
    [
        pytest.param(
            [resource_slice("a")], [0, 1, 2, 2, 2], id="a group is tried twice, then the set backs off"
        ),
        pytest.param([], [0, 0, 0], id="no group fits and none is tried"),
    ],
)
async def test_a_template_that_is_refused_fails_as_often_as_groups_are_tried(
    slices: list[dict[str, Any]], failures: list[int]
) -> None:
    set_, found = on_devices(), []
    for _ in failures:
        done = await planned(set_, node("a"), device_class(), *slices)
        assert done.status is not None
        found.append((done.status["backoff"] or {}).get("failures", 0))
        refusals = [
            RefusedWrite(ref=resource_of(one).ref_to(one), reason=WriteReason.FORBIDDEN, message="quota")
            for kind in ("ResourceClaimTemplate", "Pod")
            for one in created(done, kind)
        ]
        set_ = {**set_, "status": corrected(done.told, refusals, set_, NOW, done.rests_on).status}
    assert found == failures


@pytest.mark.holds(
    "placement.md", "A node without such a device is ProductMismatch, one with too few free InsufficientGPUs"
)
async def test_devices_of_another_product_are_counted_as_such() -> None:
    around = [
        *(node(name) for name in "abc"),
        device_class(),
        resource_slice("a", product="A100"),
        resource_slice("b", count=3),
    ]
    reason, message = condition(await planned(on_devices(), *around), "Placed")
    assert reason == Reason.NO_NODE_CAN_FIT
    assert f"1 replica waits for 4 {RESOURCE} on one node" in message
    assert "2 ProductMismatch, 1 InsufficientGPUs" in message
    assert "nodeProvisioning" not in message, "the API server refuses it beside a deviceClass"


@pytest.mark.holds(
    "placement.md",
    "A set can ask for devices of a class, each stage with a claim from a template of its revision",
)
async def test_templates_of_revisions_that_no_group_has_go() -> None:
    set_ = on_devices()
    first = await planned(set_, node("a"), device_class(), resource_slice("a"))
    (current,) = created(first, "ResourceClaimTemplate")
    owned = {"ownerReferences": [{"uid": set_["metadata"]["uid"], "kind": "x", "controller": True}]}
    names = [current["metadata"]["name"], "llama-devices-of-a-group", "llama-devices-old"]
    templates = [dra("ResourceClaimTemplate", name, spec={}) for name in names]
    for template in templates:
        template["metadata"].update(owned)
    pod = engine_pod("llama-1", pin="a", node="a", revision="of-a-group", ready=True)
    pod["metadata"]["ownerReferences"] = owned["ownerReferences"]
    pod = {"apiVersion": "v1", "kind": "Pod", **pod}
    done = await planned(set_, node("a"), device_class(), resource_slice("a"), pod, *templates)
    assert created(done, "ResourceClaimTemplate") == []
    gone = [w.ref.name for w in done.writes if isinstance(w, Delete) and w.ref.plural != "pods"]
    assert gone == ["llama-devices-old"]


async def test_a_set_that_went_back_to_its_last_good_revision_has_the_devices_of_that_one_counted() -> None:
    bad = {"deviceClass": {"name": "gpu", "attributes": {"product": "A100"}}}
    good, failed = on_devices(), on_devices(accelerator=bad)
    failed["status"] = {
        "rollout": {"goodRevision": "good", "failedRevision": revision_of(spec_of_manifest(failed))}
    }
    kept = record(OWNER, Making(revision="good", number=1, spec=spec_of_manifest(good)))
    done = await planned(failed, kept, node("a"), device_class(), resource_slice("a"))
    (template,), (pod,) = created(done, "ResourceClaimTemplate"), created(done, "Pod")
    assert template["metadata"]["name"] == "llama-devices-good"
    assert pod["metadata"]["annotations"][ANNOTATION_DEVICES] == f"4 {RESOURCE}"


async def test_two_sets_planned_in_one_moment_are_not_promised_the_same_devices() -> None:
    one, two = on_devices("one"), on_devices("two")
    found = world(one, two, node("a"), device_class(), resource_slice("a"))
    controller = ModelReplicaSetController()
    pods = []
    for name, manifest in (("one", one), ("two", two)):
        seen = await controller.observe(Key("ModelReplicaSet", "default", name), manifest, found, NOW)
        pods.append(created(plan_by(controller, replace(seen, asks=Asks(), last_round=None), NOW), "Pod"))
    assert [len(made) for made in pods] == [1, 0]


@pytest.mark.parametrize(
    ("manifest", "held", "woken"),
    [
        pytest.param(resource_slice("a"), True, True, id="a slice"),
        pytest.param(resource_claim("c", "a", 4), False, True, id="a claim that is gone"),
        pytest.param(resource_claim("c", "a", 0), True, True, id="a claim that holds nothing"),
        pytest.param(resource_claim("c", "a", 4), True, False, id="a claim that holds devices"),
    ],
)
def test_who_waits_is_woken_when_devices_come_or_are_given_back(
    manifest: dict[str, Any], held: bool, woken: bool
) -> None:
    waits = on_devices(status={"groupCounts": {"waiting": 1}})
    caches = Caches.of(waits, *([manifest] if held else []))
    resource = RESOURCE_SLICES if manifest["kind"] == "ResourceSlice" else RESOURCE_CLAIMS
    keys = list(ModelReplicaSetController().wakes(resource, manifest, caches))
    assert [key.name for key in keys] == (["llama"] if woken else [])


def rebalanced(places: dict[str, str], *, tensor: int, status: Any = None) -> list[dict[str, Any]]:
    """A set that is to be rebalanced, the pods of its groups that serve, and their claims."""
    parallelism = {"tensor": tensor, "pipeline": len(next(iter(places.values())))}
    manifest = on_devices(parallelism=parallelism, replicas=2)
    manifest["metadata"]["annotations"] = {ANNOTATION_REBALANCE: "apply"}
    if status is not None:
        manifest["status"] = status
    found = [manifest]
    for server_id, (name, nodes) in enumerate(places.items(), start=1):
        for stage, at in enumerate(nodes):
            fields: dict[str, Any] = {"group": name, "server_id": server_id, "stages": len(nodes)}
            pod = stage_pod(stage, pin=at, node=at, ready=True, **fields)
            pod["metadata"]["labels"] |= {
                contract.LABEL_REVISION: revision_of(spec_of_manifest(manifest)),
                contract.LABEL_OWNER_KIND: "ModelReplicaSet",
            }
            pod["metadata"]["annotations"][ANNOTATION_DEVICES] = f"{tensor} {RESOURCE}"
            claim = resource_claim(f"claim-{pod['metadata']['name']}", at, tensor)
            claim["metadata"]["ownerReferences"] = [{"kind": "Pod", "name": pod["metadata"]["name"]}]
            held = {"name": "accelerators", "resourceClaimName": claim["metadata"]["name"]}
            pod["status"]["resourceClaimStatuses"] = [held]
            found += [{"apiVersion": "v1", "kind": "Pod", **pod}, claim]
    return found


def device_nodes() -> list[dict[str, Any]]:
    """Two nodes of four devices in each of three racks."""
    found = [device_class()]
    for name, rack in zip("abcdef", "112233", strict=True):
        manifest = node(name)
        manifest["metadata"]["labels"] = {"topology.kubernetes.io/rack": rack}
        found += [manifest, resource_slice(name)]
    return found


def moving(done: Plan) -> tuple[str, list[tuple[list[str], list[str], bool]]]:
    assert done.status is not None
    placement = done.status["placement"]
    moves = [(move["fromNodes"], move["toNodes"], move["drainsFirst"]) for move in placement["moves"]]
    return placement["rebalance"]["phase"], moves


async def test_devices_that_are_scattered_are_brought_together() -> None:
    first = await planned(*rebalanced({"llama-a": "a", "llama-b": "b"}, tensor=2), *device_nodes())
    assert moving(first) == ("Moving", [(["a"], ["b"], False)])
    manifest, *around = rebalanced({"llama-a": "a", "llama-b": "b"}, tensor=2, status=first.status)
    second = await planned(manifest, *around, *device_nodes())
    assert [pinned_node(pod["spec"]) for pod in created(second, "Pod")] == ["b"]


async def test_a_group_that_keeps_a_node_waits_until_its_own_devices_are_given_back() -> None:
    places = {"llama-a": "ac", "llama-b": "ef"}
    first = await planned(*rebalanced(places, tensor=4), *device_nodes())
    assert moving(first) == ("Moving", [(["a", "c"], ["a", "b"], True)])
    manifest, *around = rebalanced(places, tensor=4, status=first.status)
    left = [one for one in around if one["kind"] != "Pod" or "llama-b" in one["metadata"]["name"]]
    second = await planned(manifest, *left, *device_nodes())
    assert (moving(second)[0], created(second, "Pod")) == ("Moving", [])

    manifest["status"] = second.status
    freed = [one for one in left if "llama-a" not in one["metadata"]["name"]]
    third = await planned(manifest, *freed, *device_nodes())
    assert [pinned_node(pod["spec"]) for pod in created(third, "Pod")] == ["a", "b"]
    taken = [*freed, resource_claim("foreign", "a", 4)]
    stopped = await planned(manifest, *taken, *device_nodes())
    assert moving(stopped)[0] == "Stopped"
