"""Thirty seeded schedules of faults; `make bench-faults` plays three hundred."""

import pytest

from tests.scenes.schedules import play

pytestmark = [pytest.mark.scenes, pytest.mark.once]

SEEDS = range(30)


@pytest.mark.holds("decisions/0016-lost-answers.md", "Drawn faults double, cut, leave and stop nothing")
@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_doubled_cut_left_or_stuck(seed: int) -> None:
    assert play(seed).problems == []
