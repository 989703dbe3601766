"""Problems that workers find with the tools that servers declare, kept in Redis for the gateways to tell.

Workers that find the same write the same, so a report stands there once. It goes when the last of them has
not repeated it for a while, or one says that it is over.
"""

from collections.abc import Iterable
from typing import Final

from redis.asyncio import Redis

from flotilla_runtime.agent.store.redis_errors import asked
from flotilla_runtime.contract import TaskKeys, ToolReport

HOLDS_SECONDS: Final = 180
MOST_REPORTS: Final = 64
MOST_MESSAGE: Final = 500


class ToolReports:
    """The reports of one fleet. Each call raises StoreUnavailableError."""

    def __init__(self, client: Redis, keys: TaskKeys) -> None:
        self._client = client
        self._key = keys.tool_reports

    async def tell(self, found: Iterable[ToolReport], over: Iterable[ToolReport] = ()) -> None:
        """Write what was found just now, and take back what is over."""
        now = await self._seconds()
        async with self._client.pipeline(transaction=False) as pipeline:
            pipeline.zremrangebyscore(self._key, "-inf", now)
            for report in over:
                pipeline.zrem(self._key, _written(report))
            for report in found:
                pipeline.zadd(self._key, {_written(report): now + HOLDS_SECONDS})
            pipeline.expire(self._key, HOLDS_SECONDS)
            await asked(pipeline.execute())

    async def now(self) -> tuple[ToolReport, ...]:
        """Read the reports that hold now, by the names of the tools."""
        now = await self._seconds()
        found = await asked(self._client.zrangebyscore(self._key, now, "+inf", start=0, num=MOST_REPORTS))
        reports = [ToolReport.model_validate_json(str(text)) for text in found]
        return tuple(sorted(reports, key=lambda report: (report.tool, report.message)))

    async def _seconds(self) -> int:
        """The time by Redis' clock."""
        return int((await asked(self._client.time()))[0])


def _written(report: ToolReport) -> str:
    return report.model_copy(update={"message": report.message[:MOST_MESSAGE]}).model_dump_json(by_alias=True)
