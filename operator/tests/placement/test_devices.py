"""Slices, claims and classes of resource.k8s.io/v1 become a resource that is counted on nodes."""

from typing import Any

import pytest

from flotilla_operator.placement import Claim, Group, Snapshot, Topology, place
from flotilla_operator.placement.devices import (
    DeviceAsk,
    DeviceClass,
    Inventory,
    allocated_devices,
    device_class_of,
    device_request,
    whole_devices,
    with_devices,
)
from tests.builders.placement import POLICY, node

DRIVER = "gpu.example.com"
GPUS = DeviceClass("gpu", DRIVER, {})
ANY = DeviceAsk("gpu")


def device(name: str, product: str = "H100", **more: Any) -> dict[str, Any]:
    return {"name": name, "attributes": {"product": {"string": product}}, **more}


def resource_slice(
    *devices: dict[str, Any],
    node_name: str = "a",
    pool: str = "a",
    generation: int = 1,
    slices: int = 1,
    **more: Any,
) -> dict[str, Any]:
    spec = {
        "driver": DRIVER,
        "nodeName": node_name,
        "pool": {"name": pool, "generation": generation, "resourceSliceCount": slices},
        "devices": list(devices),
    }
    return {"spec": {**spec, **more}}


def resource_claim(*names: str, pool: str = "a", **more: Any) -> dict[str, Any]:
    results = [{"driver": DRIVER, "pool": pool, "device": name, "request": "r", **more} for name in names]
    return {"status": {"allocation": {"devices": {"results": results}}}}


@pytest.mark.holds(
    "placement.md", "Partitions, shared and tainted devices and incomplete pools are not counted"
)
@pytest.mark.parametrize(
    ("slices", "names"),
    [
        pytest.param([resource_slice(device("0"), device("1"))], ["0", "1"], id="whole devices"),
        pytest.param(
            [resource_slice(device("0", consumesCounters=[{"counterSet": "c"}]), device("1"))],
            ["1"],
            id="a partition is none",
        ),
        pytest.param(
            [resource_slice(device("0", allowMultipleAllocations=True), device("1"))],
            ["1"],
            id="nor a shared one",
        ),
        pytest.param(
            [
                resource_slice(
                    device("0", taints=[{"key": "broken", "effect": "NoSchedule"}]),
                    device("1", taints=[{"key": "note", "effect": "None"}]),
                )
            ],
            ["1"],
            id="nor a tainted one",
        ),
        pytest.param(
            [resource_slice(device("0"), nodeName=None, allNodes=True)], [], id="one that every node reaches"
        ),
        pytest.param(
            [resource_slice(device("0", nodeName="a"), nodeName=None, perDeviceNodeSelection=True)],
            [],
            id="one that says its node itself",
        ),
        pytest.param(
            [resource_slice(device("0"), slices=2), resource_slice(device("1"), slices=2)],
            ["0", "1"],
            id="a pool of two slices",
        ),
        pytest.param([resource_slice(device("0"), slices=2)], [], id="half of a pool"),
        pytest.param(
            [resource_slice(device("0")), resource_slice(device("1"), generation=2)],
            ["1"],
            id="only the newest generation",
        ),
    ],
)
def test_devices_that_can_be_counted(slices: list[dict[str, Any]], names: list[str]) -> None:
    assert [found.id[2] for found in whole_devices(slices)] == names


@pytest.mark.parametrize(
    ("expressions", "expected"),
    [
        pytest.param([], DeviceClass("gpu", None, {}), id="no selector"),
        pytest.param([f"device.driver == '{DRIVER}'"], GPUS, id="a driver"),
        pytest.param(
            [f"device.driver == '{DRIVER}' && device.attributes['{DRIVER}'].type == 'gpu'"],
            DeviceClass("gpu", DRIVER, {(DRIVER, "type"): "gpu"}),
            id="a driver and an attribute",
        ),
        pytest.param(
            [f'device.attributes["{DRIVER}"]["index"] == 3', f'device.attributes["{DRIVER}"].ecc == true'],
            DeviceClass("gpu", None, {(DRIVER, "index"): 3, (DRIVER, "ecc"): True}),
            id="two selectors, a number and a truth value",
        ),
        pytest.param(["device.driver == 'a' || device.driver == 'b'"], None, id="a choice"),
        pytest.param(["device.driver != 'a'"], None, id="a negation"),
        pytest.param(["device.driver == 'a' && device.driver == 'b'"], None, id="two drivers"),
        pytest.param([""], None, id="an empty expression"),
        pytest.param(
            ["device.capacity['d'].memory.compareTo(quantity('40Gi')) >= 0"], None, id="a comparison"
        ),
    ],
)
def test_classes(expressions: list[str], expected: DeviceClass | None) -> None:
    selectors = [{"cel": {"expression": expression}} for expression in expressions]
    assert device_class_of({"metadata": {"name": "gpu"}, "spec": {"selectors": selectors}}) == expected


