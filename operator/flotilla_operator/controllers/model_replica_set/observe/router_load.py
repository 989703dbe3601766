"""Adds up what the agents of a set's routers report."""

from collections.abc import Iterable, Sequence

from flotilla_operator.replicas.facts import RouterLoad
from flotilla_operator.replicas.revisions.answers import Answers
from flotilla_operator.telemetry.measurements import Answered, newest_first
from flotilla_runtime import contract


def router_load(answers: Sequence[Answered[contract.RouterStatus] | None]) -> RouterLoad:
    """The sums over all routers, each with its answer or None; unknown when none reports.

    Rates are unknown unless every router reports, because the rates of half the routers would look like half
    the traffic.
    """
    statuses = [one.answer for one in newest_first(answers)]
    if not statuses:
        return RouterLoad()
    by_group: dict[str, int] = {}
    sessions: dict[str, int] = {}
    answered: dict[str, Answers] = {}
    for status in statuses:
        for server in status.servers:
            by_group[server.name] = by_group.get(server.name, 0) + server.in_flight
            sessions[server.name] = sessions.get(server.name, 0) + server.sessions
            told = Answers(count=server.answers, failed=server.failed, kept=server.kept)
            answered[server.name] = answered.get(server.name, Answers()) + told
    all_answer = len(statuses) == len(answers)
    return RouterLoad(
        waiting=sum(status.waiting + status.held for status in statuses),
        running=sum(status.in_flight for status in statuses),
        by_group=by_group,
        idle_seconds=min(status.idle_seconds for status in statuses) if all_answer else None,
        sessions=sessions,
        answers=answered,
        arrivals_per_second=_sum(status.arrivals_per_second for status in statuses) if all_answer else None,
        kept_per_second=_sum(status.kept_per_second for status in statuses) if all_answer else None,
        kv_usage=_kv_usage(statuses),
        unusable={pod: problem for status in statuses for pod, problem in status.unusable.items()},
        used=frozenset(server.name for status in statuses for server in status.servers if _is_used(server)),
    )


def _is_used(server: contract.RouterServer) -> bool:
    return bool(server.state is contract.ServerState.READY or server.in_flight or server.queued)


def _sum(figures: Iterable[float | None]) -> float | None:
    known = list(figures)
    return None if None in known else sum(figure for figure in known if figure is not None)


def _kv_usage(statuses: Sequence[contract.RouterStatus]) -> float | None:
    """The mean over the replicas that serve, each with the value from the last router that reports one.

    Engines that do not report are left out. If most do not, the mean would say little, so it is unknown.
    """
    ready: dict[str, float | None] = {}
    for status in statuses:
        for server in status.servers:
            if server.state is contract.ServerState.READY and ready.get(server.name) is None:
                ready[server.name] = server.kv_usage
    known = [usage for usage in ready.values() if usage is not None]
    return sum(known) / len(known) if known and 2 * len(known) >= len(ready) else None
