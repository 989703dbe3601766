"""The patterns of `ctx`. docs/patterns.md says when to use which.

A branch is a function without arguments that makes calls: `lambda: ctx.tool("weather", {"city": "Faro"})`, or
a coroutine function. It runs in a scope of its own, named by its key.
"""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

from flotilla_runtime.agent.patterns.branches import Make
from flotilla_runtime.agent.patterns.documents import (
    CHUNK_TOKENS,
    WORKERS,
    Documented,
    Work,
    documented,
    pool,
    refuse_bad_documents,
)
from flotilla_runtime.agent.patterns.ensemble import Ensemble, Vote, assembled, ensemble_group, vote_of
from flotilla_runtime.agent.patterns.fan_out import fan_out_group, gathered_of
from flotilla_runtime.agent.patterns.fusion import Key
from flotilla_runtime.agent.patterns.map_reduce import (
    AT_ONCE,
    GROUP_SIZE,
    Map,
    Reduce,
    Reduced,
    map_reduce_group,
    reduced,
    refuse_bad_tree,
    tree,
)
from flotilla_runtime.agent.patterns.pipeline import Piped, Pipeline, declarations_of
from flotilla_runtime.agent.patterns.plans import Rate
from flotilla_runtime.agent.patterns.race import Raced, race_group, raced
from flotilla_runtime.agent.patterns.runtime import Calling
from flotilla_runtime.agent.patterns.search import (
    MOST_HITS,
    SEARCH_SECONDS,
    Searched,
    Source,
    search_group,
    searched,
    sources_of,
)
from flotilla_runtime.agent.patterns.values import Gathered
from flotilla_runtime.contract import DEFAULT_ROLE

ROUTINE = "Routine"
Messages = str | Sequence[Mapping[str, Any]]


