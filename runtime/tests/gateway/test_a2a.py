"""The official A2A client against a real gateway, Redis and worker; the model is a double."""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx  # A2A's client needs it
import pytest
from a2a.client import Client, ClientConfig, ClientFactory
from a2a.client.card_resolver import A2ACardResolver
from a2a.types import a2a_pb2 as a2a
from a2a.utils.errors import (
    ContentTypeNotSupportedError,
    InvalidParamsError,
    TaskNotFoundError,
    UnsupportedOperationError,
)

from agent_support.words import fleet_with_worker
from flotilla_runtime.agent.journal import TaskStatus
from flotilla_runtime.contract import GatewayAuth
from flotilla_runtime.gateway.a2a.views import statuses_of
from leaks.planted import planted

pytestmark = pytest.mark.services


@asynccontextmanager
async def client_of(fleet: Any, key: str = "none", *, streaming: bool = True) -> AsyncIterator[Client]:
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(headers=headers, timeout=60) as http:
        card = await A2ACardResolver(http, fleet.gateway_url).get_agent_card()
        async with ClientFactory(ClientConfig(httpx_client=http, streaming=streaming)).create(card) as client:
            yield client


def sends(text: str = "How?", *, returns: bool = False, **fields: Any) -> a2a.SendMessageRequest:
    message = a2a.Message(
        **{
            "message_id": str(uuid.uuid4()),
            "role": a2a.ROLE_USER,
            "parts": [a2a.Part(text=text)],
            **fields,
        }
    )
    return a2a.SendMessageRequest(
        message=message, configuration=a2a.SendMessageConfiguration(return_immediately=returns)
    )


async def sent(client: Client, request: a2a.SendMessageRequest) -> a2a.Task:
    [told] = [response async for response in client.send_message(request)]
    task: a2a.Task = told.task
    return task


def text_of(task: a2a.Task) -> str:
    return "".join(part.text for artifact in task.artifacts for part in artifact.parts)


@pytest.mark.holds("front-ends.md", "The agent's card names the address at which it was asked for")
async def test_a_card_names_where_the_agent_is(fleet: Any) -> None:
    async with httpx.AsyncClient() as http:
        card = await A2ACardResolver(http, fleet.gateway_url).get_agent_card()
        assert (card.name, card.description) == ("support", "Answers questions.")
        assert card.supported_interfaces[0].url == f"{fleet.gateway_url}/a2a"
        assert card.capabilities.streaming
        wrong = await http.get(f"{fleet.gateway_url}/.well-known/agent-card.json", headers={"Host": "a/b@c"})
        assert wrong.status_code == 400


@pytest.mark.holds("front-ends.md", "A message's context is its conversation, and its id the idempotency key")
async def test_messages_of_one_context_are_a_conversation(fleet: Any) -> None:
    async with fleet_with_worker(fleet) as model, client_of(fleet, streaming=False) as client:
        model.going.set()
        first = await sent(client, sends("How?"))
        assert (first.status.state, text_of(first)) == (a2a.TASK_STATE_COMPLETED, "VACUUM frees space.")
        second = await sent(client, sends("And then?", context_id=first.context_id))
        assert second.context_id == first.context_id
        assert [message["content"] for message in model.asked[1][1:]] == [
            "How?",
            "VACUUM frees space.",
            "And then?",
        ]
        known = await client.get_task(a2a.GetTaskRequest(id=first.id))
        assert known.history[0].parts[0].text == "How?"
        listed = await client.list_tasks(a2a.ListTasksRequest(context_id=first.context_id))
        assert {task.id for task in listed.tasks} == {first.id, second.id}
        assert (await fleet.task(first.id))["conversationId"] == first.context_id


@pytest.mark.holds("front-ends.md", "A message's context is its conversation, and its id the idempotency key")
async def test_a_message_that_is_sent_again_starts_no_second_task(fleet: Any) -> None:
    async with client_of(fleet, streaming=False) as client:
        request = sends(returns=True)
        assert (await sent(client, request)).id == (await sent(client, request)).id


@pytest.mark.holds(
    "front-ends.md", "A stream of A2A that was left is subscribed anew, and the answer is whole"
)
@pytest.mark.once
async def test_a_stream_that_is_left_is_subscribed_anew_and_is_whole(fleet: Any) -> None:
    async with fleet_with_worker(fleet) as model:
        async with client_of(fleet) as client:
            task = await first_words(client)
        async with client_of(fleet) as client:
            text, states = "", []
            async for told in client.subscribe(a2a.SubscribeToTaskRequest(id=task)):
                model.going.set()
                match told.WhichOneof("payload"):
                    case "artifact_update" if told.artifact_update.artifact.artifact_id == "answer":
                        new = told.artifact_update.artifact.parts[0].text
                        text = text + new if told.artifact_update.append else new
                    case "status_update":
                        states.append(told.status_update.status.state)
            known = await client.get_task(a2a.GetTaskRequest(id=task))
    assert (text, text_of(known)) == ("VACUUM frees space.", "VACUUM frees space.")
    assert states[-1] == a2a.TASK_STATE_COMPLETED
    assert len(model.asked) == 1


