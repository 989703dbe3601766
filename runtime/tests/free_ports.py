"""Ports for servers that a test starts before it knows whether they listen."""

from local_cluster.processes import free_port


def free_ports(count: int) -> list[int]:
    """So many free ports, all different."""
    found: dict[int, None] = {}
    while len(found) < count:
        found[free_port()] = None
    return list(found)
