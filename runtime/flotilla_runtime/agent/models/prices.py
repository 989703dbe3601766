"""Prices of tokens. Pure."""

from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import Final

from flotilla_runtime.agent.models.values import Usage

NANO_USD_PER_USD: Final = 10**9
TOKENS_PER_PRICE: Final = 10**6


@dataclass(frozen=True, slots=True, kw_only=True)
class Pricing:
    """US dollars for a million tokens; None is unknown.

    Cached input without a price of its own costs what input costs.
    """

    input_per_million_usd: float | None = None
    cached_input_per_million_usd: float | None = None
    output_per_million_usd: float | None = None


def cost_nano_usd(usage: Usage, pricing: Pricing) -> int | None:
    """The cost in billionths of a dollar, rounded up, so that sums are exact; None if a price is unknown."""
    if pricing.input_per_million_usd is None or pricing.output_per_million_usd is None:
        return None
    cached_price = pricing.cached_input_per_million_usd
    read = _exact(pricing.input_per_million_usd)
    cached = read if cached_price is None else _exact(cached_price)
    dollars = (
        (usage.input_tokens - usage.cached_input_tokens) * read
        + usage.cached_input_tokens * cached
        + usage.output_tokens * _exact(pricing.output_per_million_usd)
    ) / TOKENS_PER_PRICE
    return int((dollars * NANO_USD_PER_USD).to_integral_value(rounding=ROUND_CEILING))


def _exact(price: float) -> Decimal:
    """The price as it was written: 0.1 is a tenth."""
    return Decimal(str(price))
