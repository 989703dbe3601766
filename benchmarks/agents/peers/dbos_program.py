"""Tasks of steps on DBOS: `dbos_program.py URL rate SECONDS TASKS` or `URL effects FILE TASKS STEPS`.

`rate` prints how many steps the tasks made within the time. `effects` makes every step of every task, and writes
each to the file as its effect; it may be killed, and goes on when it is started again.
"""

import asyncio
import os
import sys
import time

from dbos import DBOS, DBOSConfig, SetWorkflowID

VALUE = "The tool said what it had to say, in about two hundred characters. " * 3
AFTER_EFFECT_SECONDS = 0.05


@DBOS.step()
async def said(_task: int, _number: int) -> str:
    """A step that has no effect."""
    return VALUE


@DBOS.step()
async def done(path: str, task: int, number: int) -> str:
    """A step with an effect."""
    with open(path, "a") as file:
        file.write(f"{task} {number}\n")
    await asyncio.sleep(AFTER_EFFECT_SECONDS)
    return VALUE


@DBOS.workflow()
async def until(task: int, ends: float) -> int:
    """Make steps until this time; how many there were."""
    number = 0
    while time.time() < ends:
        await said(task, number)
        number += 1
    return number


@DBOS.workflow()
async def all_steps(path: str, task: int, steps: int) -> None:
    """Make so many steps with effects."""
    for number in range(steps):
        await done(path, task, number)


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
