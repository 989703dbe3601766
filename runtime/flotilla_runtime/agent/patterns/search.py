"""A search of several sources at once: indexes, and tools such as an HTTP search or a SQL query.

Each source has its own deadline. What comes in time is fused; what does not is named, and marks the result.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from flotilla_runtime.agent.patterns.branches import Branch, Group
from flotilla_runtime.agent.patterns.fusion import Hit, Items, Key, fused, items_of
from flotilla_runtime.agent.patterns.plans import Plan
from flotilla_runtime.agent.patterns.runtime import Calling
from flotilla_runtime.agent.patterns.values import Missing, MissingReason, PatternKind, gathered, numbered

SEARCH_SECONDS: Final = 5.0
MOST_HITS: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A place to search: an `index`, or a `tool` that takes the query as an argument.

    `arguments` are the tool's other ones. `items` finds the ranked items in what the tool gives. `depth` is
    how many items of an index are asked for.
    """

    index: str | None = None
    tool: str | None = None
    query_argument: str = "query"
    arguments: Mapping[str, Any] = field(default_factory=dict)
    items: Items = items_of
    weight: float = 1
    depth: int | None = None
    timeout_seconds: float | None = None

    def __post_init__(self) -> None:
        if (self.index is None) == (self.tool is None):
            raise ValueError("a source has either an index or a tool")

    @property
    def name(self) -> str:
        """The name of the index or the tool."""
        return str(self.index or self.tool)


@dataclass(frozen=True, slots=True, kw_only=True)
class Searched:
    """The best items of all sources that answered in time. `missing` names the others."""

    hits: tuple[Hit, ...]
    sources: int
    missing: Mapping[str, Missing] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        """Whether every source answered in time."""
        return not self.missing

    @property
    def document(self) -> dict[str, Any]:
        """All of it as JSON, marked as incomplete where it is."""
        return {
            "hits": [hit.document for hit in self.hits],
            "expected": self.sources,
            "received": self.sources - len(self.missing),
            "complete": self.is_complete,
            "missing": {key: missing.document for key, missing in self.missing.items()},
        }


def search_group(
    ctx: Calling, name: str, query: str, sources: Mapping[str, Source], timeout_seconds: float
) -> Group:
    """A branch for each source."""
    if not sources:
        raise ValueError("there is nothing to search: the fleet has no index, and no source was given")
    branches = [
        Branch(
            key=key,
            make=_asking(ctx, query, source),
            timeout_seconds=timeout_seconds if source.timeout_seconds is None else source.timeout_seconds,
        )
        for key, source in sources.items()
    ]
    return Group(ctx.branches, ctx.branches.allotted(name), branches, Plan(kind=PatternKind.SEARCH))


def sources_of(ctx: Calling, asked: Sequence[str | Source] | None) -> dict[str, Source]:
    """The sources by their keys; without any, the indexes of the fleet.

    A key is a source's name, numbered where it comes again: in the journal, in `missing` and in the ranks.
    """
    indexes = [index.name for index in ctx.program.config.indexes]
    if asked is None:
        return {index: Source(index=index) for index in indexes}
    sources = [
        source
        if isinstance(source, Source)
        else Source(index=source)
        if source in indexes or source not in ctx.program.tools
        else Source(tool=source)
        for source in asked
    ]
    return dict(zip(numbered([source.name for source in sources]), sources, strict=True))


async def searched(
    group: Group, sources: Mapping[str, Source], key_of_item: Key | None, top_k: int
) -> Searched:
    """The fused items."""
    ended = gathered(list(sources), await group.ended())
    missing = dict(ended.missing)
    found: dict[str, Sequence[Any]] = {}
    for key, source in sources.items():
        if key in missing:
            continue
        try:
            found[key] = _checked(source.items(ended.values[key]), key_of_item)
        except Exception as problem:
            text = f"{type(problem).__name__}: {problem}"
            missing[key] = Missing(reason=MissingReason.REFUSED, problem=text)
    weights = {key: source.weight for key, source in sources.items()}
    hits = fused(found, weights=weights, key=key_of_item, most=top_k)
    return Searched(hits=hits, sources=len(sources), missing=missing)


def _checked(items: Sequence[Any], key: Key | None) -> Sequence[Any]:
    """Items of which each has a key, so that one source with strange items spoils no other."""
    fused({"": items}, weights={}, key=key, most=1)
    return items


def _asking(ctx: Calling, query: str, source: Source) -> Callable[[], Awaitable[Any]]:
    if source.tool is not None:
        return partial(ctx.tool, source.tool, {**source.arguments, source.query_argument: query})
    return partial(_passages, ctx, str(source.index), query, source.depth)


async def _passages(ctx: Calling, index: str, query: str, depth: int | None) -> Any:
    return (await ctx.retrieve(index, query, top_k=depth)).passages
