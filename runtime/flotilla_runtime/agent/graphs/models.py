"""A model of the fleet as LangChain's chat model.

Each call is one of the task: in its journal, within its limits, with its priority. A node that is repeated
after a kill gets the answers that it had.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LanguageModelInput
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, convert_to_openai_messages
from langchain_core.messages.tool import invalid_tool_call, tool_call
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool

from flotilla_runtime.agent.answers import Answer
from flotilla_runtime.agent.graphs.current import current_run
from flotilla_runtime.agent.graphs.tools import FlotillaTool
from flotilla_runtime.agent.models import NamedTool, ToolChoice, ToolDeclaration
from flotilla_runtime.contract import DEFAULT_ROLE

ToolLike = Mapping[str, Any] | type | Callable[..., Any] | BaseTool
HASH_LETTERS = 8
CHOICES: Mapping[Any, ToolChoice] = {
    "auto": ToolChoice.AUTO,
    "none": ToolChoice.NONE,
    "any": ToolChoice.REQUIRED,
    "required": ToolChoice.REQUIRED,
    True: ToolChoice.REQUIRED,
}


class FlotillaChatModel(BaseChatModel):
    """The fleet's model with this role; one that the fleet lacks stands for Default.

    With `answers` its text is the task's answer, or a part of it: front ends stream it to their clients.
    """

    role: str = DEFAULT_ROLE
    temperature: float = 0
    max_tokens: int | None = None
    answers: bool = False

    @property
    def _llm_type(self) -> str:
        return "flotilla"

    def bind_tools(
        self,
        tools: Sequence[ToolLike],
        *,
        tool_choice: str | bool | None = None,
        **options: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """The model with these tools: of the fleet, or of the graph's own."""
        return self.bind(tools=tuple(tools), tool_choice=tool_choice, **options)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **options: Any,
    ) -> ChatResult:
        return current_run().from_thread(lambda: self._agenerate(messages, stop, None, **options))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **options: Any,
    ) -> ChatResult:
        if stop:
            raise ValueError("models of a fleet take no stop sequences")
        said: Any = convert_to_openai_messages(messages)
        run = current_run()
        tools = [declared(tool, run.context.program.tools) for tool in options.get("tools", ())]
        # The id has what is asked in it: calls that a node makes at the same time come in any order.
        asked = json.dumps([said, [tool.name for tool in tools]], sort_keys=True, ensure_ascii=False)
        mark = hashlib.sha256(asked.encode(errors="replace")).hexdigest()[:HASH_LETTERS]
        answer = await run.call(
            lambda ctx: ctx.llm(
                said,
                role=self.role,
                tools=tools,
                tool_choice=choice_of(options.get("tool_choice")),
                max_tokens=options.get("max_tokens", self.max_tokens),
                temperature=options.get("temperature", self.temperature),
                answers=self.answers,
                name=f"llm/{self.role}@{mark}",
            )
        )
        return ChatResult(generations=[ChatGeneration(message=message_of(answer))])


def declared(tool: ToolLike, known: Mapping[str, Any]) -> ToolDeclaration:
    """A tool as the model is told of it; one of the fleet as the fleet declares it now."""
    if isinstance(tool, FlotillaTool) and tool.name in known:
        found: ToolDeclaration = known[tool.name].declaration
        return found
    function = convert_to_openai_tool(tool)["function"]
    return ToolDeclaration(
        name=function["name"],
        description=function.get("description", ""),
        parameters=function.get("parameters") or {"type": "object", "properties": {}},
        is_strict=bool(function.get("strict")),
    )


def choice_of(choice: Any) -> ToolChoice | NamedTool | None:
    """LangChain's and OpenAI's forms of a choice."""
    if choice is None or choice is False:
        return None
    if isinstance(choice, Mapping):
        return NamedTool(name=choice["function"]["name"])
    return CHOICES.get(choice) or NamedTool(name=str(choice))


def message_of(answer: Answer) -> AIMessage:
    """An answer as LangChain's message. A call whose arguments are no JSON object is an invalid one."""
    good = [one for one in answer.tool_calls if one.problem is None]
    return AIMessage(
        content=answer.text,
        tool_calls=[tool_call(name=one.name, args=dict(one.arguments or {}), id=one.id) for one in good],
        invalid_tool_calls=[
            invalid_tool_call(name=one.name, args=one.arguments_text, id=one.id, error=one.problem.message)
            for one in answer.tool_calls
            if one.problem is not None
        ],
        usage_metadata={
            "input_tokens": answer.input_tokens,
            "output_tokens": answer.output_tokens,
            "total_tokens": answer.input_tokens + answer.output_tokens,
        },
        response_metadata={"finish_reason": "length"} if answer.is_cut else {},
    )
