"""Every reason is what some test expects: for each enum of reasons, the tables that together have them all.

A table is a parametrized test, and the column in which it expects a reason of what it has seen.
"""

import ast
from collections.abc import Iterable, Iterator
from enum import StrEnum
from importlib import import_module
from pathlib import Path

import pytest

from flotilla_operator.autoscaling.from_zero import ZeroReason
from flotilla_operator.autoscaling.workers import WorkersReason
from flotilla_operator.capacity import FitReason
from flotilla_operator.controllers.agent_fleet import reasons as of_fleets
from flotilla_operator.controllers.agent_fleet.decide import LookReason, PartReason
from flotilla_operator.controllers.agent_fleet.password import PasswordReason
from flotilla_operator.controllers.agent_fleet.rollout import OlderReason
from flotilla_operator.controllers.claims import ClaimReason
from flotilla_operator.controllers.model_replica_set import reasons as of_sets
from flotilla_operator.controllers.vector_index import reasons as of_indexes
from flotilla_operator.controllers.vector_index.access import AccessReason, KeyReason
from flotilla_operator.controllers.vector_index.decide import LiteReason
from flotilla_operator.controllers.vector_index.farewell import FarewellReason
from flotilla_operator.controllers.vector_index.next_step import NextReason
from flotilla_operator.objects import refused_writes
from flotilla_operator.placement import outcome
from flotilla_operator.replicas.asking import AskingReason
from flotilla_operator.replicas.group import EndingReason
from flotilla_operator.replicas.intent import IntentReason
from flotilla_operator.replicas.leaving.draining import Because
from flotilla_operator.replicas.leaving.turnover import RemovalReason
from flotilla_operator.replicas.revisions.rollout import Fault
from flotilla_operator.replicas.sizing import MisfitReason
from flotilla_operator.replicas.start import StartReason
from flotilla_operator.replicas.trouble import TroubleReason
from flotilla_runtime.agent.journal import EndReason
from flotilla_runtime.agent.models import FinishReason, ModelProblemReason
from flotilla_runtime.agent.patterns.values import MissingReason
from flotilla_runtime.contract import BuildReason
from flotilla_runtime.indexing.errors import DocumentReason
from flotilla_runtime.models import failures
from flotilla_runtime.router import openai_errors
from tests.autoscaling import test_from_zero, test_workers
from tests.capacity import test_fit
from tests.cluster import test_ownership
from tests.controllers import test_claims
from tests.controllers.agent_fleet import test_decide as test_fleet_decision
from tests.controllers.agent_fleet import test_reasons as test_fleet
from tests.controllers.agent_fleet import test_rollout as test_rollout_of_fleets
from tests.controllers.model_replica_set import test_reasons as test_set
from tests.controllers.model_replica_set import (
    test_references,
    test_revisions,
)
from tests.controllers.vector_index import test_access
from tests.controllers.vector_index import test_decide as test_index_decision
from tests.controllers.vector_index import test_reasons as test_index
from tests.placement import test_place
from tests.replicas import (
    test_asking,
    test_draining,
    test_intent,
    test_rollout,
    test_start,
    test_turnover,
)
from tests.support.tables import column

ROOT = Path(__file__).parents[3]

# mypy knows the runtime's tests by other names than Python.
test_answers = import_module("tests.agent.models.test_answers")
test_actor = import_module("tests.agent.patterns.test_actor")
test_compensate = import_module("tests.agent.patterns.test_compensate")
test_race = import_module("tests.agent.patterns.test_race")
test_model_failures = import_module("tests.agent.models.test_failures")
test_engine = import_module("tests.agent.engine.test_engine")
test_validating = import_module("tests.agent.engine.test_validating")
test_loop = import_module("tests.agent.builtin.test_loop")
test_discovery = import_module("tests.indexing.test_discovery")
test_formats = import_module("tests.indexing.test_formats")
test_refused_builds = import_module("tests.indexing.test_refused_builds")
test_adapters = import_module("tests.models.test_adapters")
test_files = import_module("tests.models.test_files")
test_hub = import_module("tests.models.test_hub")
test_links = import_module("tests.models.test_links")
test_listing = import_module("tests.models.test_listing")
test_unwritable = import_module("tests.models.test_unwritable")
test_generations = import_module("tests.retrieval.test_generations")
test_haproxy = import_module("tests.router.test_haproxy")


