"""The benchmark of many tasks: who submits what, what a call is, and which figures must be there."""

from pathlib import Path

import pytest

from agents.__main__ import TASKS, wanted
from agents.fleet_run import CALLERS
from agents.load import shares_of, write_keys
from agents.peers.comparison import repeats
from agents.store_alone import call_entries, fsync_seconds
from flotilla_runtime.agent.journal import Done, Intended, decode, encode
from wanted import misses

GOOD = {
    "done": TASKS,
    "effects_repeated": 0,
    "tasks_per_second": 100,
    "gateway_peak_mib": 127,
    "in_flight_per_worker": 500,
    "worker_peak_mib": 511,
    "call_overhead_p50_ms": 2.9,
    "store_calls_per_second": 1689,
    "thousand_call_ratio": 11,
    "answer_cpu_growth": 2,
}


def test_every_task_is_submitted_once_and_all_callers_have_the_same_share() -> None:
    shares = shares_of(range(40, 40 + TASKS), CALLERS)
    assert {len(share) for share in shares} == {TASKS // CALLERS}
    assert sorted(number for share in shares for number in share) == list(range(40, 40 + TASKS))
    assert [list(share) for share in shares_of(range(3), 2)] == [[0, 2], [1]]


def test_each_caller_has_a_key_of_its_own(tmp_path: Path) -> None:
    keys = write_keys(tmp_path / "callers", 3)
    assert {path.name: path.read_text() for path in (tmp_path / "callers").iterdir()} == keys
    assert len(set(keys.values())) == 3


def test_figures_that_are_as_wanted_miss_nothing() -> None:
    assert misses(GOOD, wanted(TASKS)) == []
    assert {miss.wanted.path[0] for miss in misses({}, wanted(TASKS))} == GOOD.keys()


@pytest.mark.holds("performance.md", "The figures of the task benchmarks are what they count")
@pytest.mark.parametrize(
    ("figure", "value"),
    [
        pytest.param("done", TASKS - 1, id="one task that was not done"),
        pytest.param("effects_repeated", 1, id="an effect that happened twice"),
        pytest.param("gateway_peak_mib", 128, id="a gateway that needs its whole memory"),
        pytest.param("in_flight_per_worker", 499, id="a worker with a free place"),
        pytest.param("thousand_call_ratio", 11.1, id="a journal that grows faster than its calls"),
        pytest.param("answer_cpu_growth", 2.1, id="answers that cost more when there are more at once"),
    ],
)
def test_a_miss_is_seen(figure: str, value: float) -> None:
    assert [miss.wanted.path for miss in misses({**GOOD, figure: value}, wanted(TASKS))] == [(figure,)]


def test_a_call_is_an_intent_and_a_result_of_the_runtimes_own() -> None:
    intent, done = call_entries(7, 1)
    assert isinstance(intent, Intended)
    assert isinstance(done, Done)
    assert intent.call == done.call != call_entries(8, 1)[0].call
    assert (decode(encode(intent)), decode(encode(done))) == (intent, done)


def test_effects_that_happened_again_are_counted_and_others_are_not() -> None:
    assert repeats(["1 1", "1 2", "2 1", "1 2", "1 2"]) == 2
    assert repeats(["1 1", "1 2", "2 1"]) == 0


def test_the_disk_takes_some_time(tmp_path: Path) -> None:
    assert fsync_seconds(tmp_path) > 0
