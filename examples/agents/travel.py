"""An agent of one's own: it compares cities at the same time, and books the best one once.

docs/agent-code.md explains it line by line, and how it gets into a fleet.
"""

import asyncio
from typing import Annotated, Any

from pydantic import BaseModel, Field

from flotilla_runtime.agents import Context, EndReason, Task, TaskFailedError, ToolFailedError

CITIES = ("Lisbon", "Porto", "Faro")


class Forecast(BaseModel):
    """The weather of a city."""

    city: str
    celsius: float


def weather(city: str) -> Forecast:
    """The weather in a city tomorrow."""
    return Forecast(city=city, celsius=18 + len(city) % 7)


def book(city: str, nights: Annotated[int, Field(ge=1, le=14)], idempotency_key: str) -> dict[str, Any]:
    """Books a room. The same key again is the same booking."""
    return {"city": city, "nights": nights, "booking": idempotency_key[:8]}


async def agent(ctx: Context, task: Task) -> dict[str, Any]:
    """Book a room in the warmest city, and let the model tell why."""

    async def forecast(city: str) -> Forecast | None:
        with ctx.scope(city):
            try:
                return Forecast.model_validate(await ctx.tool("weather", {"city": city}))
            except ToolFailedError:
                return None

    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(forecast(city)) for city in CITIES]
    known = [one for one in (ask.result() for ask in asked) if one is not None]
    if not known:
        raise TaskFailedError(EndReason.TOOL_FAILED, "no forecast came")
    ctx.partial = {"forecasts": known}
    best = max(known, key=lambda one: one.celsius)
    booking = await ctx.tool("book", {"city": best.city, "nights": 3})
    answer = await ctx.llm(f"{task.input}\n\nSay in a sentence why {best.city} ({best.celsius} °C) is best.")
    return {"answer": answer.text, "booking": booking, "asked": len(known)}
