"""The checkpoints of one run, for graphs: what they keep between their steps.

They are no calls, and stand beside the journal. A worker that lost the task writes none, and a run that has
stopped neither. A stop waits for a write under way as it does for a call.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, Final, TypeVar

from flotilla_runtime.agent.engine.pace import LOST, Pace
from flotilla_runtime.agent.errors import LeaseLostError, StoreUnavailableError
from flotilla_runtime.agent.failures import TaskFailedError
from flotilla_runtime.agent.journal import EndReason
from flotilla_runtime.agent.protocols import CheckpointChange, TaskJournal
from flotilla_runtime.agent.tasks import Claim, checkpoint_space

Answer = TypeVar("Answer")


class Checkpoints:
    """The checkpoints of a task's graph: texts by the names of their fields.

    `thread` names what they belong to: the task, or the conversation that it is in.
    """

    def __init__(self, claim: Claim, journal: TaskJournal, pace: Pace, conversation: str | None) -> None:
        self.thread: Final = conversation or claim.id
        self._claim = claim
        self._journal = journal
        self._pace = pace
        self._space = checkpoint_space(claim.id, conversation)

    async def write(self, change: CheckpointChange) -> int:
        """Write a change; the bytes that there are then. Raises TaskFailedError for want of room."""
        written = await self._pace.guarded(self._until_stopped(self._journal.checkpoint(self._claim, change)))
        if written.problem is None:
            return written.bytes
        reason = EndReason.INVALID if written.is_too_large else EndReason.INFRASTRUCTURE
        raise TaskFailedError(reason, f"the graph's checkpoints cannot be stored: {written.problem}")

    async def fields(self) -> Sequence[str]:
        """The names of all that is there."""
        return await self._pace.guarded(self._until_stopped(self._journal.checkpoint_fields(self._space)))

    async def texts(self, fields: Sequence[str]) -> Sequence[str | None]:
        """The texts of these fields."""
        if not fields:
            return ()
        reading = self._journal.checkpoint_texts(self._space, fields)
        return await self._pace.guarded(self._until_stopped(reading))

    async def may_go_on(self) -> None:
        """Return if the next step may begin: not if the task is cancelled or its worker leaves."""
        await self._pace.guarded(self._pace.may_begin())

    async def _until_stopped(self, making: Coroutine[Any, Any, Answer]) -> Answer:
        """The answer of the store, for which nobody waits once the run has stopped.

        LangGraph waits for its writes also when it is cancelled, so none may hang.
        """
        if self._pace.stopped.done():
            making.close()
            raise asyncio.CancelledError
        asking = asyncio.ensure_future(making)
        either: set[asyncio.Future[Any]] = {asking, self._pace.stopped}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                raise asyncio.CancelledError
            return asking.result()
        except (LeaseLostError, StoreUnavailableError) as problem:
            self._pace.stop(LOST)
            raise asyncio.CancelledError from problem
        finally:
            asking.cancel()
