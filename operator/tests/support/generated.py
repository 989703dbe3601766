"""Whether the cases that a property speaks of are among those that its strategies draw."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

EXAMPLES = 100
ENOUGH = 2  # far below what each case comes to, since the examples differ a little between processes


def seldom_drawn(
    expected: Collection[str],
    cases_of: Callable[..., Iterable[str]],
    *strategies: st.SearchStrategy[Any],
) -> dict[str, int]:
    """The expected cases that hardly any example is of, with their numbers of examples."""
    seen: Counter[str] = Counter()

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        deadline=None,
        phases=(Phase.generate,),
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(st.tuples(*strategies))
    def draw(values: tuple[Any, ...]) -> None:
        seen.update(set(cases_of(*values)))

    draw()
    return {case: seen[case] for case in expected if seen[case] < ENOUGH}
