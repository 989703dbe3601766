"""The checkpoints of tasks' graphs, in Redis.

The script that writes finds the space of the task's checkpoints by itself, and checks the fencing token. So a
task reaches no other one's, and a worker that lost it writes nothing. They end with the task, or with its
conversation.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from flotilla_runtime.agent.errors import LeaseLostError
from flotilla_runtime.agent.protocols import CheckpointChange, Checkpointed
from flotilla_runtime.agent.store.redis_errors import asked
from flotilla_runtime.agent.store.stored_tasks import StoredTasks
from flotilla_runtime.agent.tasks import Claim

MOST_CHECKPOINT_BYTES: Final = 16 * 2**20  # of a task, or of a conversation
READ_AT_ONCE: Final = 200  # fields
FIRST_OF_FIELD: Final = "["  # of the names that graphs give; what the script notes has others


class CheckpointTasks(StoredTasks):
    """The checkpoints of a fleet's tasks."""

    async def checkpoint(self, claim: Claim, change: CheckpointChange) -> Checkpointed:
        """Change the checkpoints of the task's graph, or of its conversation's: all or nothing."""
        answer = await self._run(
            "checkpoint",
            claim.id,
            claim.token,
            round(self._config.lease_seconds * 1000),
            await self._share(),
            MOST_CHECKPOINT_BYTES,
            len(change.put),
            len(change.add),
            *_flat(change.put),
            *_flat(change.add),
            *change.drop,
        )
        return read_checkpointed(claim, answer)

    async def checkpoint_fields(self, space: str) -> list[str]:
        """The names of what a graph has kept in this space."""
        names: Any = await asked(self._client.hkeys(self.keys.checkpoints(space)))
        return [name for name in names if name.startswith(FIRST_OF_FIELD)]

    async def checkpoint_texts(self, space: str, fields: Sequence[str]) -> list[str | None]:
        """The texts of these fields; None for one that is not there."""
        texts: list[str | None] = []
        for start in range(0, len(fields), READ_AT_ONCE):
            some = list(fields[start : start + READ_AT_ONCE])
            found: Any = await asked(self._client.hmget(self.keys.checkpoints(space), some))
            texts += found
        return texts


def read_checkpointed(claim: Claim, answer: Sequence[str]) -> Checkpointed:
    """Read the result of a change; raises LeaseLostError where another worker holds the task."""
    match answer:
        case ["Written", stored]:
            return Checkpointed(bytes=int(stored))
        case ["Full", wanted]:
            problem = f"they would have {wanted} bytes, and at most {MOST_CHECKPOINT_BYTES} are stored"
            return Checkpointed(problem=problem, is_too_large=True)
        case ["NoRoom", committed, most, wanted]:
            return Checkpointed(
                problem=f"the tasks of this caller hold {committed} bytes of the {most} that are their share "
                f"of the store (gateway.callerLimits.queuePercent), and {wanted} more are needed"
            )
    raise LeaseLostError(claim.id)


def _flat(texts: Mapping[str, str]) -> list[str]:
    return [part for pair in texts.items() for part in pair]
