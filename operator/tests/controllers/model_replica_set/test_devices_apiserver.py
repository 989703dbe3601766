"""Devices of Dynamic Resource Allocation through the real loop: slices made by hand on KWOK's nodes.

Claims are made by the real controller manager and allocated by the real scheduler. Where the API server
serves no devices: test_devices_not_served.py.
"""

from typing import Any

import pytest

from flotilla_operator.api.annotations import ANNOTATION_REBALANCE
from tests.controllers.model_replica_set.stage import Stage
from tests.support.waiting import eventually

pytestmark = [pytest.mark.apiserver, pytest.mark.timeout(600)]

GROUP = "/apis/resource.k8s.io/v1"


def device(name: str, product: str = "H100", **more: Any) -> dict[str, Any]:
    return {"name": name, "attributes": {"product": {"string": product}}, **more}


class Driver:
    """A driver of a test's own: its class, and slices made by hand."""

    def __init__(self, stage: Stage) -> None:
        self.stage, self.name = stage, f"{stage.namespace}.example"
        expression = f"device.driver == '{self.name}'"
        self._create("DeviceClass", self.name, {"selectors": [{"cel": {"expression": expression}}]})

    def offer(self, node: str, devices: list[dict[str, Any]], **spec: Any) -> None:
        pool = {"name": node, "generation": 1, "resourceSliceCount": 1}
        where = {} if "allNodes" in spec else {"nodeName": node}
        self._create(
            "ResourceSlice", node, {"driver": self.name, "pool": pool, "devices": devices, **where, **spec}
        )

    def _create(self, kind: str, name: str, spec: dict[str, Any]) -> None:
        path = {"DeviceClass": "deviceclasses", "ResourceSlice": "resourceslices"}[kind]
        manifest = {"apiVersion": "resource.k8s.io/v1", "kind": kind, "metadata": {"name": name}}
        self.stage.make(f"{GROUP}/{path}", {**manifest, "spec": spec})


def accelerator(driver: Driver, **attributes: str) -> dict[str, Any]:
    return {"deviceClass": {"name": driver.name, "attributes": attributes}}


def allocated(stage: Stage) -> list[tuple[str, int]]:
    """The pools from which claims got devices, with how many; a pool is called like its node."""
    claims = stage.client.get(f"{GROUP}/namespaces/{stage.namespace}/resourceclaims")["items"]
    found = [claim["status"]["allocation"]["devices"]["results"] for claim in claims if claim.get("status")]
    return sorted((results[0]["pool"], len(results)) for results in found)


@pytest.mark.holds(
    "placement.md",
    "A set can ask for devices of a class, each stage with a claim from a template of its revision",
)
def test_two_groups_get_the_devices_of_two_nodes_and_a_third_waits_and_says_why(stage: Stage) -> None:
    driver = Driver(stage)
    nodes = sorted(stage.node(name, gpus=0) for name in "ab")
    for node in nodes:
        driver.offer(node, [device(str(index)) for index in range(4)])
    other = stage.node("c", gpus=0)
    driver.offer(other, [device(str(index), product="A100") for index in range(4)])
    stage.create(replicas=3, accelerator=accelerator(driver, product="H100"))
    message = stage.wait("Placed", "False", "InsufficientCapacity")
    assert f"1 replica waits for 4 devices/{driver.name}?product=H100" in message
    assert "2 InsufficientGPUs" in message
    assert "1 ProductMismatch" in message
    eventually(lambda: stage.get()["status"].get("readyReplicas") == 2)
    assert sorted(pod["spec"]["nodeName"] for pod in stage.pods()) == nodes
    assert allocated(stage) == [(node, 4) for node in nodes]
    templates = stage.client.get(f"{GROUP}/namespaces/{stage.namespace}/resourceclaimtemplates")["items"]
    assert [t["metadata"]["ownerReferences"][0]["name"] for t in templates] == ["llama"]

    late = stage.node("d", gpus=0)
    driver.offer(late, [device(str(index)) for index in range(4)])
    stage.wait("Ready", "True")
    assert allocated(stage) == [(node, 4) for node in sorted([*nodes, late])]

    stage.change(replicas=1)
    eventually(lambda: len(allocated(stage)) == 1)
    stage.create("next", replicas=2, accelerator=accelerator(driver))
    stage.wait("Ready", "True", name="next")
    assert "GroupReleased" not in stage.events()


