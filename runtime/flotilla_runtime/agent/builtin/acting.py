"""The built-in agent with tools: it plans, acts and observes, turn by turn, until its model answers.

The calls of a turn are made at the same time, and come back to the model in their order. Those that change
nothing begin while the model still writes. Wrong arguments, unknown tools, failures and time-outs come back
too, as words: the model may do better in its next turn.
"""

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from itertools import count
from typing import Any, Final

from flotilla_runtime.agent.answers import Answer, Found
from flotilla_runtime.agent.builtin import prompts
from flotilla_runtime.agent.builtin.citations import cite
from flotilla_runtime.agent.builtin.conversation import (
    ACT,
    CITE,
    SUMMARISE,
    Conversation,
    Observation,
    Sources,
    Turn,
    observed,
)
from flotilla_runtime.agent.builtin.delegating import (
    agent_tools,
    asked_agent,
    declaration_of,
    found_by_agent,
)
from flotilla_runtime.agent.builtin.passages import MOST_SHRINKS, search_all, sources_of
from flotilla_runtime.agent.builtin.searches import Searches, result_of
from flotilla_runtime.agent.builtin.whole_answers import continued
from flotilla_runtime.agent.engine.context import Context, Task
from flotilla_runtime.agent.failures import (
    CallFailedError,
    ModelFailedError,
    PromptTooLongError,
    TaskFailedError,
)
from flotilla_runtime.agent.journal import EndReason
from flotilla_runtime.agent.models import ToolCall, ToolDeclaration
from flotilla_runtime.agent.patterns.early import is_sound, keys_of, why_unknown, why_unsound
from flotilla_runtime.agent.patterns.pipeline import EarlyCalls
from flotilla_runtime.agent.verdicts import repair_words
from flotilla_runtime.contract import DEFAULT_ROLE, Effect, Retrieval

ROUTINE: Final = "Routine"
MOST_CALLS: Final = 16  # of one turn
SUMMARY_SHARE: Final = 8  # a summary may take an eighth of the context
TOO_MANY: Final = f"not called: a turn may have at most {MOST_CALLS} calls"
NO_SUMMARY: Final = "(The earlier turns are no longer shown, and could not be summed up.)"
QUERY: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {"query": {"type": "string", "minLength": 1, "description": "What to search for."}},
    "required": ["query"],
    "additionalProperties": False,
}


