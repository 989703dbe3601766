"""The stages of a group: which one a pod is, and how the pods of one group find each other.

The leader's pod is called like its group, so what is said of a group can be looked up by its name; the others
add their number. The leader has a name in the set's headless service, from its first moment on.
"""

from dataclasses import dataclass


def pod_name_of(group: str, stage: int) -> str:
    """The name of the pod of a group's stage."""
    return group if stage == 0 else f"{group}-{stage}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Stage `number` of `count` of a group; `service` is the headless service that gives leaders names."""

    group: str
    number: int
    count: int
    service: str
    namespace: str

    @property
    def leads(self) -> bool:
        """Whether it answers for the group."""
        return self.number == 0

    @property
    def comes_last(self) -> bool:
        """Whether its pod is created when those of all others exist."""
        return self.number == self.count - 1

    @property
    def pod_name(self) -> str:
        """The name of its pod."""
        return pod_name_of(self.group, self.number)

    @property
    def leader_address(self) -> str:
        """Where the others meet the leader."""
        return f"{self.group}.{self.service}.{self.namespace}.svc"
