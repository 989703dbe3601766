"""The condition of a fleet's tools: whether agents can call each of them."""

from collections.abc import Mapping

from flotilla_operator.controllers.agent_fleet.facts import Facts
from flotilla_operator.controllers.agent_fleet.reasons import Reason
from flotilla_operator.controllers.chains import Finding, right
from flotilla_operator.controllers.conditions import MendedBy
from flotilla_operator.controllers.missing import finding_of
from flotilla_runtime import contract

TROUBLES: Mapping[str, tuple[Reason, MendedBy]] = {
    contract.ToolTrouble.NO_ANSWER: (Reason.TOOL_UNREACHABLE, MendedBy.TIME),
    contract.ToolTrouble.MISSING: (Reason.TOOL_MISSING, MendedBy.PERSON),
    contract.ToolTrouble.UNUSABLE: (Reason.TOOL_UNUSABLE, MendedBy.PERSON),
}


def a_tool_cannot_be_called(facts: Facts) -> Finding | None:
    """The secret with the headers of a tool is missing, or may not be sent to it."""
    return finding_of(facts.observed.missing.tools)


def the_image_lacks_a_function(facts: Facts) -> Finding | None:
    """Workers or executors have ended because `image` does not bring a function of the spec."""
    for found in (facts.observed.workers, facts.observed.executors):
        one = found.get(facts.decision.rollout.revision)
        pods = [] if one is None else [pod for pod in one.pods if pod.lacks_function]
        if pods and one is not None and not one.has_ready:
            message = f"spec.image lacks a function that the spec names: {pods[0].trouble}"
            return Finding(reason=Reason.FUNCTION_MISSING, message=message, mended_by=MendedBy.PERSON)
    return None


def the_executors_lack_a_class(facts: Facts) -> Finding | None:
    """A class of the executors' pods is missing."""
    return finding_of(facts.observed.missing.executors)


def no_executor_is_ready(facts: Facts) -> Finding | None:
    """Tool executors of a revision are needed, and none of it runs."""
    wanted = facts.decision.worker_pods.executors
    for revision, number in () if wanted is None else wanted.by_revision:
        one = facts.observed.executors.get(revision)
        if not number or (one is not None and one.has_ready):
            continue
        pods = () if one is None else one.pods
        hopeless = next((pod for pod in pods if pod.hopeless), None)
        trouble = hopeless or next((pod for pod in pods if pod.trouble), None)
        told = "" if trouble is None else f"; {trouble.trouble}"
        message = f"0 of {number} tool executors are ready, and calls of Python tools wait for one{told}"
        if hopeless is not None:
            return Finding(reason=Reason.EXECUTORS_FAIL, message=message, mended_by=MendedBy.PERSON)
        return Finding(reason=Reason.EXECUTORS_STARTING, message=message)
    return None


def workers_cannot_use_a_tool(facts: Facts) -> Finding | None:
    """Workers asked an MCP server or an OpenAPI document what a tool is, and cannot use what came."""
    figures = facts.observed.figures
    named = {tool.name for tool in facts.observed.spec.tools}
    reports = [report for report in figures.tools if report.tool in named] if figures is not None else []
    if not reports:
        return None
    first = next((one for one in reports if one.trouble != contract.ToolTrouble.NO_ANSWER), reports[0])
    reason, mended_by = TROUBLES.get(first.trouble, TROUBLES[contract.ToolTrouble.UNUSABLE])
    others = sorted({report.tool for report in reports} - {first.tool})
    also = f"; see also {', '.join(others)}" if others else ""
    message = f"spec.tools[{first.tool}]: {first.message}{also}"
    return Finding(reason=reason, message=message, mended_by=mended_by)


def names_no_tool(facts: Facts) -> Finding | None:
    """A fleet needs no tool."""
    return None if facts.observed.spec.tools else right(Reason.NO_TOOLS, "spec.tools names no tool")


def tools_can_be_called(facts: Facts) -> Finding:
    """The agents can call every tool of the spec."""
    names = ", ".join(tool.name for tool in facts.observed.spec.tools)
    return right(Reason.TOOLS_AVAILABLE, f"the agents can call {names}")