@pytest.mark.holds(
    "placement.md", "Devices are free when no claim of any namespace and no pinned pod has them"
)
def test_a_device_that_another_set_holds_is_not_free_whatever_it_is_asked_by(stage: Stage) -> None:
    driver = Driver(stage)
    driver.offer(stage.node("a", gpus=0), [device(str(index)) for index in range(4)])
    stage.create("one", replicas=1, accelerator=accelerator(driver))
    stage.wait("Ready", "True", name="one")
    stage.create("two", replicas=1, accelerator=accelerator(driver, product="H100"))
    stage.wait("Placed", "False", "InsufficientCapacity", "two")
    assert stage.pods("two") == []


@pytest.mark.holds(
    "placement.md", "Partitions, shared and tainted devices and incomplete pools are not counted"
)
def test_partitions_and_devices_for_several_count_as_not_free(stage: Stage) -> None:
    driver = Driver(stage)
    counters = {"name": "memory", "counters": {"memory": {"value": "80Gi"}}}
    part: dict[str, Any] = {
        "consumesCounters": [{"counterSet": "memory", "counters": {"memory": {"value": "10Gi"}}}]
    }
    parts = [device(str(index), **part) for index in range(4)]
    driver.offer(stage.node("parts", gpus=0), parts, sharedCounters=[counters])
    shared = [device(str(index), allowMultipleAllocations=True) for index in range(4)]
    driver.offer(stage.node("shared", gpus=0), shared)
    driver.offer(stage.node("nobodys", gpus=0), [device(str(index)) for index in range(4)], allNodes=True)
    stage.create(replicas=1, accelerator=accelerator(driver))
    message = stage.wait("Placed", "False", "NoNodeCanFit")
    assert "3 InsufficientGPUs" in message
    assert stage.pods() == []


@pytest.mark.holds(
    "placement.md", "A class that is missing, not countable or contradicts makes `SpecValid` False"
)
def test_a_class_that_is_missing_and_then_appears(stage: Stage) -> None:
    node = stage.node("a", gpus=0)
    name = f"{stage.namespace}.example"
    stage.create(replicas=1, accelerator={"deviceClass": {"name": name}})
    message = stage.wait("SpecValid", "False", "DeviceClassMissing")
    assert f"there is no DeviceClass '{name}'" in message
    Driver(stage).offer(node, [device(str(index)) for index in range(4)])
    stage.wait("Ready", "True")


@pytest.mark.holds("placement.md", "A replica of several stages moves whole and waits for devices")
def test_a_group_of_two_stages_moves_to_a_node_whose_devices_it_holds_itself(stage: Stage) -> None:
    """Its claims are given back some time after its pods are gone; until then there is no room, and that is
    no reason to stop.
    """
    driver = Driver(stage)
    first, other = stage.node("a", gpus=0, rack="r1"), stage.node("b", gpus=0, rack="r1")
    far = stage.node("c", gpus=0, rack="r2")
    together = [stage.node(name, gpus=0, rack="r3") for name in "ef"]
    four = [device(str(index)) for index in range(4)]
    for node in (first, far, *together):
        driver.offer(node, four)
    stage.create(parallelism={"tensor": 4, "pipeline": 2}, accelerator=accelerator(driver))
    stage.wait("Ready", "True")
    assert allocated(stage) == [(node, 4) for node in sorted([first, far, *together])]

    driver.offer(other, four)
    asked = {"metadata": {"annotations": {ANNOTATION_REBALANCE: "apply"}}}
    stage.client.merge(f"{stage.sets}/llama", asked)

    def phase() -> str:
        return str((stage.get()["status"]["placement"].get("rebalance") or {}).get("phase"))

    eventually(lambda: phase() in ("Done", "Stopped"))
    assert phase() == "Done", stage.notes()
    assert allocated(stage) == [(node, 4) for node in sorted([first, other, *together])]
    stage.wait("Ready", "True")