SLICES = [
    resource_slice(device("0"), device("1"), device("2", product="A100")),
    resource_slice(device("0", product="A100"), node_name="b", pool="b"),
]


@pytest.mark.holds("placement.md", "Attributes are compared as text, number or truth value")
@pytest.mark.parametrize(
    ("ask", "device_class", "allocatable", "held"),
    [
        pytest.param(ANY, GPUS, {"a": 3, "b": 1}, {"a": 1}, id="every device of the class"),
        pytest.param(
            DeviceAsk("gpu", (("product", "H100"),)), GPUS, {"a": 2}, {"a": 1}, id="with an attribute"
        ),
        pytest.param(
            DeviceAsk("gpu", ((f"{DRIVER}/product", "A100"),)),
            GPUS,
            {"a": 1, "b": 1},
            {},
            id="with an attribute and its domain",
        ),
        pytest.param(
            DeviceAsk("gpu", (("product", "H100"),)),
            DeviceClass("gpu", DRIVER, {(DRIVER, "product"): "A100"}),
            {},
            {},
            id="an ask against the class",
        ),
        pytest.param(
            DeviceAsk("gpu", (("product", "H100"),)),
            DeviceClass("gpu", None, {}),
            {},
            {},
            id="an attribute of nobody knows which driver",
        ),
        pytest.param(ANY, DeviceClass("gpu", "other", {}), {}, {}, id="another driver"),
        pytest.param(ANY, None, {}, {}, id="a class that cannot be read"),
    ],
)
def test_inventories(
    ask: DeviceAsk, device_class: DeviceClass | None, allocatable: dict[str, int], held: dict[str, int]
) -> None:
    allocated = allocated_devices(
        [resource_claim("0"), resource_claim("1", adminAccess=True), {"status": {}}]
    )
    inventory = Inventory.of(ask, device_class, whole_devices(SLICES), allocated)
    nodes = with_devices([node("a"), node("b"), node("c")], [inventory])
    shown = {n.name: n.allocatable[ask.resource] for n in nodes if ask.resource in n.allocatable}
    assert shown == allocatable
    assert inventory.claims == [Claim(node=name, requests={ask.resource: 1}, of_pod=False) for name in held]


@pytest.mark.holds(
    "placement.md", "A node without such a device is ProductMismatch, one with too few free InsufficientGPUs"
)
def test_groups_are_placed_on_devices() -> None:
    inventory = Inventory.of(ANY, GPUS, whole_devices(SLICES), allocated_devices([resource_claim("0")]))
    nodes = with_devices([node("a"), node("b")], [inventory])
    waiting = [
        Group(
            owner="default/llama",
            name=name,
            accelerator=ANY.resource,
            requests={ANY.resource: count, "cpu": 1000},
            waiting_since_seconds=0,
        )
        for name, count in (("pair", 2), ("another-pair", 2))
    ]
    done = place(Snapshot(topology=Topology.of(nodes), claims=tuple(inventory.claims)), waiting, POLICY, 0)
    assert [(b.group.name, b.nodes) for b in done.bindings] == [("another-pair", ("a",))]
    assert done.refusals[0].message == "0/2 nodes fit: 2 InsufficientGPUs"


@pytest.mark.holds("placement.md", "Attributes are compared as text, number or truth value")
@pytest.mark.parametrize(
    ("ask", "expressions"),
    [
        pytest.param(ANY, [], id="the class says it all"),
        pytest.param(
            DeviceAsk("gpu", (("product", "H100"), ("index", "3"), ("d/ecc", "true"))),
            [
                '"ecc" in device.attributes["d"] && device.attributes["d"]["ecc"] == true',
                f'"index" in device.attributes["{DRIVER}"] && device.attributes["{DRIVER}"]["index"] == 3',
                f'"product" in device.attributes["{DRIVER}"] && '
                f'device.attributes["{DRIVER}"]["product"] == "H100"',
            ],
            id="text, number and truth value",
        ),
    ],
)
def test_the_request_asks_for_the_same_devices(ask: DeviceAsk, expressions: list[str]) -> None:
    exactly = device_request(ask, GPUS, 4)["exactly"]
    assert (exactly["deviceClassName"], exactly["count"]) == ("gpu", 4)
    assert [s["cel"]["expression"] for s in exactly.get("selectors", ())] == expressions
