"""A rebalancing through the real loop: two half-filled GPU nodes become a full one and an empty one.

It is asked for by the annotation, and by the command as kubectl finds and starts it.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flotilla_operator.api.annotations import ANNOTATION_REBALANCE
from flotilla_runtime import contract
from local_cluster.binaries import binary
from tests.controllers.model_replica_set.stage import Stage, ready
from tests.support.processes import ROOT
from tests.support.waiting import DEADLINE_SECONDS, eventually

pytestmark = [pytest.mark.apiserver, pytest.mark.timeout(600)]

ONE_MORE = {"maxSurge": 1, "maxUnavailable": 0}
ONE_FEWER = {"maxSurge": 0, "maxUnavailable": 1}


@pytest.mark.holds(
    "placement.md",
    "A move is carried out with the replacement first, or with the drain first where there is no "
    "room for both",
)
@pytest.mark.parametrize(
    ("update", "least_ready"),
    [
        pytest.param(ONE_MORE, 2, id="the replacement comes first"),
        pytest.param(ONE_FEWER, 1, id="without a surge the replica drains first"),
    ],
)
def test_one_group_moves_and_a_node_is_free(stage: Stage, update: dict[str, int], least_ready: int) -> None:
    first, second = stage.node("a"), stage.node("b")
    stage.foreign_pod("training", first, gpus=4)
    stage.create(update=update)
    stage.wait("Ready", "True")
    before = {pod["metadata"]["uid"]: pod["spec"]["nodeName"] for pod in stage.pods()}
    assert set(before.values()) == {first, second}
    stage.client.delete(f"/api/v1/namespaces/{stage.namespace}/pods/training")

    eventually(lambda: rebalance(stage, "show:1")["rebalance"]["phase"] == "Shown")
    (move,) = rebalance(stage, "show:1")["moves"]
    assert (move["gain"], move["acceleratorsRestarted"], move["phase"]) == (0.5, 4, "Proposed")
    assert {pod["metadata"]["uid"] for pod in stage.pods()} == before.keys()

    def is_done() -> bool:
        assert sum(ready(pod) for pod in stage.pods()) >= least_ready, "too many left at once"
        return bool(rebalance(stage, "apply:1")["rebalance"]["phase"] == "Done")

    eventually(is_done)
    now = {pod["metadata"]["uid"]: pod["spec"]["nodeName"] for pod in stage.pods()}
    assert len(now.keys() & before.keys()) == 1, "one group moved, the other did not"
    assert len(set(now.values())) == 1
    assert stage.get()["status"]["placement"]["score"] == 1.0
    stage.tells("GroupMoves", "GroupDraining", "GroupRemoved", "Rebalanced")
    stage.wait("Progressing", "False", "Settled")


def test_a_group_of_two_stages_comes_together_on_a_node_that_it_has_and_one_that_it_has_not(
    stage: Stage,
) -> None:
    first, other = stage.node("a", gpus=4, rack="r1"), stage.node("b", gpus=4, rack="r1")
    stage.node("c", gpus=4, rack="r2")
    apart = [stage.node(name, gpus=4, rack="r3") for name in "ef"]
    stage.foreign_pod("training", other, gpus=4)
    stage.create(parallelism={"tensor": 4, "pipeline": 2})
    stage.wait("Ready", "True")
    before = {pod["metadata"]["uid"] for pod in stage.pods()}
    stage.client.delete(f"/api/v1/namespaces/{stage.namespace}/pods/training")

    eventually(lambda: rebalance(stage, "show")["rebalance"]["phase"] == "Shown")
    (move,) = rebalance(stage, "show")["moves"]
    assert (first in move["fromNodes"], sorted(move["toNodes"])) == (True, sorted([first, other]))

    def is_done() -> bool:
        assert sum(ready(pod) for pod in stage.pods()) >= 2, "the other group serves on"
        return bool(rebalance(stage, "apply")["rebalance"]["phase"] == "Done")

    eventually(is_done)
    pods = stage.pods()
    assert len({pod["metadata"]["uid"] for pod in pods} & before) == 2, "a group moves whole"
    assert sorted(pod["spec"]["nodeName"] for pod in pods) == sorted([first, other, *apart])
    assert "GroupReleased" not in stage.events()


@pytest.mark.holds("placement.md", "The annotation or the command asks for it")
@pytest.mark.holds("placement.md", "kubectl finds the plugin by its name")
def test_the_command_shows_what_moves_cost_and_carries_them_out_one_after_another(stage: Stage) -> None:
    before = four_apart(stage)
    shown = kubectl_flotilla(stage, "rebalance", "llama")
    status, lines = outcome(shown)
    moves = [line.split() for line in lines[-3:-1]]
    assert lines[-1] == "Shown: 2 moves would raise the placement score from 0.5 to 1.0"
    assert [(move[0], *move[4:]) for move in moves] == [
        ("1", "+0.17", "4", "unknown", "Proposed"),
        ("2", "+0.33", "4", "unknown", "Proposed"),
    ]
    assert all(before[group] == here != there for _, group, here, there, *_ in moves)
    assert (status, nodes_by_name(stage)) == (0, before)

    applied = kubectl_flotilla(stage, "rebalance", "llama", "--apply", "--context", "flotilla")
    status, lines = outcome(applied, meanwhile=lambda: one_leaves_when_another_serves(stage))
    told = [line for line in dict.fromkeys(lines) if line.startswith("Moving: ")]
    assert told == [
        f"Moving: move {step} of 2: {group} from {here} to {there}" for step, group, here, there, *_ in moves
    ]
    assert (status, lines[-1]) == (0, "Done: 2 moves done")
    after = nodes_by_name(stage)
    assert before.keys() - after.keys() == {group for _, group, *_ in moves}
    assert sorted(after.values()) == sorted(2 * [there for _, _, _, there, *_ in moves])

    nothing_left = outcome(kubectl_flotilla(stage, "rebalance", "llama"))
    assert nothing_left == (0, ["Shown: no move would raise the placement score"])


@pytest.mark.holds(
    "placement.md",
    "The command ends with status 1 unless all was shown or done, and says when kubectl is missing",
)
def test_of_a_set_that_does_not_exist_the_command_says_so(stage: Stage) -> None:
    for options in ([], ["--apply"]):
        command = kubectl_flotilla(stage, "rebalance", "nowhere", *options)
        said, complaint = command.communicate(timeout=DEADLINE_SECONDS)
        assert (command.returncode, said) == (1, "")
        assert complaint == (
            'flotilla: Error from server (NotFound): modelreplicasets.flotilla.dev "nowhere" not found\n'
        )


def four_apart(stage: Stage) -> dict[str, str]:
    """A set of four that serves, each replica on half a node of its own since the other half was taken."""
    nodes = [stage.node(name) for name in "abcd"]
    for node in nodes:
        stage.foreign_pod(f"training-{node}", node, gpus=4)
    stage.create(replicas=4, update=ONE_MORE)
    stage.wait("Ready", "True")
    stage.wait("Progressing", "False", "Settled")
    trainings = [f"/api/v1/namespaces/{stage.namespace}/pods/training-{node}" for node in nodes]
    for path in trainings:
        stage.client.delete(path)
    eventually(lambda: not any(map(stage.client.exists, trainings)))
    found = nodes_by_name(stage)
    assert sorted(found.values()) == nodes
    return found


def nodes_by_name(stage: Stage) -> dict[str, str]:
    return {pod["metadata"]["name"]: pod["spec"]["nodeName"] for pod in stage.pods()}


def one_leaves_when_another_serves(stage: Stage) -> None:
    pods = stage.pods()
    stay = [pod for pod in pods if contract.ANNOTATION_DRAIN_EPOCH not in pod["metadata"]["annotations"]]
    assert len(pods) - len(stay) <= 1, "one drains at a time"
    assert sum(ready(pod) for pod in stay) >= 4, "and only when its replacement serves"


def kubectl_flotilla(stage: Stage, *arguments: str) -> "subprocess.Popen[str]":
    """Run what a user types: kubectl finds the installed plugin on the PATH and hands over to it."""
    programs = [binary("kubectl").parent, Path(sys.executable).parent]
    variables = {
        **os.environ,
        "PATH": os.pathsep.join([*map(str, programs), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ("cli", "operator", "runtime")),
        "KUBECONFIG": str(stage.plane.kubeconfig),
    }
    argv = ["kubectl", "flotilla", *arguments, "--namespace", stage.namespace]
    return subprocess.Popen(argv, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def outcome(
    command: "subprocess.Popen[str]", meanwhile: Callable[[], None] = lambda: None
) -> tuple[int, list[str]]:
    """Its status and the lines that it wrote; it must not complain."""

    def is_over() -> bool:
        meanwhile()
        return command.poll() is not None

    try:
        eventually(is_over)
    finally:
        command.kill()
        said, complaint = command.communicate()
    assert complaint == "", said
    return command.returncode, said.splitlines()


def rebalance(stage: Stage, value: str) -> dict[str, Any]:
    """Ask once, and say how placement stands."""
    found = stage.get()
    if (found["metadata"].get("annotations") or {}).get(ANNOTATION_REBALANCE) != value:
        change = {"metadata": {"annotations": {ANNOTATION_REBALANCE: value}}}
        stage.client.merge(f"{stage.sets}/llama", change)
    placement: dict[str, Any] = found["status"]["placement"]
    if (placement.get("rebalance") or {}).get("asked") != value:
        return {"rebalance": {"phase": None}, "moves": []}
    return placement
