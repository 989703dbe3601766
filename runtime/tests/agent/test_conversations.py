"""Conversations: the messages that are kept, and how many."""

from typing import Any

import pytest

from flotilla_runtime.agent.conversations import (
    MOST_TEXT_BYTES,
    MOST_TURN_BYTES,
    Message,
    Role,
    answer_text,
    conversation_key,
    latest,
    messages_of,
    messages_text,
    said_in,
    turn_messages,
)


def user(text: str) -> Message:
    return Message(role=Role.USER, text=text)


def assistant(text: str) -> Message:
    return Message(role=Role.ASSISTANT, text=text)


@pytest.mark.parametrize(
    ("result", "text"),
    [
        pytest.param({"answer": "so", "citations": []}, "so", id="the built-in agent's"),
        pytest.param("so", "so", id="a text"),
        pytest.param({"city": "Lisbon"}, '{"city": "Lisbon"}', id="an object"),
        pytest.param({"answer": 7}, '{"answer": 7}', id="an answer that is no text"),
        pytest.param(None, "null", id="nothing"),
    ],
)
def test_the_answer_of_a_result(result: Any, text: str) -> None:
    assert answer_text(result) == text


def test_a_turn_is_cut_and_its_oldest_messages_are_left_out() -> None:
    history = [message for _ in range(4) for message in (user("a" * MOST_TEXT_BYTES), assistant("b"))]
    said = turn_messages(history, "é" * MOST_TEXT_BYTES, {"answer": "so"})
    assert said[-1] == assistant("so")
    assert said[-2].text.endswith("…")
    assert len(said[-2].text.encode()) <= MOST_TEXT_BYTES
    assert said[0].role is Role.USER
    assert MOST_TURN_BYTES // 2 < sum(len(one.text.encode()) for one in said) <= MOST_TURN_BYTES


@pytest.mark.parametrize(
    ("most", "texts"),
    [
        pytest.param(100, ["q1", "a1", "q2", "a2"], id="all"),
        pytest.param(6, ["q2", "a2"], id="an answer without its question is left out"),
        pytest.param(3, [], id="nothing"),
    ],
)
def test_the_end_of_what_was_said(most: int, texts: list[str]) -> None:
    said = [user("q1"), assistant("a1"), user("q2"), assistant("a2")]
    assert [one.text for one in latest(said, most)] == texts


def test_messages_come_back_as_they_went_and_what_is_no_unicode_is_replaced() -> None:
    said = (user("é \n"), assistant("a\ud83d"))
    assert messages_of(messages_text(said)) == (user("é \n"), assistant("a?"))
    assert said_in([f"c1 {messages_text(said[:1])}", f"c2 {messages_text(said[:1])}"]) == (said[0], said[0])


def test_tenants_have_conversations_of_their_own() -> None:
    assert conversation_key("a", "talk") == conversation_key("a", "talk")
    assert (
        len({conversation_key("a", "talk"), conversation_key("b", "talk"), conversation_key("a", "t")}) == 3
    )
