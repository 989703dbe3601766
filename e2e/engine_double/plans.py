"""Plans: what the double says in each turn of a conversation, chosen by the conversation itself.

A message of the user, or else the system's, names a plan or holds one:

    [[plan:NAME]]
    [[plan {"turns": [{"tool_calls": [{"name": "add", "arguments": {"n": 1}}]}, {"content": "Done."}]}]]

The last such message counts. The number of the turn is that of the assistant's messages behind it. So the
double remembers nothing, hundreds of conversations go on side by side, and one that is killed and started
again goes on where it was. Plans with names are in the configuration's `plans`, or come by POST /admin/plans
and are then lost with the process. The last turn is repeated for ever.

In a plan's texts `{session}` stands for the request's X-Session-Id and `{turn}` for the number of the turn,
counted from 0.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, RootModel, ValidationError

from engine_double.replies import Reply, ScriptedCall, ToolCall, arguments_text
from engine_double.text import message_text

NAMED, INLINE, END = "[[plan:", "[[plan ", "]]"
LONGEST_DELAY_SECONDS = 3600


class Turn(BaseModel):
    """Words of the double in one turn, or in `times` turns one after the other."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    content: str = ""
    tool_calls: tuple[ScriptedCall, ...] = ()
    times: Annotated[int, Field(ge=1)] = 1
    delay_seconds: Annotated[float, Field(ge=0, le=LONGEST_DELAY_SECONDS)] = 0.0


class Plan(BaseModel):
    """The turns of a conversation."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    turns: Annotated[tuple[Turn, ...], Field(min_length=1)]

    def turn(self, number: int) -> Turn:
        """The turn with this number, counted from 0; the last one for all that come after it."""
        for turn in self.turns:
            if number < turn.times:
                return turn
            number -= turn.times
        return self.turns[-1]


class NamedPlans(RootModel[dict[str, Plan]]):
    """The body of POST /admin/plans."""


class UnknownPlanError(Exception):
    """A message names a plan that is not there, or holds something else than a plan."""


def planned(
    messages: Sequence[Mapping[str, Any]], plans: Mapping[str, Plan], *, is_continued: bool
) -> tuple[Turn, int] | None:
    """The turn that this conversation has come to, and its number; None without a plan.

    With `is_continued` the last message is the beginning of the turn's own text.
    """
    places = [
        place
        for role in ("user", "system")
        for place in reversed(range(len(messages)))
        if messages[place].get("role") == role and _directive(message_text(messages[place])) is not None
    ]
    if not places:
        return None
    plan = _plan(_directive(message_text(messages[places[0]])) or "", plans)
    said = sum(1 for message in messages[places[0] :] if message.get("role") == "assistant")
    number = said - 1 if is_continued else said
    return plan.turn(number), number


def reply_of(turn: Turn, number: int, session: str, *, may_call: bool) -> Reply:
    """Words of the double; calls are left out where the request declares no tools."""

    def filled(text: str) -> str:
        return text.replace("{session}", session).replace("{turn}", str(number))

    calls = tuple(
        ToolCall(name=call.name, arguments=filled(arguments_text(call)))
        for call in (turn.tool_calls if may_call else ())
    )
    return Reply(content=filled(turn.content), tool_calls=calls)


def _directive(text: str) -> str | None:
    """The text from the directive on."""
    places = [place for mark in (NAMED, INLINE) if (place := text.find(mark)) >= 0]
    return text[min(places) :] if places else None


def _plan(directive: str, plans: Mapping[str, Plan]) -> Plan:
    if directive.startswith(NAMED):
        name = directive.removeprefix(NAMED).partition(END)[0]
        if name not in plans:
            raise UnknownPlanError(f"no plan is named {name!r}")
        return plans[name]
    try:
        found, _ = json.JSONDecoder().raw_decode(directive.removeprefix(INLINE).lstrip())
        return Plan.model_validate(found)
    except (ValueError, ValidationError) as problem:
        raise UnknownPlanError(f"what a message holds is no plan: {problem}") from problem
