"""The conditions of a set, each as a chain of checks.

`Ready` requires that every wanted replica serves, so its summary includes one more condition than the status
shows. Waiting for room counts as Reconciling, because nodes come and go without the user's help. A missing
secret, a name that is taken, and a set that no node can ever hold count as Stalled: a person must act.
"""

from flotilla_operator.controllers.chains import Chain
from flotilla_operator.controllers.conditions import Condition, with_summary
from flotilla_operator.controllers.model_replica_set.reasons import ConditionType
from flotilla_operator.controllers.model_replica_set.tell import placing, progress, serving
from flotilla_operator.controllers.model_replica_set.tell.facts import Facts

CONDITIONS: tuple[Chain[Facts], ...] = (
    Chain(
        type=ConditionType.SPEC_VALID,
        checks=(
            serving.names_what_is_missing,
            serving.has_a_prefix_that_does_not_count,
            serving.has_unknown_fields,
        ),
        otherwise=serving.is_valid,
    ),
    Chain(
        type=ConditionType.PLACED,
        checks=(
            placing.backs_off,
            placing.has_asked_for_nodes,
            placing.would_not_fit_on_empty_nodes,
            placing.waits_for_room,
            placing.lacks_what_it_names,
            placing.waits_while_paused,
            placing.the_scheduler_binds_no_pod,
            placing.is_left_to_the_scheduler,
        ),
        otherwise=placing.all_are_placed,
    ),
    Chain(
        type=ConditionType.ROUTER_READY,
        checks=(
            serving.a_name_of_the_router_is_taken,
            serving.no_router_is_ready,
            serving.a_router_cannot_use_a_replica,
        ),
        otherwise=serving.a_router_is_ready,
    ),
    Chain(
        type=ConditionType.AVAILABLE,
        checks=(serving.a_replica_serves, serving.none_is_wanted, serving.a_replica_has_trouble),
        otherwise=serving.replicas_start,
    ),
    Chain(
        type=ConditionType.PROGRESSING,
        checks=(
            progress.is_paused_in_an_update,
            progress.is_paused,
            progress.the_revision_has_failed,
            progress.a_replica_moves,
            progress.the_update_waits_for_room,
            progress.an_update_runs,
            progress.nodes_are_emptied,
            progress.the_number_changes,
            progress.the_revision_is_on_trial,
            progress.old_pods_terminate,
        ),
        otherwise=progress.nothing_is_left_to_do,
    ),
)
# Only sets with autoscaling have this condition.
SCALING_ACTIVE: Chain[Facts] = Chain(
    type=ConditionType.SCALING_ACTIVE,
    checks=(serving.autoscaling_has_no_figures,),
    otherwise=serving.autoscaling_decides,
)
# Part of Ready, and not shown.
ALL_REPLICAS: Chain[Facts] = Chain(
    type="AllReplicas",
    checks=(
        progress.runs_another_revision,
        progress.all_serve_the_newest_revision,
        progress.some_serve_an_older_revision,
        serving.a_replica_has_trouble,
    ),
    otherwise=serving.replicas_start,
)


def conditions(facts: Facts) -> list[Condition]:
    """All conditions, followed by Ready, Reconciling and Stalled."""
    chains = CONDITIONS if facts.scaling is None else (*CONDITIONS, SCALING_ACTIVE)
    judged = [chain.condition(facts) for chain in (*chains, ALL_REPLICAS)]
    return [condition for condition in with_summary(judged) if condition.type != ALL_REPLICAS.type]
