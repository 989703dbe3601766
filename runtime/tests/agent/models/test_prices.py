"""Prices of tokens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flotilla_runtime.agent.models import Pricing, Usage, cost_nano_usd

GPT = Pricing(input_per_million_usd=2.5, cached_input_per_million_usd=1.25, output_per_million_usd=10)
COUNTS = st.integers(0, 10**7)


@pytest.mark.parametrize(
    ("usage", "pricing", "cost"),
    [
        pytest.param((1_000_000, 0, 0), GPT, 2_500_000_000, id="a million read"),
        pytest.param((1_000_000, 400_000, 0), GPT, 2_000_000_000, id="of them some cached"),
        pytest.param((0, 0, 7), GPT, 70_000, id="written"),
        pytest.param((0, 0, 0), GPT, 0, id="nothing"),
        pytest.param(
            (1000, 1000, 0),
            Pricing(input_per_million_usd=2.5, output_per_million_usd=10),
            2_500_000,
            id="cached input without a price of its own costs what input costs",
        ),
        pytest.param(
            (1, 1, 0),
            Pricing(input_per_million_usd=1, cached_input_per_million_usd=0, output_per_million_usd=1),
            0,
            id="a price of nothing is a price",
        ),
        pytest.param((1, 0, 0), Pricing(), None, id="no prices"),
        pytest.param((1, 0, 0), Pricing(input_per_million_usd=1), None, id="no price of output"),
        pytest.param((0, 0, 0), Pricing(output_per_million_usd=1), None, id="unknown is not nothing"),
        pytest.param(
            (1, 0, 0), Pricing(input_per_million_usd=0.0001, output_per_million_usd=0), 1, id="rounded up"
        ),
    ],
)
def test_cost(usage: tuple[int, int, int], pricing: Pricing, cost: int | None) -> None:
    read, cached, written = usage
    used = Usage(input_tokens=read, cached_input_tokens=cached, output_tokens=written)
    assert cost_nano_usd(used, pricing) == cost


@given(COUNTS, COUNTS, COUNTS)
def test_the_parts_never_cost_less_than_the_whole(read: int, cached: int, written: int) -> None:
    one = Usage(input_tokens=read, cached_input_tokens=min(cached, read), output_tokens=written)
    price = Pricing(
        input_per_million_usd=0.15, cached_input_per_million_usd=0.075, output_per_million_usd=0.6
    )
    whole, part = cost_nano_usd(one + one, price), cost_nano_usd(one, price)
    assert whole is not None
    assert part is not None
    assert 0 <= 2 * part - whole <= 1
