"""Requirements of a waiting replica on nodes, as its placeholders request them of a node autoscaler."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flotilla_operator.objects.hashes import stable_hash
from flotilla_operator.objects.quantities import Amounts


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceholderShape:
    """Requirements of a waiting replica on nodes, as its placeholders request them.

    One of the `product_labels` of a node must have one of the values in `products`. `pack_within` and
    `spread_across` are set only where they are required.
    """

    requests: Amounts
    stages: int = 1
    node_selector: Mapping[str, str]
    tolerations: Sequence[Mapping[str, Any]]
    products: frozenset[str]
    product_labels: tuple[str, ...]
    claims: Sequence[Mapping[str, Any]] = ()
    pack_within: str | None = None
    spread_across: str | None = None
    runtime_class: str | None = None

    @property
    def hash(self) -> str:
        """A hash that identifies the shape; placeholders with another shape cannot be used."""
        return stable_hash(
            [
                dict(self.requests),
                self.stages,
                dict(self.node_selector),
                list(self.tolerations),
                sorted(self.products),
                list(self.product_labels),
                list(self.claims),
                self.pack_within,
                self.spread_across,
                *((self.runtime_class,) if self.runtime_class is not None else ()),
            ]
        )
