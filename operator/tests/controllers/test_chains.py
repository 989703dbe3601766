"""Chains of checks: which check speaks, and what the condition then says."""

import pytest

from flotilla_operator.controllers.chains import Chain, Finding, first_finding, right
from flotilla_operator.controllers.conditions import Condition, MendedBy, Truth


def is_odd(number: int) -> Finding | None:
    message = f"{number} is odd"
    return Finding(reason="Odd", message=message, mended_by=MendedBy.PERSON) if number % 2 else None


def is_large(number: int) -> Finding | None:
    return Finding(reason="Large", status=Truth.UNKNOWN) if number > 9 else None


def is_fine(number: int) -> Finding:
    return right("Fine")


CHAIN = Chain(type="Small", checks=(is_odd, is_large), otherwise=is_fine)


@pytest.mark.parametrize(
    ("number", "condition"),
    [
        pytest.param(
            11,
            Condition(
                type="Small",
                status=Truth.FALSE,
                reason="Odd",
                message="11 is odd",
                mended_by=MendedBy.PERSON,
            ),
            id="the first of two that object",
        ),
        pytest.param(
            10, Condition(type="Small", status=Truth.UNKNOWN, reason="Large"), id="the second alone"
        ),
        pytest.param(2, Condition(type="Small", status=Truth.TRUE, reason="Fine"), id="nobody objects"),
    ],
)
def test_the_first_check_that_objects_gives_the_condition(number: int, condition: Condition) -> None:
    assert CHAIN.condition(number) == condition


def test_a_chain_in_which_nobody_objects_finds_nothing() -> None:
    assert first_finding(CHAIN.checks, 2) is None
    assert first_finding((), 11) is None
