"""Ten stories that end alike on the fake API server and on a real one.

Each is told in the words that both understand. What it ends with is in `ending`.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from tests.scenes.words import Words

OTHER_REVISION = {"env": [{"name": "REVISION", "value": "other"}]}
SOON = {"deadlineSeconds": 1}  # KWOK's routers do not answer, so a drain ends at its deadline


async def comes_up(told: Words) -> None:
    told.node("a")
    told.create()
    await told.until_ready()


async def scales_up_and_down(told: Words) -> None:
    told.node(
        "a", gpus=16
    )  # one node: which of two pods of the same second goes first depends on their names
    told.create(drain=SOON)
    await told.until_ready()
    told.change(replicas=4)
    await told.until(lambda: told.is_ready() and told.serving() == 4)
    told.change(replicas=1)
    await told.until(lambda: told.serving() == len(told.engines()) == 1)


async def waits_for_room(told: Words) -> None:
    told.node("a")
    told.foreign_pod("training", "a", gpus=6)
    told.create(replicas=1)
    await told.until_says("Placed", "False", "InsufficientCapacity")
    told.delete_pod("training")
    await told.until_ready()


async def fits_no_node(told: Words) -> None:
    told.node("a")
    told.create(parallelism={"tensor": 16})
    await told.until_says("Placed", "False", "NoNodeCanFit")


async def loses_a_node(told: Words) -> None:
    told.node("a")
    told.create(replicas=1)
    await told.until_ready()
    told.node("b")
    told.lose_node("a")
    await told.until(lambda: told.nodes_of() == ["b"] and told.serving() == 1)


async def loses_a_pod(told: Words) -> None:
    told.node("a")
    told.create(replicas=1, drain=SOON)
    await told.until_ready()
    before = told.uids()
    told.delete_pod(told.pods()[0]["metadata"]["name"])
    await told.until(lambda: told.serving() == len(told.engines()) == 1 and not told.uids() & before)


async def is_updated(told: Words) -> None:
    told.node("a")
    told.node("b", gpus=4)  # so that it does not matter how soon a replica on the other node has ended
    told.create(drain=SOON)
    await told.until_ready()
    before = told.uids()
    told.change(engine=OTHER_REVISION)
    await told.until(lambda: told.serving() == len(told.engines()) == 2 and not told.uids() & before)


async def is_updated_while_paused(told: Words) -> None:
    told.node("a")
    told.create()
    await told.until_ready()
    told.change(engine=OTHER_REVISION, paused=True)
    await told.until_says("Progressing", "False", "UpdatePaused")


async def leaves_a_cordoned_node(told: Words) -> None:
    told.node("a")
    told.create(drain=SOON)
    await told.until_ready()
    told.node("b")
    told.cordon("a")
    await told.until(lambda: told.nodes_of() == ["b", "b"] and told.serving() == len(told.engines()) == 2)


async def two_stages_on_two_nodes(told: Words) -> None:
    told.node("a", gpus=4)
    told.node("b", gpus=4)
    told.create(replicas=1, parallelism={"tensor": 4, "pipeline": 2})
    await told.until_ready()


STORIES: Mapping[str, Callable[[Words], Awaitable[None]]] = {
    story.__name__.replace("_", " "): story
    for story in (
        comes_up,
        scales_up_and_down,
        waits_for_room,
        fits_no_node,
        loses_a_node,
        loses_a_pod,
        is_updated,
        is_updated_while_paused,
        leaves_a_cordoned_node,
        two_stages_on_two_nodes,
    )
}


async def ending(told: Words) -> dict[str, Any]:
    """The set once it is settled or stuck, its pods, and what was told of it."""
    await told.until(lambda: is_over(told))
    status = told.status()
    return {
        "conditions": {c["type"]: (c["status"], c["reason"]) for c in status["conditions"]},
        "ready": status["ready"],
        "phases": sorted(group["phase"] for group in status["groups"]),
        "counts": status["groupCounts"],
        "pods": sorted(
            (told.short_name(pod["spec"]["nodeName"]), pod["status"]["phase"]) for pod in told.engines()
        ),
        "objects": told.ours(),
        "score": status["placement"].get("score"),
        "generation": status["observedGeneration"],
    }


def is_over(told: Words) -> bool:
    """Whether its router serves and the set is ready and settled or on trial, held, or waits for a person."""
    if not told.says("RouterReady", "True"):
        return False
    settled = told.says("Progressing", "False", "Settled") or told.says("Progressing", "True", "OnTrial")
    drains = (told.status().get("groupCounts") or {}).get("draining")
    held = told.says("Progressing", "False", "UpdatePaused") or told.says("Stalled", "True")
    return bool(held or (told.is_ready() and settled and not drains))
