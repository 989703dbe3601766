"""Status of a fleet from its gateways' figures, rounded so that noise causes no write. Pure."""

from typing import Any

from flotilla_operator.api.agent_fleet import AgentFleetSpec
from flotilla_operator.controllers.conditions import rounded
from flotilla_runtime import contract

COMPLETED = "Completed"
CANCELLED = "Cancelled"
WINDOW_MINUTES = 60
QUEUE = "Queue"
MODEL = "Model/"
RATE_LIMIT = "RateLimit/"
NOTICEABLE_WAIT_SHARE = 0.1  # below a tenth of all task time, waiting in the queue is no bottleneck


def completed_tasks(figures: contract.FleetStatus) -> int:
    """How many tasks of the last hour succeeded."""
    return figures.ended.get(COMPLETED, 0)


def judged_tasks(figures: contract.FleetStatus) -> int:
    """How many tasks of the last hour ended by themselves; cancelled ones do not count."""
    return sum(figures.ended.values()) - figures.ended.get(CANCELLED, 0)


def figures_status(figures: contract.FleetStatus, spec: AgentFleetSpec) -> dict[str, Any]:
    """Return the part of the status that shows the gateways' figures."""
    completed, judged = completed_tasks(figures), judged_tasks(figures)
    ended = sum(figures.ended.values())
    looked_up = figures.cache_hits + figures.cache_misses
    cost = None if figures.cost_usd is None or not ended else figures.cost_usd / ended
    return {
        "tasks": {
            "waiting": figures.waiting,
            "running": figures.in_flight,
            "suspended": figures.suspended,
            "admitted": None if figures.admission is None else figures.admission.most,
            "succeeded1h": completed,
            "failed1h": judged - completed,
            "recovered1h": figures.recovered,
            "unknownEffects": figures.unknown_effects,
            "waitingForApproval": figures.waiting_for_approval,
            "deadLetters": figures.dead_letters,
        },
        "store": {
            "usedMiB": rounded(figures.used_mib, 2),
            "limitMiB": rounded(figures.limit_mib),
            "replicas": figures.replicas,
        },
        "latency": {
            "p50Seconds": rounded(figures.p50_seconds, 2),
            "p95Seconds": rounded(figures.p95_seconds, 2),
            "waitP95Seconds": rounded(figures.wait_p95_seconds, 2),
        },
        "goodputPerMinute": rounded(completed / WINDOW_MINUTES),
        "successRate": rounded(completed / judged) if judged else None,
        "tokensPerTask": rounded(figures.tokens / ended) if ended else None,
        "costPerTaskUSD": rounded(cost),
        "cacheHitRate": rounded(figures.cache_hits / looked_up) if looked_up else None,
        "bottleneck": bottleneck(figures, spec),
    }


def waits_for_executors(figures: contract.FleetStatus, spec: AgentFleetSpec) -> bool:
    """Whether calls wait for tool executors although there are as many as allowed."""
    executors, revisions = spec.tool_executors, figures.tool_requests.revisions.values()
    if executors is None:
        return False
    waiting, running = sum(one.waiting for one in revisions), sum(one.running for one in revisions)
    return waiting > 0 and waiting + running > executors.max_replicas * executors.concurrency


def bottleneck(figures: contract.FleetStatus, spec: AgentFleetSpec) -> str:
    """Name the bottleneck of the fleet, judged by where the tasks of the last hour spent their time.

    "ToolExecutors" when `maxReplicas` tool executors would be fully occupied, and calls wait for one.
    "None" while no task waits and the tasks spent less than a tenth of their time waiting, in the queue or
    at rate limits. The rate limit at which workers spent most of their time, if it was one: more workers
    would wait there too. "Workers" when `maxReplicas` workers would all be fully occupied. The model that has
    no room for the tasks that wait. Otherwise the model, index or tool on which the workers spent most of
    their time.
    """
    if waits_for_executors(figures, spec):
        return "ToolExecutors"
    total = sum(figures.busy_seconds.values())
    called = {part: spent for part, spent in figures.busy_seconds.items() if part != QUEUE}
    limited = sum(spent for part, spent in called.items() if part.startswith(RATE_LIMIT))
    waited = figures.busy_seconds.get(QUEUE, 0.0) + limited
    if not figures.waiting and (not total or waited < NOTICEABLE_WAIT_SHARE * total):
        return "None"
    slowest = max(sorted(called), key=lambda part: called[part], default="Workers")
    if slowest.startswith(RATE_LIMIT):
        return slowest
    workers = spec.workers
    if figures.in_flight >= workers.max_replicas * workers.concurrency:
        return "Workers"
    admission = figures.admission
    most = None if admission is None else admission.most
    if admission is not None and most is not None and figures.waiting and figures.in_flight >= most:
        return f"{MODEL}{admission.model}"
    return slowest
