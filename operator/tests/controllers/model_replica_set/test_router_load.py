"""Reports of routers' agents → the rates and the KV usage of the set. The other sums: test_observe."""

from datetime import timedelta

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from flotilla_operator.controllers.model_replica_set.observe.router_load import router_load
from flotilla_operator.replicas.facts import RouterLoad
from flotilla_operator.telemetry.measurements import Measurement, Measurements, Target
from flotilla_runtime.contract import RouterServer, RouterStatus, ServerState
from tests.builders.pods import NOW
from tests.support.generated import seldom_drawn

READY, DRAINING = ServerState.READY, ServerState.DRAINING

Rates = tuple[float | None, float | None]
Caches = dict[str, tuple[ServerState, float | None]]


def status(rates: Rates = (None, None), caches: Caches | None = None) -> RouterStatus:
    servers = tuple(
        RouterServer(name=name, id=1, address="a", state=state, in_flight=0, queued=0, kv_usage=usage)
        for name, (state, usage) in (caches or {}).items()
    )
    return RouterStatus(
        name="llama",
        synced=True,
        draining=False,
        live_routers=1,
        waiting=4,
        in_flight=0,
        arrivals_per_second=rates[0],
        kept_per_second=rates[1],
        max_connections_per_replica=9,
        queue_limit=9,
        servers=servers,
        refused={},
        unusable={},
    )


def told(*statuses: RouterStatus | None) -> RouterLoad:
    """Of routers that said so, the last one most lately; None is one that does not answer."""
    measurements = Measurements()
    for number, answer in enumerate(statuses):
        if answer is not None:
            document = answer.model_dump(mode="json", by_alias=True)
            at = NOW + timedelta(seconds=number)
            measurements.record(str(number), Measurement(at=at, document=document))
    targets = [Target(key=str(number), url="") for number in range(len(statuses))]
    return router_load(measurements.answers(targets, RouterStatus))


@pytest.mark.holds("router.md", "While one router does not tell, no rate is told")
@pytest.mark.parametrize(
    ("statuses", "rates"),
    [
        pytest.param([status((2.0, 1.5))], (2.0, 1.5), id="of one router"),
        pytest.param([status((2.0, 1.5)), status((0.5, 0.25))], (2.5, 1.75), id="of two"),
        pytest.param([status((2.0, 1.5)), status()], (None, None), id="one cannot tell"),
        pytest.param([status((2.0, 1.5)), None], (None, None), id="one does not answer"),
        pytest.param([None], (None, None), id="none answers"),
        pytest.param([], (None, None), id="there is none"),
    ],
)
def test_rates_are_the_sum_over_all_routers(statuses: list[RouterStatus | None], rates: Rates) -> None:
    load = told(*statuses)
    assert (load.arrivals_per_second, load.kept_per_second) == rates
    assert load.waiting == (4 * sum(status is not None for status in statuses) or None)


@pytest.mark.holds(
    "router.md", "`kvUsage` is the mean over the replicas that serve, absent where fewer than half are known"
)
@pytest.mark.parametrize(
    ("caches", "mean"),
    [
        pytest.param([{"x": (READY, 0.2), "y": (READY, 0.6)}], 0.4, id="the mean of the replicas"),
        pytest.param([{"x": (READY, 0.2)}, {"x": (READY, 0.3)}], 0.3, id="what was told last"),
        pytest.param([{"x": (READY, 0.2)}, {"x": (READY, None)}], 0.2, id="by a router that could ask"),
        pytest.param([{"x": (READY, 0.2), "y": (DRAINING, 0.9)}], 0.2, id="of those that serve"),
        pytest.param([{"x": (READY, 0.2), "y": (READY, None)}], 0.2, id="one engine of two does not say"),
        pytest.param([{"x": (READY, 0.2), "y": (READY, None), "z": (READY, None)}], None, id="most do not"),
        pytest.param([{"x": (READY, None)}], None, id="none does"),
        pytest.param([{}], None, id="there are no replicas"),
    ],
)
def test_kv_usage_is_the_mean_over_the_replicas_that_serve(caches: list[Caches], mean: float | None) -> None:
    usage = told(*(status(caches=those) for those in caches)).kv_usage
    assert usage == (None if mean is None else pytest.approx(mean))


Shares = st.dictionaries(
    st.sampled_from("abcdef"),
    st.tuples(
        st.sampled_from([READY, READY, READY, DRAINING, ServerState.ABSENT]),
        st.sampled_from([0.0, 0.25, 1.0, None, None, None]),
    ),
    min_size=1,
)


ROUTERS = st.lists(Shares, min_size=1, max_size=3)


def usage_of(routers: list[Caches]) -> float | None:
    return told(*(status(caches=caches) for caches in routers)).kv_usage


def test_routers_are_drawn_that_tell_a_usage_and_that_tell_none() -> None:
    def cases_of(routers: list[Caches]) -> list[str]:
        return ["known" if usage_of(routers) is not None else "unknown"]

    assert seldom_drawn(("known", "unknown"), cases_of, ROUTERS) == {}


@given(ROUTERS)
@settings(max_examples=25)
def test_kv_usage_is_never_more_or_less_than_some_engine_says(routers: list[Caches]) -> None:
    usage = usage_of(routers)
    assume(usage is not None)
    said = [
        share
        for caches in routers
        for state, share in caches.values()
        if state is READY and share is not None
    ]
    assert usage is not None
    assert min(said) - 1e-9 <= usage <= max(said) + 1e-9