def of(enum: type[StrEnum], reasons: Iterable[object]) -> list[object]:
    """Of a table with the reasons of several enums, those of one."""
    return [reason for reason in reasons if isinstance(reason, enum)]


EXPECTED: list[tuple[type[StrEnum], Iterable[object]]] = [
    (FitReason, column(test_fit.test_verdicts, "reason")),
    (ZeroReason, column(test_from_zero.test_decision, "reason")),
    (WorkersReason, column(test_workers.test_the_number_and_its_reason, "reason")),
    (
        outcome.RefusalReason,
        [
            *column(test_place.test_each_reason_is_said, "reason"),
            *column(test_place.test_each_reason_of_a_group_is_said, "reason"),
        ],
    ),
    (
        refused_writes.WriteReason,
        [
            *column(test_ownership.test_an_answer_is_a_reason, "reason"),
            *column(test_ownership.test_an_object_that_is_not_to_be_written_is_a_reason, "reason"),
        ],
    ),
    (
        of_sets.Reason,
        [
            *of(of_sets.Reason, column(test_set.test_conditions, "reason")),
            *column(test_references.test_what_is_missing_is_said_and_holds_new_replicas_back, "reason"),
            *column(
                test_revisions.test_an_update_that_fails_and_is_kept_says_what_is_wrong_with_it, "reason"
            ),
        ],
    ),
    (of_sets.EventReason, of(of_sets.EventReason, column(test_set.test_events, "reason"))),
    (EndingReason, of(EndingReason, column(test_set.test_events, "reason"))),
    (TroubleReason, of(TroubleReason, column(test_set.test_conditions, "reason"))),
    (IntentReason, column(test_intent.test_what_is_in_force, "why")),
    (
        MisfitReason,  # the condition has the same reason
        [
            MisfitReason(one)
            for one in column(test_set.test_conditions, "reason")
            if one in tuple(MisfitReason)
        ],
    ),
    (StartReason, column(test_start.test_groups_with_room_start, "reason")),
    (AskingReason, column(test_asking.test_nodes_are_asked_for, "reason")),
    (RemovalReason, column(test_turnover.test_each_removal_says_why, "reason")),
    (Because, column(test_draining.test_next_step, "because")),
    (
        Fault,
        [
            *column(test_rollout.test_it_fails_when_it_does_not_get_on, "fault"),
            *column(test_rollout.test_it_fails_when_its_answers_are_bad, "fault"),
        ],
    ),
    # The same once more, through the plan, which has a reason of its condition for each.
    (Fault, column(test_revisions.test_an_update_that_fails_and_is_kept_says_what_is_wrong_with_it, "fault")),
    (
        of_fleets.Reason,
        [
            *column(test_fleet.test_conditions, "reason"),
            *column(test_fleet.test_what_is_missing_is_named_and_says_who_mends_it, "reason"),
        ],
    ),
    (PasswordReason, column(test_fleet_decision.test_a_password_is_made_when_it_is_missing, "reason")),
    (PartReason, column(test_fleet_decision.test_a_part_is_written_once_it_can_be_configured, "reason")),
    (LookReason, column(test_fleet_decision.test_a_fleet_is_looked_at_again, "reason")),
    (OlderReason, column(test_rollout_of_fleets.test_an_older_revision, "reason")),
    (ClaimReason, column(test_claims.test_a_claim_follows_its_deletion_policy, "reason")),
    (of_indexes.Reason, column(test_index.test_conditions, "reason")),
    (NextReason, column(test_index_decision.test_a_build_gets_on_or_says_why_not, "reason")),
    (AccessReason, column(test_access.test_when_a_key_is_required, "reason")),
    (KeyReason, column(test_access.test_where_the_key_comes_from, "key")),
    (LiteReason, column(test_index_decision.test_milvus_lite_is_kept_while_somebody_needs_it, "reason")),
    (FarewellReason, column(test_index_decision.test_a_deleted_index_says_farewell, "reason")),
    (of_indexes.EventReason, column(test_index.test_events, "reason")),
    (of_indexes.Phase, column(test_index.test_phases, "phase")),
    (BuildReason, column(test_index.test_a_failed_build_is_shown_where_it_belongs, "reason")),
    (
        BuildReason,
        [
            *column(
                test_refused_builds.test_a_build_that_cannot_go_on_says_why_and_leaves_what_is_live, "reason"
            ),
            *column(test_refused_builds.test_a_secret_that_no_header_can_have_ends_the_step, "reason"),
            *column(
                test_refused_builds.test_a_step_that_fails_reports_its_reason_and_whether_another_try_helps,
                "reason",
            ),
            *column(test_discovery.test_without_documents_there_is_no_build, "reason"),
            *column(test_generations.test_an_error_of_grpcs_own_is_milvus_saying_no, "reason"),
        ],
    ),
    (
        DocumentReason,
        [
            *column(test_formats.test_what_cannot_be_read_is_refused_with_a_reason, "reason"),
            *column(test_refused_builds.test_a_document_that_cannot_be_indexed_is_a_dead_letter, "reason"),
            *test_discovery.HOPELESS.values(),
            *test_formats.OUTCOMES.values(),
            *column(
                test_formats.test_a_document_that_needs_more_memory_than_its_parser_has_costs_itself_alone,
                "reason",
            ),
        ],
    ),
    (
        EndReason,
        [
            *column(test_loop.test_a_task_that_cannot_go_on_ends_with_a_reason, "reason"),
            *column(test_loop.test_an_answer_in_the_journal_counts, "reason"),
            *column(test_engine.test_an_agent_that_lets_a_limit_through_ends_with_its_reason, "reason"),
            *column(test_engine.test_an_effect_that_stays_unknown_ends_the_task, "reason"),
            *column(test_actor.test_how_a_message_ends_that_has_waited_behind_another_one, "reason"),
            *column(test_compensate.test_how_a_task_ends_after_its_compensations, "reason"),
            *column(test_validating.test_what_a_judge_says_decides_how_the_task_ends, "reason"),
        ],
    ),
    (FinishReason, column(test_answers.test_why_an_answer_ended, "reason")),
    (
        ModelProblemReason,
        column(test_model_failures.test_a_problem_ends_its_call_or_may_pass, "reason"),
    ),
    (MissingReason, column(test_race.test_what_becomes_of_a_branch_that_does_not_win, "reason")),
    (
        failures.Reason,
        [
            *column(test_hub.test_what_a_person_must_mend, "reason"),
            *column(test_hub.test_what_may_pass_by_itself_is_tried_again, "reason"),
            *column(test_files.test_a_folder_that_cannot_be_served_is_refused_with_its_reason, "reason"),
            *column(test_adapters.test_another_adapter_is_refused_with_the_field_and_the_fix, "reason"),
            *column(test_unwritable.test_other_ways_not_to_be_written, "reason"),
            *column(test_listing.test_a_list_is_refused_or_not, "reason"),
            *column(test_links.test_a_folder_with_a_link_is_refused, "reason"),
        ],
    ),
    (
        openai_errors.RefusalReason,
        column(test_haproxy.test_a_refusal_is_rendered_with_its_status_code_and_headers, "reason"),
    ),
]


