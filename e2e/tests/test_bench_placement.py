"""The placement benchmark in small: what `make bench-placement` asks of 500 clusters and 100 orders."""

import pytest

from placement.deadlock import violations
from placement.exact import shares


@pytest.mark.holds("performance.md", "Groups that could lock each other out do not, in any order")
def test_groups_that_could_lock_each_other_out_do_not_in_any_order() -> None:
    assert violations(orders=10, seed=7) == 0


@pytest.mark.holds("performance.md", "Small clusters admit what an exact solver admits")
@pytest.mark.holds("decisions/0010-placement-order.md", "Placement admits nearly what an exact solver admits")
def test_a_handful_of_small_clusters_admit_what_an_exact_solver_admits() -> None:
    found = shares(5, seed=7, longest_wait_seconds=0)
    assert found.exact >= 0.99
    assert found.in_turn >= 0.99