async def first_words(client: Client) -> str:
    """Leave a stream when the first words have come."""
    async for told in client.send_message(sends()):
        if told.WhichOneof("payload") == "artifact_update":
            return str(told.artifact_update.task_id)
    raise AssertionError("no words came")


@pytest.mark.holds(
    "front-ends.md",
    "Tasks are cancelled over A2A, files and second messages are refused, and clients of version "
    "0.3 are answered",
)
async def test_a_task_is_cancelled_once(fleet: Any) -> None:
    async with client_of(fleet, streaming=False) as client:
        task = await sent(client, sends(returns=True))
        cancelled = await client.cancel_task(a2a.CancelTaskRequest(id=task.id))
        assert cancelled.status.state == a2a.TASK_STATE_CANCELED


@pytest.mark.holds("front-ends.md", "Tasks are listed over A2A by the state in which they are shown")
async def test_tasks_are_listed_by_their_state(fleet: Any) -> None:
    async with client_of(fleet, streaming=False) as client:
        context = str(uuid.uuid4())
        task = await sent(client, sends(returns=True, context_id=context))

        async def listed(**fields: Any) -> list[str]:
            page = await client.list_tasks(a2a.ListTasksRequest(context_id=context, **fields))
            return [one.id for one in page.tasks]

        assert await listed() == await listed(status=a2a.TASK_STATE_SUBMITTED) == [task.id]
        assert await listed(status=a2a.TASK_STATE_WORKING) == []
        assert await listed(status=a2a.TASK_STATE_INPUT_REQUIRED) == [], "no task of a fleet is in this state"
        with pytest.raises(InvalidParamsError, match="pageToken"):
            await listed(page_token="z")
    working = statuses_of(a2a.TASK_STATE_WORKING)
    assert working == frozenset({TaskStatus.RUNNING, TaskStatus.SUSPENDED}), (
        "what is shown as working is listed so"
    )


@pytest.mark.holds(
    "front-ends.md",
    "Tasks are cancelled over A2A, files and second messages are refused, and clients of version "
    "0.3 are answered",
)
async def test_what_the_fleet_does_not_take_is_refused(fleet: Any) -> None:
    async with client_of(fleet, streaming=False) as client:
        task = await sent(client, sends(returns=True))
        with pytest.raises(UnsupportedOperationError, match="takes one message"):
            await sent(client, sends(task_id=task.id))
        with pytest.raises(ContentTypeNotSupportedError):
            await sent(client, sends(parts=[a2a.Part(raw=b"x", media_type="image/png")]))
        with pytest.raises(TaskNotFoundError):
            await client.get_task(a2a.GetTaskRequest(id="nope"))


@pytest.mark.holds(
    "front-ends.md",
    "Tasks are cancelled over A2A, files and second messages are refused, and clients of version "
    "0.3 are answered",
)
async def test_an_older_client_is_answered(fleet: Any) -> None:
    message = {
        "messageId": "m1",
        "role": "user",
        "parts": [{"kind": "text", "text": "How?"}],
        "kind": "message",
    }
    body = {"jsonrpc": "2.0", "id": 1, "method": "message/send", "params": {"message": message}}
    body["params"]["configuration"] = {"blocking": False}  # type: ignore[index]
    async with httpx.AsyncClient(base_url=fleet.gateway_url) as http:
        answer = (await http.post("/a2a", json=body)).json()
    assert answer["result"]["status"]["state"] == "submitted", answer


@pytest.mark.holds("front-ends.md", "Both front ends have the callers and rights of the task API")
@pytest.mark.attack("An agent reads or cancels somebody else's task over A2A")
async def test_the_callers_and_rights_are_those_of_the_task_api(own_fleet: Any) -> None:
    for name in ("ann", "bob"):
        (own_fleet.callers / name).write_text(planted(name))
    await own_fleet.start_gateway(GatewayAuth.SECRET, serves_a2a=True)
    async with (
        client_of(own_fleet, planted("ann"), streaming=False) as ann,
        client_of(own_fleet, planted("bob")) as bob,
    ):
        task = await sent(ann, sends(returns=True))
        for asked in (
            bob.get_task(a2a.GetTaskRequest(id=task.id)),
            bob.cancel_task(a2a.CancelTaskRequest(id=task.id)),
        ):
            with pytest.raises(TaskNotFoundError):
                await asked
        with pytest.raises(TaskNotFoundError):
            await anext(aiter(bob.subscribe(a2a.SubscribeToTaskRequest(id=task.id))))
        async with client_of(own_fleet, planted("bob"), streaming=False) as sending:
            other = await sent(sending, sends(returns=True, context_id=task.context_id))
        listed = await bob.list_tasks(a2a.ListTasksRequest(context_id=task.context_id))
        assert [one.id for one in listed.tasks] == [other.id] != [task.id]
    async with httpx.AsyncClient(base_url=own_fleet.gateway_url) as http:
        refused = await http.post("/a2a", content=b"x" * 10, headers={"Authorization": "Bearer wrong"})
        assert refused.status_code == 401
        long = await http.post(
            "/a2a", content=b"x" * 2**21, headers={"Authorization": f"Bearer {planted('bob')}"}
        )
        assert long.status_code == 413
