"""The gateways of fleets: what they say of the tasks that a test plays."""

from dataclasses import dataclass, field

from flotilla_operator.objects.resources import Manifest
from flotilla_runtime import contract


@dataclass(slots=True)
class PlayedTasks:
    """The tasks of one fleet by revision, how many each worker pod holds, and what workers say of tools.

    `requests` are the calls that wait for tool executors or that these run, by revision.
    """

    revisions: dict[str, contract.RevisionTasks] = field(default_factory=dict)
    workers: dict[str, int] = field(default_factory=dict)
    tools: tuple[contract.ToolReport, ...] = ()
    requests: dict[str, contract.ToolRequestsOfRevision] = field(default_factory=dict)

    def are(self, revision: str, *, waiting: int = 0, running: int = 0, suspended: int = 0) -> None:
        """From now on a revision has these."""
        self.revisions[revision] = contract.RevisionTasks(
            waiting=waiting, running=running, suspended=suspended
        )

    def status(self, fleet: str) -> contract.FleetStatus:
        """Answer of a gateway."""
        found = self.revisions.values()
        return contract.FleetStatus(
            fleet=fleet,
            waiting=sum(tasks.waiting for tasks in found),
            in_flight=sum(tasks.running for tasks in found),
            suspended=sum(tasks.suspended for tasks in found),
            revisions={name: tasks for name, tasks in self.revisions.items() if tasks != NONE},
            workers=self.workers,
            tools=self.tools,
            tool_requests=contract.ToolRequestFigures(revisions=self.requests),
        )


NONE = contract.RevisionTasks()


class Gateways:
    """Answers as `of` says for the fleet; without a word of the test it has no task."""

    def __init__(self) -> None:
        self._tasks: dict[str, PlayedTasks] = {}

    def of(self, name: str) -> PlayedTasks:
        """The tasks of this fleet."""
        return self._tasks.setdefault(name, PlayedTasks())

    def answer(self, gateway: Manifest) -> bytes:
        name = gateway["metadata"]["labels"][contract.LABEL_OWNER_NAME]
        return self.of(name).status(name).model_dump_json(by_alias=True).encode()