class Actor:
    """One task of the acting agent."""

    def __init__(self, ctx: Context, task: Task, context_tokens: int) -> None:
        config = ctx.program.config
        self._ctx = ctx
        self._task = task
        self._context_tokens = context_tokens
        self._model = ctx.program.model(DEFAULT_ROLE).name
        self._searches = Searches(indexes=[index.name for index in config.indexes])
        self._sources = Sources()
        self._first = config.retrieval is Retrieval.FIRST
        self._indexes = {} if self._first else _search_tools(ctx)
        self._agents = agent_tools(ctx.program, taken=self._indexes)
        self._is_repaired = False
        self._tools = [
            *(tool.declaration for tool in ctx.program.tools.values()),
            *(
                ToolDeclaration(name=name, description=f"Searches the index {index}.", parameters=QUERY)
                for name, index in self._indexes.items()
            ),
            *(declaration_of(name, agent) for name, agent in self._agents.items()),
        ]

    async def result(self) -> dict[str, Any]:
        """Work until the model answers."""
        conversation = await self._begun()
        for number in count(1):
            with self._ctx.scope(f"turn/{number}"):
                conversation = await self._fitting(conversation)
                early = self._early_calls()
                try:
                    answer, conversation = await self._answer(conversation, early)
                    if not answer.tool_calls:
                        result = await self._completed(conversation, answer)
                        refusals = () if self._is_repaired else await self._ctx.validate(result)
                        if not refusals:
                            return result
                        self._is_repaired = True
                        conversation = conversation.refused(result["answer"], repair_words(refusals))
                        continue
                    observations = await self._observations(answer.tool_calls, early)
                finally:
                    early.close()
            conversation = conversation.after(Turn(text=answer.text, observations=observations))
            self._ctx.partial = self._searches.partial()
        raise AssertionError("turns have no end")

    async def _begun(self) -> Conversation:
        rules = [self._ctx.program.config.prompt.strip(), ACT, CITE if self._searches.indexes else ""]
        question = self._task.input
        if self._first and self._searches.indexes:
            await search_all(self._ctx, self._task, self._searches)
            sources = prompts.compose(
                instructions="",
                question=question,
                sources=self._searches.sources,
                context_tokens=self._context_tokens,
            ).sources
            question = f"{question}\n\n{self._sources.shown(sources)}"
        system = "\n\n".join(filter(None, rules))
        return Conversation(system=system, question=question, history=self._history(system, question))

    def _history(self, system: str, question: str) -> Sequence[Mapping[str, str]]:
        """As much of what was said before as leaves room for the task itself."""
        bare = prompts.estimated_request_tokens(
            Conversation(system=system, question=question).messages(0), self._tools
        )
        room = self._context_tokens - prompts.answer_tokens(self._context_tokens) - bare
        return prompts.latest_messages(self._task.history, room // 2)

    # One turn

    def _early_calls(self) -> EarlyCalls:
        branches = self._ctx.branches
        return EarlyCalls(
            branches,
            branches.allotted("early"),
            may_begin=self._changes_nothing,
            make=lambda call: _value_of(self._made(call)),
            most=MOST_CALLS,
        )

    def _changes_nothing(self, call: ToolCall) -> bool:
        tool = self._ctx.program.tools.get(call.name)
        is_pure = tool is not None and tool.config.effect is Effect.PURE
        return is_sound(call) and (is_pure or call.name in self._indexes)

    async def _answer(self, conversation: Conversation, early: EarlyCalls) -> tuple[Answer, Conversation]:
        """The model's turn; a prompt that it finds too long is summed up, and shown less of."""
        problem = ""
        for shrinks in range(MOST_SHRINKS + 1):
            messages = conversation.messages(self._context_tokens >> shrinks)
            name = "model" if shrinks == 0 else f"model/{shrinks + 1}"
            try:
                answer = await self._ctx.llm(
                    messages,
                    tools=self._tools,
                    name=name,
                    hashed=name,
                    max_tokens=prompts.next_answer_tokens(self._context_tokens, shrinks),
                    on_event=early.hear,
                    answers=True,
                )
            except PromptTooLongError as too_long:
                problem = too_long.problem
                conversation = await self._summed_up(conversation, name=f"summary/{shrinks + 2}")
            except ModelFailedError as failed:
                problem = failed.problem
                break
            else:
                return answer, conversation
        raise TaskFailedError(EndReason.MODEL_FAILED, f"the model {self._model} gave no answer: {problem}")

    async def _observations(self, calls: tuple[ToolCall, ...], early: EarlyCalls) -> tuple[Observation, ...]:
        """Make the calls of one turn, and return their observations in the order of the calls."""
        keys = keys_of(calls)
        early.keep(keys[:MOST_CALLS])
        async with asyncio.TaskGroup() as group:
            making = [
                group.create_task(
                    _ended((early.begun(key, call) or self._made(call)) if place < MOST_CALLS else TOO_MANY)
                )
                for place, (key, call) in enumerate(zip(keys, calls, strict=True))
            ]
        return tuple(
            Observation(call=call, text=self._seen(call, made.result()))
            for call, made in zip(calls, making, strict=True)
        )

    def _made(self, call: ToolCall) -> Awaitable[Any] | str:
        """The call, or why it is not made. Its id is given here, in the order of the calls."""
        if call.problem is not None or call.arguments is None:
            return why_unsound(call)
        index = self._indexes.get(call.name)
        if index is not None:
            query = call.arguments.get("query")
            is_text = isinstance(query, str) and bool(query.strip())
            return self._ctx.retrieve(index, str(query)) if is_text else "not called: query must be a text"
        if (agent := self._agents.get(call.name)) is not None:
            return asked_agent(self._ctx, agent.name, call.arguments)
        if call.name in self._ctx.program.tools:
            return self._ctx.tool(call.name, call.arguments)
        return why_unknown(call, (tool.name for tool in self._tools))

    def _seen(self, call: ToolCall, ended: Any) -> str:
        """Return the text of a finished call for the model; keep the passages of a search."""
        index = self._indexes.get(call.name)
        if isinstance(ended, CallFailedError):
            if index is not None and index not in self._searches.found:
                self._searches.missing_by_index[index] = ended.problem
            return f"{ended.outcome}: {ended.problem}"
        if call.name in self._agents:
            return found_by_agent(ended)
        if index is None or not isinstance(ended, Found):
            return observed(ended)
        found = sources_of(index, ended)
        self._searches.found.setdefault(index, []).extend(found)
        self._searches.missing_by_index.pop(index, None)
        return self._sources.shown(found)

    async def _completed(self, conversation: Conversation, answer: Answer) -> dict[str, Any]:
        text = await continued(
            self._ctx,
            conversation.messages(self._context_tokens),
            answer,
            name="model",
            partial=self._searches.partial,
        )
        return result_of(text, cite(text, self._sources.all), self._searches.missing)

    # A history that is too long

    async def _fitting(self, conversation: Conversation) -> Conversation:
        """The conversation, summed up if it would not fit the context with an answer."""
        room = self._context_tokens - prompts.answer_tokens(self._context_tokens)
        if prompts.estimated_request_tokens(conversation.messages(self._context_tokens), self._tools) <= room:
            return conversation
        return await self._summed_up(conversation, name="summary")

    async def _summed_up(self, conversation: Conversation, name: str) -> Conversation:
        """A summary by the model with the role Routine in place of all turns but the last."""
        if len(conversation.turns) < 2:
            return conversation
        program = self._ctx.program
        context_tokens = await program.context_of(program.model(ROUTINE))
        most = context_tokens // SUMMARY_SHARE
        room = context_tokens - most - prompts.estimated_tokens(SUMMARISE) - 2 * prompts.MESSAGE_TOKENS
        messages = [
            {"role": "system", "content": SUMMARISE},
            {"role": "user", "content": conversation.told(room * prompts.BYTES_PER_TOKEN)},
        ]
        try:
            answer = await self._ctx.llm(messages, role=ROUTINE, name=name, hashed=name, max_tokens=most)
        except ModelFailedError:
            return conversation.summed_up(conversation.summary or NO_SUMMARY)
        return conversation.summed_up(answer.text)


def _search_tools(ctx: Context) -> dict[str, str]:
    """The names of the tools that search, each with its index; no name is that of another tool."""
    taken = set(ctx.program.tools)
    names: dict[str, str] = {}
    for index in ctx.program.config.indexes:
        name = f"search_{index.name}"
        while name in taken:
            name += "_index"
        names[name] = index.name
    return names


async def _value_of(made: Awaitable[Any] | str) -> Any:
    return made if isinstance(made, str) else await made


async def _ended(made: Awaitable[Any] | str) -> Any:
    """The value of a call, or the error that it ended with."""
    if isinstance(made, str):
        return made
    try:
        return await made
    except CallFailedError as failed:
        return failed
