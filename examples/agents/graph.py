"""A LangGraph graph as a fleet's agent: it plans with the fleet's tools, and asks before it pays.

Every call of its model and its tools is in the task's journal. The interrupt is an approval of the task.
"""

from collections.abc import Mapping
from typing import Any

from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import interrupt

from flotilla_runtime.graphs import FlotillaChatModel, flotilla_tools

PRICES = {"room": 80, "suite": 300}
ASKS_FROM = 100


def price(article: str) -> int:
    """What an article costs, in euro."""
    return PRICES[article]


tools = flotilla_tools()
model = FlotillaChatModel(answers=True).bind_tools(tools)


async def think(state: MessagesState) -> Mapping[str, Any]:
    """Let the model answer, or ask for tools."""
    return {"messages": [await model.ainvoke(state["messages"])]}


async def check(state: MessagesState) -> Mapping[str, Any]:
    """Ask somebody about what is dear."""
    cost = state["messages"][-1].text
    if not cost.isdecimal() or int(cost) < ASKS_FROM:
        return {}
    decision = interrupt({"question": "May it cost so much?", "euro": int(cost)})
    said = "It may." if decision["approved"] else f"It may not: {decision['comment'] or 'no reason given'}."
    return {"messages": [("user", said)]}


graph = StateGraph(MessagesState)
graph.add_node("think", think)
graph.add_node("tools", ToolNode(tools))
graph.add_node("check", check)
graph.add_edge(START, "think")
graph.add_conditional_edges("think", tools_condition)
graph.add_edge("tools", "check")
graph.add_edge("check", "think")
