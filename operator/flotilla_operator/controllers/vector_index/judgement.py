"""The conditions of an index, each as a chain of checks.

The checks of what it needs are in needs.py, those of what it makes in results.py. A failed build is reported
twice: in the condition of its cause (the source, the embedder, Milvus or the validation) and in Built.
"""

from flotilla_operator.controllers.chains import Chain
from flotilla_operator.controllers.conditions import Condition, with_summary
from flotilla_operator.controllers.vector_index import needs, results
from flotilla_operator.controllers.vector_index.facts import Facts
from flotilla_operator.controllers.vector_index.needs import broke_the_build, lacks
from flotilla_operator.controllers.vector_index.reasons import ConditionType

CONDITIONS: tuple[Chain[Facts], ...] = (
    Chain(type=ConditionType.SPEC_VALID, checks=(needs.has_unknown_fields,), otherwise=needs.is_valid),
    Chain(
        type=ConditionType.SOURCE_REACHABLE,
        checks=(
            lacks(ConditionType.SOURCE_REACHABLE),
            broke_the_build(ConditionType.SOURCE_REACHABLE),
            needs.documents_were_found,
        ),
        otherwise=needs.nobody_has_looked,
    ),
    Chain(
        type=ConditionType.EMBEDDER_READY,
        checks=(
            lacks(ConditionType.EMBEDDER_READY),
            broke_the_build(ConditionType.EMBEDDER_READY),
            needs.the_model_is_not_available,
        ),
        otherwise=needs.the_model_is_available,
    ),
    Chain(
        type=ConditionType.MILVUS_READY,
        checks=(
            needs.the_name_of_milvus_is_taken,
            lacks(ConditionType.MILVUS_READY),
            broke_the_build(ConditionType.MILVUS_READY),
            needs.milvus_is_the_users,
            needs.milvus_is_not_ready,
        ),
        otherwise=needs.milvus_is_ready,
    ),
    Chain(
        type=ConditionType.BUILT,
        checks=(
            results.the_name_of_the_workspace_is_taken,
            lacks(ConditionType.BUILT),
            results.the_build_is_live,
            results.is_paused,
            results.the_model_is_not_known,
            results.the_report_was_lost,
            results.the_build_failed,
            results.the_step_waits,
        ),
        otherwise=results.the_build_runs,
    ),
    Chain(
        type=ConditionType.VALIDATED,
        checks=(broke_the_build(ConditionType.VALIDATED), results.the_build_was_validated),
        otherwise=results.nothing_was_validated,
    ),
    Chain(
        type=ConditionType.RETRIEVER_READY,
        checks=(
            results.the_name_of_the_retriever_is_taken,
            lacks(ConditionType.RETRIEVER_READY),
            results.no_retriever_is_ready,
        ),
        otherwise=results.a_retriever_is_ready,
    ),
)


def conditions(facts: Facts) -> list[Condition]:
    """All conditions, followed by Ready, Reconciling and Stalled."""
    return with_summary([chain.condition(facts) for chain in CONDITIONS])
