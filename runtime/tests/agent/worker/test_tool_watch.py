"""Reports of a worker on the tools that servers declare, and its wait for them when it starts."""

import asyncio
from collections.abc import Iterable, Sequence

import pytest

from flotilla_runtime.agent.errors import StoreUnavailableError
from flotilla_runtime.agent.tools.catalogue import Catalogue, Looked
from flotilla_runtime.agent.tools.declarations import DeclarationError, unavailable
from flotilla_runtime.agent.tools.values import Tool
from flotilla_runtime.agent.worker.tool_watch import ToolWatch
from flotilla_runtime.contract import ToolConfig, ToolReport, ToolTrouble

CONFIG = ToolConfig(name="weather")
MISSING = DeclarationError(ToolTrouble.MISSING, "there is no such tool")


class Declared:
    """A tool whose server says one thing after another; the last again and again."""

    config = CONFIG

    def __init__(self, *says: DeclarationError | Exception | None, hangs: bool = False) -> None:
        self.says = list(says)
        self.hangs = hangs

    async def look(self) -> Looked:
        if self.hangs:
            await asyncio.Event().wait()
        said = self.says.pop(0) if len(self.says) > 1 else self.says[0]
        if said is not None:
            raise said
        return Looked(tools=[unavailable(CONFIG, "a tool")])

    async def close(self) -> None:
        """Nothing is open."""

    def placeholders(self, problem: str) -> Sequence[Tool]:
        return [unavailable(CONFIG, problem)]


class Reports:
    """The reports that were told; the first `failures` times nobody listens."""

    def __init__(self, failures: int = 0) -> None:
        self.told: list[tuple[list[str], list[str]]] = []
        self.failures = failures
        self.heard: asyncio.Queue[None] = asyncio.Queue()

    async def tell(self, found: Iterable[ToolReport], over: Iterable[ToolReport] = ()) -> None:
        if self.failures:
            self.failures -= 1
            raise StoreUnavailableError("away")
        self.told.append(([one.message for one in found], [one.message for one in over]))
        self.heard.put_nowait(None)


async def looked(declared: Declared, reports: Reports, times: int) -> None:
    """Let a watch look this many times, with no pause."""
    watch = ToolWatch(Catalogue({}, [declared]), reports, draw=lambda _, __: 0.0)
    running = asyncio.create_task(watch.run())
    async with asyncio.timeout(5):
        for _ in range(times):
            await reports.heard.get()
    running.cancel()


@pytest.mark.holds("tools.md", "Workers report what they cannot use, and take it back")
async def test_a_trouble_is_told_again_and_again_and_taken_back_when_it_is_over() -> None:
    reports = Reports()
    await looked(Declared(MISSING, MISSING, None), reports, 3)
    assert reports.told[:3] == [
        (["there is no such tool"], []),
        (["there is no such tool"], []),
        ([], ["there is no such tool"]),
    ]


async def test_a_trouble_that_changes_takes_the_place_of_the_one_before() -> None:
    reports = Reports()
    await looked(Declared(MISSING, DeclarationError(ToolTrouble.NO_ANSWER, "silence")), reports, 2)
    assert reports.told[1] == (["silence"], ["there is no such tool"])


async def test_what_could_not_be_told_is_told_later() -> None:
    reports = Reports(failures=2)
    await looked(Declared(MISSING), reports, 1)
    assert reports.told[:1] == [(["there is no such tool"], [])]


async def test_a_fault_of_ours_is_a_report_and_ends_no_worker() -> None:
    reports = Reports()
    await looked(Declared(RuntimeError("a fault")), reports, 1)
    assert reports.told[:1] == [(["what its server declares cannot be read: RuntimeError"], [])]


async def test_a_worker_waits_for_the_first_look_but_not_for_a_server_that_hangs() -> None:
    watch = ToolWatch(Catalogue({}, [Declared(None)]), Reports())
    running = asyncio.create_task(watch.run())
    async with asyncio.timeout(60):
        await watch.looked(asyncio.Event(), 60)
    running.cancel()
    hanging = ToolWatch(Catalogue({}, [Declared(None, hangs=True)]), Reports())
    running = asyncio.create_task(hanging.run())
    async with asyncio.timeout(60):
        await hanging.looked(asyncio.Event(), 0.01)
        stopping = asyncio.Event()
        stopping.set()
        await hanging.looked(stopping, 60)
    running.cancel()


async def test_without_such_tools_nothing_is_waited_for() -> None:
    watch = ToolWatch(Catalogue({"a": unavailable(CONFIG, "")}), Reports())
    async with asyncio.timeout(60):
        await watch.run()
        await watch.looked(asyncio.Event(), 60)


def test_a_tool_of_the_spec_goes_before_one_that_a_server_declares() -> None:
    fixed = unavailable(CONFIG, "fixed")
    assert Catalogue({"weather": fixed}, [Declared(None)])["weather"] is fixed


@pytest.mark.parametrize("known", [True, False])
async def test_a_server_that_falls_silent_keeps_what_it_declared_and_one_that_lost_it_does_not(
    known: bool,
) -> None:
    silent = DeclarationError(ToolTrouble.NO_ANSWER, "silence")
    catalogue = Catalogue({}, [Declared(None, silent if known else MISSING)])
    await catalogue.look()
    await catalogue.look()
    assert ("a tool" in catalogue["weather"].declaration.description) is known
