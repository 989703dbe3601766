"""Kubernetes quantities as whole numbers.

Placement only compares and adds amounts, so integers suffice: cpu in millicores, everything else in its own
unit (bytes, devices, pods). Fractions are rounded up, as the scheduler does with requests.
"""

from collections.abc import Iterable, Mapping
from decimal import ROUND_CEILING, Decimal, InvalidOperation

Amounts = Mapping[str, int]

CPU = "cpu"
MILLICORES_PER_CORE = 1000
SUFFIXES: Mapping[str, Decimal] = {
    "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30),
    "Ti": Decimal(2**40), "Pi": Decimal(2**50), "Ei": Decimal(2**60),
    "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"),
    "k": Decimal(10**3), "M": Decimal(10**6), "G": Decimal(10**9),
    "T": Decimal(10**12), "P": Decimal(10**15), "E": Decimal(10**18),
}  # fmt: skip


def quantity(text: str | int | float) -> Decimal:
    """The value of `500m`, `2Gi`, `1e3` or a bare number; raises ValueError for anything else."""
    spelled = str(text).strip()
    suffix = next((s for s in SUFFIXES if spelled.endswith(s)), "")
    try:
        return Decimal(spelled.removesuffix(suffix)) * SUFFIXES.get(suffix, Decimal(1))
    except InvalidOperation:
        raise ValueError(f"{text!r} is not a Kubernetes quantity") from None


def amount(resource: str, text: str | int | float) -> int:
    """A quantity of one resource as a whole number of its unit."""
    value = quantity(text) * (MILLICORES_PER_CORE if resource == CPU else 1)
    return int(value.to_integral_value(rounding=ROUND_CEILING))


def amounts(quantities: Mapping[str, str | int | float]) -> dict[str, int]:
    """A resource list, as under `resources.requests` or `status.allocatable`."""
    return {resource: amount(resource, text) for resource, text in quantities.items()}


def total(parts: Iterable[Amounts]) -> dict[str, int]:
    """The sum per resource."""
    result: dict[str, int] = {}
    for part in parts:
        for resource, value in part.items():
            result[resource] = result.get(resource, 0) + value
    return result


def largest(parts: Iterable[Amounts]) -> dict[str, int]:
    """The maximum per resource."""
    result: dict[str, int] = {}
    for part in parts:
        for resource, value in part.items():
            result[resource] = max(result.get(resource, 0), value)
    return result
