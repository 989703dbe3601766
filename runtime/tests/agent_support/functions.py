"""Functions of a fleet's image, for tests of Python tools."""

import asyncio
import threading
import time
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

NAPS = threading.Event()


class Route(BaseModel):
    start: str
    stops: list[str] = []


@dataclass
class Weather:
    city: str
    celsius: float


def weather(city: str, unit: Literal["C", "F"] = "C") -> Weather:
    """The weather of a city."""
    return Weather(city=city, celsius=21.5)


async def later(days: Annotated[int, Field(ge=1, le=7)]) -> int:
    """The day after so many days."""
    await asyncio.sleep(0)
    return days + 1


def pay(euro: float, *, idempotency_key: str) -> dict[str, Any]:
    return {"euro": euro, "key": idempotency_key, "thread": threading.current_thread().name}


def plan(route: Route) -> list[str]:
    return [route.start, *route.stops]


def sleepy() -> None:
    NAPS.wait(30)


async def sleepy_coroutine() -> None:
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        await asyncio.sleep(0.5)


def raising() -> None:
    raise ValueError("the secret plan failed")


def leaving() -> None:
    raise SystemExit(1)


def long() -> str:
    return "x" * 5000


def no_json() -> object:
    return object()


def half() -> str:
    return "\ud800"


def half_raised() -> None:
    raise ValueError("a\ud800b")


def nothing() -> None:
    time.sleep(0)


def happened(key: str) -> Any:
    return {"known": True, "unknown": None, "not": {"happened": False}}.get(
        key, {"happened": True, "result": key}
    )


def many(*args: int) -> int:
    return sum(args)


def strange(value: "NoSuchType") -> None:  # type: ignore[name-defined]  # noqa: F821
    pass


NUMBER = 7


async def agent(ctx: Any, task: Any) -> str:
    return str(task.input)


def plain_agent(ctx: Any, task: Any) -> str:
    return str(task.input)


async def narrow_agent(ctx: Any) -> None:
    pass


async def short_nap() -> str:
    await asyncio.sleep(0.2)
    return "awake"


def names_a_city(result: dict[str, Any]) -> dict[str, Any]:
    """Refuses answers without a city."""
    return {"accepted": "Lisbon" in str(result), "reason": "it names no city"}


async def answers_the_task(result: Any, input: str) -> bool:  # noqa: A002
    return input in str(result)


def checks_nothing(answer: Any) -> bool:
    return True


def checks_too_much(result: Any, weather: str) -> bool:
    return True


def hangs_over(result: Any) -> bool:
    return NAPS.wait(30)


def raises_over(result: Any) -> bool:
    raise KeyError("source")


def says_nothing(result: Any) -> None:
    return None