class Patterns:
    """The patterns of an agent, on its calls."""

    def fan_out(
        self: Calling,
        branches: Mapping[str, Make],
        *,
        timeout_seconds: float | Mapping[str, float] | None = None,
        quorum: int | None = None,
        at_once: int | None = None,
        name: str = "fan_out",
    ) -> Awaitable[Gathered]:
        """Run all branches at once. Each key has a value, or None and a reason in `missing`.

        `timeout_seconds` is that of each branch, or of some. With `quorum`, the rest is given up when so many
        have a value. Ends with what there is; `at_least` of the result raises IncompleteError.
        """
        group = fan_out_group(
            self.branches,
            name,
            branches,
            timeout_seconds=timeout_seconds,
            quorum=quorum,
            at_once=at_once,
        )
        return gathered_of(group, branches)

    def race(
        self: Calling,
        branches: Mapping[str, Make],
        *,
        stagger_seconds: float = 0,
        is_valid: Callable[[Any], bool] | None = None,
        timeout_seconds: float | None = None,
        name: str = "race",
    ) -> Awaitable[Raced]:
        """Begin one branch after another; the first valid value counts, and the others are cancelled at once.

        Each begins so long after the one before it, or when all before it have failed. Raises NoWinnerError.
        """
        group = race_group(
            self.branches,
            name,
            branches,
            stagger_seconds=stagger_seconds,
            is_valid=is_valid,
            timeout_seconds=timeout_seconds,
        )
        return raced(group, branches)

    def search(
        self: Calling,
        query: str,
        sources: Sequence[str | Source] | None = None,
        *,
        top_k: int = MOST_HITS,
        timeout_seconds: float = SEARCH_SECONDS,
        key: Key | None = None,
        name: str = "search",
    ) -> Awaitable[Searched]:
        """Search all indexes of the fleet, or these sources, and fuse what comes by reciprocal rank.

        A source by name is an index or a tool. Each has its own `timeout_seconds`; one that is late or fails
        is in `missing`. Items are the same if their texts are, or if `key` gives the same for them.
        """
        asked = sources_of(self, sources)
        return searched(search_group(self, name, query, asked, timeout_seconds), asked, key, top_k)

    def ensemble(
        self: Calling,
        messages: Messages,
        roles: Sequence[str],
        *,
        judge: str | None = None,
        schema: Mapping[str, Any] | None = None,
        max_tokens: int | None = None,
        temperature: float = 0,
        vote: Vote = vote_of,
        timeout_seconds: float | None = None,
        name: str = "ensemble",
    ) -> Awaitable[Ensemble]:
        """Ask several models the same, and pick one answer by majority, or by the model with this role.

        A majority ends the rest; a judge reads all answers that differ. Raises NoWinnerError.
        """

        def ask(role: str) -> Any:
            return self.llm(
                messages, role=role, schema=schema, max_tokens=max_tokens, temperature=temperature
            )

        ballot = vote if judge is None else None
        group = ensemble_group(self, name, roles, ask, vote=ballot, timeout_seconds=timeout_seconds)
        prompt = messages if isinstance(messages, str) else json.dumps(list(messages), ensure_ascii=False)
        return assembled(self, group, prompt, roles, judge, vote)

    def documents(
        self: Calling,
        texts: Mapping[str, str],
        work: Work,
        *,
        chunk_tokens: int = CHUNK_TOKENS,
        overlap_tokens: int = 0,
        workers: int = WORKERS,
        rate: Rate | None = None,
        counts_tokens: bool = False,
        timeout_seconds: float | None = None,
        name: str = "documents",
    ) -> Awaitable[Documented]:
        """Cut documents at paragraphs and sentences, and do the work for each chunk by a pool of workers.

        All workers keep to one `rate`, in chunks, or in tokens of chunks with `counts_tokens`.
        """
        refuse_bad_documents(texts, chunk_tokens, overlap_tokens, workers)
        return documented(
            self.branches,
            self.branches.allotted(name),
            texts,
            work,
            chunk_tokens=chunk_tokens,
            overlap_tokens=overlap_tokens,
            plan=pool(workers, rate),
            counts_tokens=counts_tokens,
            timeout_seconds=timeout_seconds,
        )

    def map_reduce(
        self: Calling,
        items: Sequence[Any],
        map: Map,  # noqa: A002 - what everybody calls it
        reduce: Reduce,
        *,
        group_size: int = GROUP_SIZE,
        at_once: int = AT_ONCE,
        map_role: str = ROUTINE,
        reduce_role: str = DEFAULT_ROLE,
        timeout_seconds: float | None = None,
        name: str = "map_reduce",
    ) -> Awaitable[Reduced]:
        """Map each item, and reduce the results in groups until one is left.

        `map(item, role)` and `reduce(parts, role)` make calls. The role is `map_role`, a cheap model's, and
        `reduce_role` for the last reduction. An Answer stands for its text.
        """
        refuse_bad_tree(items, group_size, at_once)
        nodes = tree(len(items), group_size)
        group = map_reduce_group(
            self.branches,
            name,
            items,
            nodes,
            (map, reduce),
            (map_role, reduce_role),
            at_once=at_once,
            timeout_seconds=timeout_seconds,
        )
        return reduced(group, nodes)

    def pipeline(
        self: Calling,
        messages: Messages,
        tools: Sequence[str] | None = None,
        *,
        role: str = DEFAULT_ROLE,
        max_tokens: int | None = None,
        name: str = "pipeline",
    ) -> Awaitable[Piped]:
        """Ask a model that may call these tools, or all; calls begin when their arguments are complete.

        Tools that are not Pure begin when the answer is whole. A call that comes to nothing is in `used` with
        the reason. Raises ModelFailedError.
        """
        declared = declarations_of(self.program.tools, tools)
        place = self.branches.allotted(name)
        ask = partial(self.llm, messages, role=role, tools=declared, max_tokens=max_tokens, name="model")
        pipeline = Pipeline(self, place, [tool.name for tool in declared])
        return pipeline.piped(lambda on_event: ask(on_event=on_event))
