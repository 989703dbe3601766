"""Fan-out: four tools are asked at once, each under a key. A report says how much of it is there."""

from typing import Any

from flotilla_runtime.agents import Context, Task


def weather(city: str) -> str:
    """The weather in a city."""
    return f"24 °C in {city}"


def events(city: str) -> list[str]:
    """What is on in a city."""
    return [f"{city} jazz week"]


def trains(city: str) -> list[str]:
    """The trains to a city."""
    raise ConnectionError(f"the timetable of {city} is away")


async def agent(ctx: Context, task: Task) -> dict[str, Any]:
    """Ask for all that a traveller wants to know; go on when at least two answers are there."""
    city = task.input
    gathered = await ctx.fan_out(
        {
            "weather": lambda: ctx.tool("weather", {"city": city}),
            "events": lambda: ctx.tool("events", {"city": city}),
            "trains": lambda: ctx.tool("trains", {"city": city}),
        },
        timeout_seconds={"trains": 10},
    )
    report = gathered.at_least(2).document
    answer = await ctx.llm(f"Write a report from this. Say what is missing: {report}")
    return {"report": answer.text, **report}
