"""The contract is one name to import, however many files it is written in."""

import inspect
from importlib import import_module
from pkgutil import iter_modules

import pytest
from pydantic import ValidationError

from flotilla_runtime import contract

# What the parts share, and functions that both sides take from modules of their own.
APART = frozenset(
    f"flotilla_runtime.contract.{name}"
    for name in ("addresses", "approvals", "failure_texts", "redis_rights", "sections")
)


def written() -> dict[str, object]:
    """The names that the parts define, with their values."""
    parts = [import_module(part.name) for part in iter_modules(contract.__path__, f"{contract.__name__}.")]
    return {
        name: value
        for part in parts
        for name, value in vars(part).items()
        if part.__name__ not in APART
        and not name.startswith("_")
        and (name.isupper() or inspect.getmodule(value) is part)
    }


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        pytest.param("10.0.0.7", "10.0.0.7", id="IPv4"),
        pytest.param("fd00::7", "[fd00::7]", id="IPv6"),
        pytest.param("kubernetes.default.svc", "kubernetes.default.svc", id="a name"),
    ],
)
def test_a_host_of_a_url(address: str, shown: str) -> None:
    assert contract.url_host(address) == shown


def test_every_name_is_to_be_had_in_one_place() -> None:
    assert sorted(contract.__all__) == sorted(written())
    assert all(getattr(contract, name) is value for name, value in written().items())


@pytest.mark.holds(
    "tasks.md", "NaN and infinite numbers reach no task: the task API and the front ends name the field"
)
@pytest.mark.parametrize("score", ["NaN", "Infinity", "1e999"])
def test_a_passage_has_a_score_that_every_reader_takes(score: str) -> None:
    passage = f'{{"id": "a", "document": "a", "title": "", "heading": "", "text": "", "score": {score}}}'
    with pytest.raises(ValidationError, match="score"):
        contract.Passage.model_validate_json(passage)
