"""Tasks of steps on DBOS: `dbos_program.py URL rate SECONDS TASKS` or `URL effects FILE TASKS STEPS`.

`rate` prints how many steps the tasks made within the time. `effects` makes every step of every task, and
writes each to the file as its effect; it may be killed, and goes on when it is started again.
"""

import asyncio
import os
import sys
import time
from pathlib import Path

from dbos import DBOS, DBOSConfig, SetWorkflowID

VALUE = "The tool said what it had to say, in about two hundred characters. " * 3
AFTER_EFFECT_SECONDS = 0.05


def happen(path: str, task: int, number: int) -> None:
    """The effect of a step."""
    with Path(path).open("a") as file:
        file.write(f"{task} {number}\n")


async def _said(_task: int, _number: int) -> str:
    """A step that has no effect."""
    return VALUE


async def _done(path: str, task: int, number: int) -> str:
    """A step with an effect."""
    happen(path, task, number)
    await asyncio.sleep(AFTER_EFFECT_SECONDS)
    return VALUE


async def _until(task: int, ends: float) -> int:
    """Make steps until this time; how many there were."""
    number = 0
    while time.time() < ends:
        await said(task, number)
        number += 1
    return number


async def _all_steps(path: str, task: int, steps: int) -> None:
    """Make so many steps with effects."""
    for number in range(steps):
        await done(path, task, number)


# Decorators without types, applied as functions.
said = DBOS.step()(_said)
done = DBOS.step()(_done)
until = DBOS.workflow()(_until)
all_steps = DBOS.workflow()(_all_steps)


async def rate(seconds: float, tasks: int) -> int:
    """The steps of all tasks within this time."""
    ends = time.time() + seconds
    handles = [await DBOS.start_workflow_async(until, task, ends) for task in range(tasks)]
    return sum([await handle.get_result() for handle in handles])


async def effects(path: str, tasks: int, steps: int) -> None:
    """Make all steps of all tasks, or those that are left of them."""
    handles = []
    for task in range(tasks):
        with SetWorkflowID(f"task-{task}"):
            handles.append(await DBOS.start_workflow_async(all_steps, path, task, steps))
    for handle in handles:
        await handle.get_result()


def main() -> None:
    """Run what the arguments say."""
    url, what, *rest = sys.argv[1:]
    config: DBOSConfig = {"name": "bench", "system_database_url": url, "log_level": "ERROR"}
    DBOS(config=config)
    DBOS.launch()
    if what == "rate":
        print(asyncio.run(rate(float(rest[0]), int(rest[1]))), flush=True)
    else:
        asyncio.run(effects(rest[0], int(rest[1]), int(rest[2])))
    os._exit(0)  # its threads would linger


if __name__ == "__main__":
    main()
