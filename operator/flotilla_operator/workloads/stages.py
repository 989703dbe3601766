"""The stages of a group, and how its pods find their leader.

The leader's pod has the name of its group, so the pod can be looked up by the group's name. The names of the
others end in their number. The leader has a DNS name in the set's headless service as soon as it exists.
"""

from dataclasses import dataclass


def pod_name_of(group: str, stage: int) -> str:
    """The name of the pod of one stage of a group."""
    return group if stage == 0 else f"{group}-{stage}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Stage `number` of `count` of a group; `service` is the headless service with the leaders' DNS names."""

    group: str
    number: int
    count: int
    service: str
    namespace: str

    @property
    def leads(self) -> bool:
        """Whether this stage is the leader, which serves for the group."""
        return self.number == 0

    @property
    def comes_last(self) -> bool:
        """Whether this stage's pod is created last, when all others exist."""
        return self.number == self.count - 1

    @property
    def pod_name(self) -> str:
        """The name of this stage's pod."""
        return pod_name_of(self.group, self.number)

    @property
    def leader_address(self) -> str:
        """The address of the leader for the other stages."""
        return f"{self.group}.{self.service}.{self.namespace}.svc"
