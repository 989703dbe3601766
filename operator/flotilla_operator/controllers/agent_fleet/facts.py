"""The input of a fleet's conditions."""

from dataclasses import dataclass

from flotilla_operator.api.fleet_queue import RedisMode
from flotilla_operator.controllers.agent_fleet.decide import Decision
from flotilla_operator.controllers.agent_fleet.seen import Observed
from flotilla_operator.objects.resources import DEPLOYMENTS
from flotilla_operator.workloads import agent_fleet as workloads


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The input of the conditions: what was observed, and what was decided."""

    observed: Observed
    decision: Decision

    @property
    def managed(self) -> bool:
        return self.observed.spec.queue.redis.mode is RedisMode.MANAGED

    @property
    def ready_gateways(self) -> int:
        name = workloads.gateway(self.observed.owner).name
        return self.observed.ready_replicas(DEPLOYMENTS.kind, name)
