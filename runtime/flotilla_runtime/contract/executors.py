"""The contract for tool executors: the pods that run a fleet's Python functions, and their queue in Redis."""

from typing import Final

from flotilla_runtime.contract.fleet import QueueConfig, TaskKeys, ToolConfig, ValidatorConfig
from flotilla_runtime.contract.names import PORT_METRICS
from flotilla_runtime.contract.sections import Section

EXECUTOR_QUEUE: Final = "tools:"  # what an executor's user of Redis may read and write begins so


class ExecutorConfig(Section):
    """`config.json` of the tool executors.

    `tools` are those with a function of the fleet's image; of the `validators`, those in Python count. An
    executor takes the requests of workers of its own `revision`. After SIGTERM the functions that run have
    `handover_seconds` to end.
    """

    queue: QueueConfig
    tools: tuple[ToolConfig, ...] = ()
    validators: tuple[ValidatorConfig, ...] = ()
    revision: str = ""
    concurrency: int = 50
    handover_seconds: float = 45
    metrics_port: int = PORT_METRICS


class ExecutorKeys:
    """The names of the keys of the executors' queue, in the same hash tag as all of the fleet's."""

    def __init__(self, fleet: str) -> None:
        self.prefix: Final = f"{TaskKeys(fleet).prefix}{EXECUTOR_QUEUE}"

    def calls(self, revision: str) -> str:
        """The list from which an idle executor takes one call for each request that comes."""
        return f"{self.prefix}calls@{revision}"

    def inbox(self, process: str) -> str:
        """The list of the requests of which a worker or an executor has something to hear."""
        return f"{self.prefix}inbox:{process}"

    @property
    def queues(self) -> str:
        """The sorted set of the revisions that have requests, by the time of the last one."""
        return f"{self.prefix}queues"

    @property
    def confirmations(self) -> str:
        """The number that is raised before a replica is asked whether it has everything up to there."""
        return f"{self.prefix}confirmations"
