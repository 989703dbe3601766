"""Two stages of the real engine, as the operator starts them, are one replica that answers.

As two pods on a node: e2e/tests/test_model_two_stages.py. What a group does when a member dies:
controllers/model_replica_set/test_groups_apiserver.py.
"""

from pathlib import Path

import pytest

from engine.environment import ensure
from engine.models import GENERATOR, ensure_models
from engine.serve import running, started
from flotilla_operator.workloads.engine_arguments import engine_arguments
from flotilla_operator.workloads.stages import Stage
from local_cluster.processes import free_port
from tests.builders.model_replica_set import spec_of
from tests.support.questions import ANSWER, ask

# Two engines start at the same time, which takes a minute of all cores.
pytestmark = [pytest.mark.services, pytest.mark.rare, pytest.mark.timeout(900)]


class OnThisMachine(Stage):
    """A stage whose leader is met on the loopback interface instead of by its pod's name."""

    @property
    def leader_address(self) -> str:
        return "127.0.0.1"


def arguments_of_two_stages() -> tuple[list[str], list[str]]:
    """Of the leader, and of the stage behind it; of two values the later wins."""
    spec = spec_of(
        model={"name": GENERATOR.name, "source": "pvc://m"},
        parallelism={"tensor": 1, "pipeline": 2},
        engine={"maxModelLen": 512, "maxNumSeqs": 4},
    )
    model, meeting = ensure_models() / GENERATOR.name, free_port()
    leader, follower = (
        OnThisMachine(group="llama-abcde", number=number, count=2, service="llama-engine", namespace="n")
        for number in range(2)
    )
    moved = ["--master-port", str(meeting)]
    return (
        [*engine_arguments(spec, str(model), leader), *moved],
        [*engine_arguments(spec, str(model), follower), *moved],
    )


@pytest.mark.holds("groups.md", "Two stages of the real engine answer as one replica")
def test_two_stages_answer_as_one(tmp_path: Path) -> None:
    engine, port = ensure(), free_port()
    leader, behind = arguments_of_two_stages()
    with (
        started(engine, behind, port, tmp_path / "follower.log"),
        running(engine, leader, port, tmp_path / "leader.log") as replica,
    ):
        assert ANSWER in ask(replica.url, GENERATOR.name, timeout_seconds=120)
