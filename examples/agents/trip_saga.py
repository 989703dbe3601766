"""Books two things that belong together, and undoes what was done if the whole does not come about.

docs/agent-code.md explains it.
"""

from typing import Any

from flotilla_runtime.agents import Context, Task

FULL = {"Faro"}
BOOKED: dict[str, str] = {}


def hotel(city: str, booking: str) -> str:
    """Books a room under this name. The same name again is the same booking."""
    BOOKED[booking] = city
    return booking


def cancel_hotel(booking: str) -> bool:
    """Gives the room back, whether it was booked or not; says whether there was one."""
    return BOOKED.pop(booking, None) is not None


def flight(city: str, booking: str) -> str:
    """Books a flight under this name."""
    if city in FULL:
        raise LookupError(f"no seat to {city} is left")
    return booking


def cancel_flight(booking: str) -> bool:
    """Gives the seat back."""
    return bool(booking)


async def agent(ctx: Context, task: Task) -> dict[str, Any]:
    """Book a room and a flight: both or neither."""
    room, seat = {"booking": f"{task.id}-room"}, {"booking": f"{task.id}-seat"}
    await ctx.compensate("cancel_hotel", room)
    await ctx.tool("hotel", {"city": task.input, **room})
    await ctx.compensate("cancel_flight", seat)
    await ctx.tool("flight", {"city": task.input, **seat})
    return {"city": task.input, "room": room["booking"], "seat": seat["booking"]}
