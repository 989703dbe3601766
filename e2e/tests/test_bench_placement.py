"""The placement benchmark in small: what `make bench-placement` asks of 500 clusters and 100 orders."""

from placement.deadlock import violations
from placement.exact import shares


def test_groups_that_could_lock_each_other_out_do_not_in_any_order() -> None:
    assert violations(orders=10, seed=7) == 0


def test_a_handful_of_small_clusters_admit_what_an_exact_solver_admits() -> None:
    found = shares(5, seed=7, longest_wait_seconds=0)
    assert found.exact >= 0.99
    assert found.in_turn >= 0.99