@pytest.mark.holds("draining.md", "Each reason of `Progressing` in the table is given")
@pytest.mark.holds("placement.md", "Each reason of `Placed` in the table is given")
@pytest.mark.holds(
    "tasks.md", "A task ends with one of the listed reasons, and what was found is in `partial`"
)
@pytest.mark.parametrize(
    ("reasons", "expected"), EXPECTED, ids=[f"{enum.__module__}.{enum.__name__}" for enum, _ in EXPECTED]
)
def test_each_reason_is_expected_in_some_row(reasons: type[StrEnum], expected: Iterable[object]) -> None:
    assert set(expected) - {None} == set(reasons)


def enums_of_reasons() -> Iterator[tuple[str, str]]:
    """Module and name of each enum of our packages whose name says that it has reasons."""
    for package in (ROOT / "operator" / "flotilla_operator", ROOT / "runtime" / "flotilla_runtime"):
        for path in package.rglob("*.py"):
            module = ".".join(path.relative_to(package.parent).with_suffix("").parts).removesuffix(
                ".__init__"
            )
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ClassDef) and node.name.endswith("Reason"):
                    yield module, node.name


def test_each_enum_of_reasons_has_its_tables() -> None:
    known = {(enum.__module__, enum.__name__) for enum, _ in EXPECTED}
    found = set(enums_of_reasons())
    assert len(found) > 10
    assert found - known == set()
