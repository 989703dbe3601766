"""The reservation of a call of a model, and the most tokens of its answer. Pure.

An answer may take what the context and the budget of the tree leave, and no more than its model's bound.
Where little is left because other calls hold reservations, the call asks for a decent answer all the same: it
is refused for now, and waits for them.
"""

from dataclasses import replace
from fractions import Fraction
from typing import Final

from flotilla_runtime.agent import models
from flotilla_runtime.agent.budgets import Amount, Budget
from flotilla_runtime.agent.builtin import prompts
from flotilla_runtime.agent.models import ModelRequest, PromptTokens, Usage, cost_nano_usd
from flotilla_runtime.contract import Pricing

READS_AND_ANSWERS: Final = ((3, 3), (2, 2), (2, 1))  # what a call reserves, the first of them that fits
NANO_USD_PER_PRICE: Final = 1000  # a dollar for a million tokens is a thousand billionths for one


def reserved(
    request: ModelRequest,
    counted: PromptTokens,
    *,
    context_tokens: int,
    pricing: Pricing,
    budget: Budget,
    max_output_tokens: int | None = None,
) -> tuple[ModelRequest, Amount]:
    """The request cut to what is left, and what all its tries together can use."""
    prompt = counted.tokens
    room = max(prompts.LEAST_ANSWER_TOKENS, context_tokens - _believed(request, counted))
    wanted = min(request.max_tokens, room, max_output_tokens or room)
    affordable = min(budget.left_tokens - prompt, _affordable_answer(prompt, pricing, budget, most=wanted))
    least = prompts.LEAST_ANSWER_TOKENS
    if budget.reserved.tokens or budget.reserved.nano_usd:
        least = max(least, prompts.answer_tokens(context_tokens))
    max_tokens = min(wanted, max(affordable, least))
    once = _amount(prompt, max_tokens, pricing)
    # Two tries may fail after the prompt was read, with much or little of the answer written.
    more = (_amount(reads * prompt, answers * max_tokens, pricing) for reads, answers in READS_AND_ANSWERS)
    amount = next((each for each in more if budget.has_room(each)), once)
    cut = replace(request, max_tokens=max_tokens, prompt_tokens=prompt, allowance_tokens=amount.tokens)
    return cut, amount


def cost_of(usage: Usage, pricing: Pricing) -> int | None:
    """The cost of tokens, in billionths of a dollar; None if a price is unknown."""
    return cost_nano_usd(usage, models.Pricing(**pricing.model_dump()))


def _believed(request: ModelRequest, counted: PromptTokens) -> int:
    """How long the prompt is likely to be, where only a bound is known: most are far below it."""
    if counted.is_measured:
        return counted.tokens
    return min(counted.tokens, prompts.estimated_request_tokens(request.messages, request.tools))


def _amount(prompt: int, answer: int, pricing: Pricing) -> Amount:
    cost = cost_of(Usage(input_tokens=prompt, output_tokens=answer), pricing)
    return Amount(steps=1, tokens=prompt + answer, nano_usd=cost or 0)


def _affordable_answer(prompt: int, pricing: Pricing, budget: Budget, *, most: int) -> int:
    """How many tokens of an answer the money lasts for."""
    price = pricing.output_per_million_usd
    read = cost_of(Usage(input_tokens=prompt), pricing)
    if budget.most_nano_usd is None or not price or read is None:
        return most
    left = budget.most_nano_usd - budget.used.nano_usd - budget.reserved.nano_usd - read
    return int(left / (Fraction(str(price)) * NANO_USD_PER_PRICE))
