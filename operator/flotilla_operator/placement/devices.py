"""Counts devices of Dynamic Resource Allocation (`resource.k8s.io/v1`) as one more resource of nodes.

A resource stands for whole devices of one class with equal attributes; `DeviceAsk.resource` is its name. A
node's `allocatable` gets the number of its devices, and each allocated device becomes a claim.

What cannot be counted exactly is taken as absent: partitions of a device, devices that several claims share,
tainted devices, devices that belong to no single node, pools with missing slices, and classes whose selectors
are more than equalities joined by `&&`.

Two asks can overlap, for example a class, and the same class with an attribute. Both know of a device in use
only once it is allocated. Until then the scheduler decides, and a group that does not get its devices is
placed again.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from flotilla_operator.placement.groups import Claim
from flotilla_operator.placement.topology import Node

Manifest = Mapping[str, Any]
Value = str | int | bool
Attribute = tuple[str, str]  # domain and name
DeviceId = tuple[str, str, str]  # driver, pool and name

TERM = re.compile(  # device.driver == "d", device.attributes["d"].a == "v", device.attributes["d"]["a"] == 1
    r"""
    (?: (?P<driver>device\.driver)
      | device\.attributes\[(?P<q1>["'])(?P<domain>[^"']+)(?P=q1)\]
        (?: \.(?P<dotted>\w+) | \[(?P<q2>["'])(?P<keyed>[^"']+)(?P=q2)\] )
    )
    \s* == \s*
    (?: (?P<q3>["'])(?P<text>[^"']*)(?P=q3) | (?P<word>true|false|-?\d+) )
    """,
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class DeviceAsk:
    """A device class and the attributes that its devices must have; values are texts, as in a set's spec."""

    class_name: str
    attributes: tuple[tuple[str, str], ...] = ()

    @property
    def resource(self) -> str:
        """The resource name under which placement counts these devices."""
        wanted = ",".join(f"{name}={value}" for name, value in sorted(self.attributes))
        return f"devices/{self.class_name}" + (f"?{wanted}" if wanted else "")


@dataclass(frozen=True, slots=True)
class DeviceClass:
    """Selection of a device class: devices of one driver that have certain attributes."""

    name: str
    driver: str | None
    attributes: Mapping[Attribute, Value]

    def all_wanted(self, ask: DeviceAsk) -> Mapping[Attribute, Value] | None:
        """The attributes of the class and of the ask together.

        None when the two contradict each other, or when an attribute has no domain and the class names no
        driver to take it from.
        """
        wanted = dict(self.attributes)
        for name, text in ask.attributes:
            attribute = _qualified(name, self.driver)
            if attribute is None or wanted.setdefault(attribute, _typed(text)) != _typed(text):
                return None
        return wanted


@dataclass(frozen=True, slots=True)
class Device:
    """A whole device on a node."""

    id: DeviceId
    node: str
    attributes: Mapping[Attribute, Value]

    def has(self, driver: str | None, wanted: Mapping[Attribute, Value]) -> bool:
        """Whether the class and the ask select this device. Types must match: true does not equal 1."""
        if driver is not None and driver != self.id[0]:
            return False
        return all(
            self.attributes.get(attribute) == value and type(self.attributes[attribute]) is type(value)
            for attribute, value in wanted.items()
        )


def device_class_of(manifest: Manifest) -> DeviceClass | None:
    """Reads a DeviceClass; None when its selectors are more than equalities joined by `&&`."""
    driver: str | None = None
    attributes: dict[Attribute, Value] = {}
    for selector in (manifest.get("spec") or {}).get("selectors") or ():
        for term in ((selector.get("cel") or {}).get("expression") or "").split("&&"):
            found = TERM.fullmatch(term.strip())
            if found is None:
                return None
            value = found["text"] if found["word"] is None else _typed(found["word"])
            if found["driver"]:
                if driver not in (None, value):
                    return None
                driver = str(value)
            else:
                attributes[found["domain"], found["dotted"] or found["keyed"]] = value
    return DeviceClass(manifest["metadata"]["name"], driver, attributes)


def whole_devices(slices: Iterable[Manifest]) -> list[Device]:
    """The devices that can be counted, of the newest generation of each pool that is completely known."""
    pools: dict[tuple[str, str], list[Manifest]] = {}
    for one in slices:
        spec = one["spec"]
        pools.setdefault((spec["driver"], spec["pool"]["name"]), []).append(spec)
    devices: list[Device] = []
    for specs in pools.values():
        newest = max(spec["pool"]["generation"] for spec in specs)
        current = [spec for spec in specs if spec["pool"]["generation"] == newest]
        if all(spec["pool"]["resourceSliceCount"] == len(current) for spec in current):
            devices += [
                device for spec in current if spec.get("nodeName") for device in _whole_devices_of(spec)
            ]
    return sorted(devices, key=lambda device: device.id)


def allocated_devices(claims: Iterable[Manifest]) -> frozenset[DeviceId]:
    """The devices that resource claims hold; a claim with admin access holds none."""
    return frozenset(
        (result["driver"], result["pool"], result["device"])
        for claim in claims
        for result in (
            (((claim.get("status") or {}).get("allocation") or {}).get("devices") or {}).get("results") or ()
        )
        if not result.get("adminAccess")
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """The devices that exist for one ask, and which of them are allocated."""

    ask: DeviceAsk
    devices: tuple[Device, ...]
    allocated: frozenset[DeviceId]

    @classmethod
    def of(
        cls,
        ask: DeviceAsk,
        device_class: DeviceClass | None,
        devices: Sequence[Device],
        allocated: frozenset[DeviceId],
    ) -> "Inventory":
        """The devices that the ask selects; none when the class is unknown or cannot be read."""
        wanted = None if device_class is None else device_class.all_wanted(ask)
        if device_class is None or wanted is None:
            return cls(ask=ask, devices=(), allocated=frozenset())
        fitting = tuple(device for device in devices if device.has(device_class.driver, wanted))
        return cls(ask=ask, devices=fitting, allocated=allocated & {device.id for device in fitting})

    @property
    def claims(self) -> list[Claim]:
        """One claim for each allocated device, whoever holds it."""
        return [
            Claim(node=device.node, requests={self.ask.resource: 1}, of_pod=False)
            for device in self.devices
            if device.id in self.allocated
        ]


def with_devices(nodes: Iterable[Node], inventories: Sequence[Inventory]) -> list[Node]:
    """The nodes, with the devices of each ask added to their `allocatable`."""
    more: dict[str, dict[str, int]] = {}
    for inventory in inventories:
        for device in inventory.devices:
            amounts = more.setdefault(device.node, {})
            amounts[inventory.ask.resource] = amounts.get(inventory.ask.resource, 0) + 1
    return [
        replace(node, allocatable={**node.allocatable, **more[node.name]}) if node.name in more else node
        for node in nodes
    ]


def device_request(ask: DeviceAsk, device_class: DeviceClass, count: int) -> dict[str, Any]:
    """The request of a claim template that makes the scheduler choose the same devices."""
    expressions = []
    for name, text in sorted(ask.attributes):
        attribute = _qualified(name, device_class.driver)
        if attribute is not None:
            there = f'device.attributes["{attribute[0]}"]'
            expressions.append(
                f'"{attribute[1]}" in {there} && {there}["{attribute[1]}"] == {_literal(_typed(text))}'
            )
    exactly: dict[str, Any] = {
        "deviceClassName": ask.class_name,
        "allocationMode": "ExactCount",
        "count": count,
    }
    if expressions:
        exactly["selectors"] = [{"cel": {"expression": expression}} for expression in expressions]
    return {"name": "accelerators", "exactly": exactly}


def _whole_devices_of(spec: Manifest) -> list[Device]:
    found = []
    for device in spec.get("devices") or ():
        taints = device.get("taints") or ()
        kept_away = any(taint.get("effect") in ("NoSchedule", "NoExecute") for taint in taints)
        if device.get("consumesCounters") or device.get("allowMultipleAllocations") or kept_away:
            continue
        attributes = {
            attribute: value
            for name, typed in (device.get("attributes") or {}).items()
            if (attribute := _qualified(name, spec["driver"])) is not None
            and (value := next((typed[kind] for kind in ("string", "int", "bool") if kind in typed), None))
            is not None
        }
        identity = (spec["driver"], spec["pool"]["name"], device["name"])
        found.append(Device(identity, spec["nodeName"], attributes))
    return found


def _qualified(name: str, domain: str | None) -> Attribute | None:
    """The domain and name of an attribute. Without a domain it belongs to the driver."""
    before, slash, after = name.rpartition("/")
    if slash:
        return before, after
    return (domain, name) if domain is not None else None


def _typed(text: str) -> Value:
    """The value that a text in a spec means: `true`, `false` and whole numbers are not taken as text."""
    if text in ("true", "false"):
        return text == "true"
    return int(text) if re.fullmatch(r"-?\d+", text) else text


def _literal(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int) else f'"{value}"'
