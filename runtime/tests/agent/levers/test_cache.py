"""Names of cached results, and the similarity of searches. Their use is in test_cached_calls.py."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flotilla_runtime.agent.levers import cache
from flotilla_runtime.agent.levers.cache import Result, Similar
from flotilla_runtime.agent.protocols import SearchRequest

ASKED = SearchRequest(query="why?", top_k=3)


@pytest.mark.holds(
    "agents.md",
    "Searches and Pure tools are answered from the cache for the same tenant, and only while it holds",
)
@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(
            cache.tool_name("ann", "r1", "t", {"a": 1}),
            cache.tool_name("bob", "r1", "t", {"a": 1}),
            id="tenant",
        ),
        pytest.param(
            cache.tool_name("ann", "r1", "t", {}), cache.tool_name("ann", "r2", "t", {}), id="revision"
        ),
        pytest.param(
            cache.tool_name("ann", "r1", "t", {"a": 1}),
            cache.tool_name("ann", "r1", "t", {"a": "1"}),
            id="arguments",
        ),
        pytest.param(cache.tool_name("a", "b", "c", {}), cache.tool_name("a", "bc", "", {}), id="no seams"),
        pytest.param(
            cache.search_name("ann", "i", ASKED),
            cache.search_name("ann", "i", SearchRequest(query="why?")),
            id="number of passages",
        ),
        pytest.param(
            cache.search_name("ann", "i", ASKED),
            cache.search_name("bob", "i", ASKED),
            id="searcher",
        ),
        pytest.param(
            cache.similar_name("ann", "i", 3, "e"),
            cache.similar_name("bob", "i", 3, "e"),
            id="group",
        ),
        pytest.param(
            cache.similar_name("ann", "i", 3, "e"), cache.similar_name("ann", "i", 3, "f"), id="embedder"
        ),
    ],
)
def test_results_of_other_calls_have_other_names(one: str, other: str) -> None:
    assert one != other


def test_the_order_of_arguments_makes_no_difference() -> None:
    assert cache.tool_name("a", "r", "t", {"a": 1, "b": 2}) == cache.tool_name(
        "a", "r", "t", {"b": 2, "a": 1}
    )


def test_a_search_that_is_compared_has_the_name_of_one_that_is_not() -> None:
    compared = SearchRequest(query="why?", top_k=3, compares=True)
    assert cache.search_name("ann", "i", compared) == cache.search_name("ann", "i", ASKED)


@pytest.mark.holds("agents.md", "The cache is bounded in time and bytes, and fails no call")
def test_a_result_comes_back_and_a_large_one_is_not_kept() -> None:
    result = Result(value=[{"text": "so"}], generation="g-1")
    assert cache.read(cache.written(result)) == result
    assert cache.written(Result(value="x" * cache.MOST_ENTRY_BYTES)) is None


@pytest.mark.parametrize("text", [None, "", "{", "1", "[1]", "[1,2,3]"])
def test_what_is_no_result_is_a_miss(text: str | None) -> None:
    assert cache.read(text) is None
    assert cache.read_similar(text) == []


@pytest.mark.holds("agents.md", "The cache is bounded in time and bytes, and fails no call")
@given(st.lists(st.lists(st.floats(-1, 1), min_size=4, max_size=4), min_size=1, max_size=80))
def test_similar_searches_are_bounded_and_the_newest_is_first(vectors: list[list[float]]) -> None:
    text: str | None = None
    for number, vector in enumerate(vectors):
        newest = Similar(name=str(number), vector=vector)
        text = cache.written_similar(cache.read_similar(text), newest)
    known = cache.read_similar(text)
    assert [one.name for one in known] == [str(n) for n in reversed(range(len(vectors)))][
        : cache.MOST_SIMILAR
    ]
    assert known[0].vector == pytest.approx(vectors[-1])


@pytest.mark.holds("agents.md", "The cache is bounded in time and bytes, and fails no call")
def test_long_vectors_are_bounded_by_bytes() -> None:
    known: list[Similar] = []
    for number in range(20):
        text = cache.written_similar(known, Similar(name=str(number), vector=[0.5] * 4096))
        assert len(text) <= cache.MOST_ENTRY_BYTES
        known = cache.read_similar(text)
    assert 10 < len(known) < 20


@pytest.mark.holds("agents.md", "Of equal and similar searches only those near enough count")
def test_the_nearest_search_counts_if_it_is_near_enough() -> None:
    known = [
        Similar(name="east", vector=[1.0, 0.0]),
        Similar(name="north", vector=[0.0, 1.0]),
        Similar(name="of another model", vector=[1.0, 0.0, 0.0]),
    ]
    almost_east = [math.cos(0.1), math.sin(0.1)]
    assert cache.nearest(known, almost_east, 0.99) == "east"
    assert cache.nearest(known, almost_east, 0.999) is None
    assert cache.nearest([], almost_east, 0.1) is None


@pytest.mark.parametrize(
    "vector",
    [
        None,
        "x",
        [],
        [0.0, 0.0],
        [float("nan")],
        [10**400],
        [1.7e308, 1.7e308],
        ["1"],
        [1.0] * (cache.MOST_DIMENSIONS + 1),
    ],
)
def test_what_is_no_vector(vector: Any) -> None:
    assert cache.normalized(vector) is None


def test_a_vector_gets_the_length_one() -> None:
    assert cache.normalized([3, 4]) == pytest.approx([0.6, 0.8])
