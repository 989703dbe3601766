"""Memory and number of a set's accelerators: from the spec, or from the nodes that could hold a replica.

Nodes with NVIDIA's feature discovery have a label that says it. If their labels differ, or one has none, the
memory is unknown: a guess could refuse a model that fits.
"""

from collections.abc import Iterator, Sequence

from flotilla_operator.placement import Node
from flotilla_operator.replicas.facts import Form
from flotilla_operator.replicas.surroundings import Surroundings

MEMORY_LABEL = "nvidia.com/gpu.memory"  # in MiB
MIB_PER_GIB = 1024
USUAL_PER_NODE = 8  # where no node says how many accelerators one can have


def memory_gib_of(form: Form, around: Surroundings) -> float | None:
    """The memory of one accelerator; None when it is not known."""
    spec = form.spec
    if spec.accelerator is None:
        return None
    if spec.accelerator.memory_gib is not None:
        return spec.accelerator.memory_gib
    return _labelled_gib([node for node, count in _chosen(form, around) if count >= spec.parallelism.tensor])


def most_on_a_node(form: Form, around: Surroundings) -> int:
    """The largest number of accelerators on one node."""
    return max((count for _, count in _chosen(form, around)), default=0) or USUAL_PER_NODE


def _chosen(form: Form, around: Surroundings) -> Iterator[tuple[Node, int]]:
    """The nodes that match the set's own requirements, each with its number of accelerators."""
    spec, resource = form.spec, form.accelerator
    if spec.accelerator is None or resource is None:
        return
    products, wishes = spec.accelerator.products, spec.placement.node_selector.items()
    for node in around.snapshot.topology.nodes:
        count = node.allocatable.get(resource, 0)
        named = any(node.labels.get(label) in products for label in around.policy.product_labels)
        if count and (named or not products) and wishes <= node.labels.items():
            yield node, count


def _labelled_gib(nodes: Sequence[Node]) -> float | None:
    said = {node.labels.get(MEMORY_LABEL, "") for node in nodes}
    only = next(iter(said), "")
    return int(only) / MIB_PER_GIB if len(said) == 1 and only.isdecimal() and int(only) else None
