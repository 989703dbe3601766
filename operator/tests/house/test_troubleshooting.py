"""docs/troubleshooting.md explains each reason that users meet, under the heading of where they meet it."""

import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path

import pytest

from flotilla_operator.autoscaling.from_zero import ZeroReason
from flotilla_operator.controllers.agent_fleet import reasons as of_fleets
from flotilla_operator.controllers.failures import INVALID_SPEC
from flotilla_operator.controllers.model_replica_set import reasons as of_sets
from flotilla_operator.controllers.vector_index import reasons as of_indexes
from flotilla_operator.objects.owners import Owner
from flotilla_operator.objects.refused_writes import WriteReason
from flotilla_operator.placement import outcome
from flotilla_operator.replicas import group
from flotilla_operator.replicas.asking import AskingReason
from flotilla_operator.replicas.sizing import MisfitReason
from flotilla_operator.replicas.trouble import TroubleReason
from flotilla_operator.workloads import agent_fleet, engine_pod, router
from flotilla_operator.workloads.vector_index import build, milvus, retriever
from flotilla_runtime.agent.journal import EndReason
from flotilla_runtime.contract import BuildReason
from flotilla_runtime.indexing.errors import DocumentReason
from flotilla_runtime.models import failures
from flotilla_runtime.router import openai_errors
from tests.house.test_reasons import enums_of_reasons

PAGE = Path(__file__).parents[3] / "docs" / "troubleshooting.md"
HEADING = re.compile(r"^#{2,} +(.+)$")
WORD = re.compile(r"`(\w+)`")

# The headings of the tables, and the enums whose reasons each has.
SECTIONS: Mapping[str, tuple[type[StrEnum], ...]] = {
    "ModelReplicaSet": (
        of_sets.Reason,
        of_sets.EventReason,
        group.EndingReason,
        TroubleReason,
        MisfitReason,
        AskingReason,
        ZeroReason,
    ),
    "Groups": (group.Phase,),
    "Why a node is refused": (outcome.RefusalReason,),
    "Model files": (failures.Reason,),
    "VectorIndex": (of_indexes.Reason, of_indexes.EventReason, BuildReason),
    "Phases": (of_indexes.Phase,),
    "Documents that are left out": (DocumentReason,),
    "AgentFleet": (of_fleets.Reason,),
    "How tasks end": (EndReason,),
    "Refused writes": (WriteReason,),
    "Answers of a router": (openai_errors.RefusalReason,),
}
BESIDE_THE_ENUMS = {"Refused writes": {INVALID_SPEC}}
# Nobody sees these: they say why a decision was made, and conditions and events speak in other words.
NOT_SHOWN = {
    "AccessReason",
    "ClaimReason",
    "FarewellReason",
    "FinishReason",
    "FitReason",
    "IntentReason",
    "KeyReason",
    "LiteReason",
    "LookReason",
    "MissingReason",
    "ModelProblemReason",
    "NextReason",
    "OlderReason",
    "PartReason",
    "PasswordReason",
    "RemovalReason",
    "StartReason",
    "WorkersReason",
}


def tables(text: str) -> dict[str, list[str]]:
    """The reasons in the first column of each table of reasons, by the heading above it."""
    found: dict[str, list[str]] = {}
    heading, inside = "", False
    for line in text.splitlines():
        if match := HEADING.match(line):
            heading = match[1]
        if not line.startswith("|"):
            inside = False
        elif line.startswith("| reason |"):
            inside = True
            found.setdefault(heading, [])
        elif inside and not line.startswith("|---"):
            found[heading] += WORD.findall(line.split("|")[1])
    return found


def expected(heading: str, enums: Iterable[type[StrEnum]]) -> set[str]:
    return {str(reason) for enum in enums for reason in enum} | BESIDE_THE_ENUMS.get(heading, set())


@pytest.mark.holds(
    "troubleshooting.md",
    "Every reason that users meet is in the table of its kind, with what to do, and no other",
)
@pytest.mark.parametrize("heading", SECTIONS)
def test_a_table_has_each_reason_once_and_no_other(heading: str) -> None:
    listed = tables(PAGE.read_text(encoding="utf-8"))[heading]
    assert sorted(listed) == sorted(expected(heading, SECTIONS[heading]))


def test_no_table_is_left_out_of_the_comparison() -> None:
    assert tables(PAGE.read_text(encoding="utf-8")).keys() == SECTIONS.keys()


@pytest.mark.holds(
    "troubleshooting.md",
    "Every reason that users meet is in the table of its kind, with what to do, and no other",
)
def test_each_enum_of_reasons_is_explained_or_never_shown() -> None:
    explained = {(enum.__module__, enum.__name__) for enums in SECTIONS.values() for enum in enums}
    found = set(enums_of_reasons())
    shown = {(module, name) for module, name in found if name not in NOT_SHOWN}
    assert shown - explained == set()
    assert NOT_SHOWN - {name for _, name in found} == set()


def test_a_missing_and_a_wrong_reason_are_seen() -> None:
    text = PAGE.read_text(encoding="utf-8").replace("| `OnTrial` |", "| `OnTrail` |")
    listed = set(tables(text)["ModelReplicaSet"])
    wanted = expected("ModelReplicaSet", SECTIONS["ModelReplicaSet"])
    assert (wanted - listed, listed - wanted) == ({"OnTrial"}, {"OnTrail"})


@pytest.mark.holds(
    "troubleshooting.md", "Pods have labels with the kind, the name and the part, as the page lists them"
)
def test_the_parts_of_pods_are_those_of_their_labels() -> None:
    (sentence,) = re.findall(r"and with their part: (.+?)\.", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    parts = (engine_pod, router, build, retriever, milvus)
    of_fleet = (agent_fleet.gateway, agent_fleet.workers, agent_fleet.redis)
    owner = Owner(kind="AgentFleet", namespace="default", name="a", uid="1")
    labels = {part.COMPONENT for part in parts} | {part(owner).component for part in of_fleet}
    assert set(WORD.findall(sentence)) == labels


@pytest.mark.holds(
    "troubleshooting.md",
    "Every reason that users meet is in the table of its kind, with what to do, and no other",
)
def test_each_row_says_what_to_do() -> None:
    rows = [
        line.removeprefix("| ").removesuffix(" |").split(" | ")
        for line in PAGE.read_text(encoding="utf-8").splitlines()
        if line.startswith("| `")
    ]
    assert len(rows) > 100
    assert [row for row in rows if len(row) != 3 or not all(cell.strip() for cell in row)] == []
