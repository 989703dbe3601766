"""The fake API server gives the answers of a real one: the same requests, and then the same documents.

Each conversation is held with both servers. What each makes anew (UIDs, versions, times) is compared by
whether it is the same as before. A real server fills in more defaults, so in specs and statuses it must have
what the fake has; all else is equal.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from flotilla_operator.cluster.client import ApiError, Connection, Request
from flotilla_operator.cluster.connection import HttpConnection, load_configuration
from flotilla_operator.objects.resources import (
    CONFIG_MAPS,
    Manifest,
)
from local_cluster.control_plane import ControlPlane
from tests.support.conversations import CONVERSATIONS, NS, Step, config, delete, listed, merge, post
from tests.support.fake_api import FakeApi

pytestmark = pytest.mark.apiserver

MADE_ANEW = ("uid", "resourceVersion", "creationTimestamp", "managedFields", "namespace", "selfLink")


@dataclass
class Talk:
    """One conversation with one server: what it answered, made comparable."""

    connection: Connection
    namespace: str
    said: dict[str, Manifest] = field(default_factory=dict)
    heard: list[Any] = field(default_factory=list)

    async def hold(self, steps: Sequence[Step]) -> list[Any]:
        for step in steps:
            await self._say(step if isinstance(step, Request) else step(self.said))
        return self.heard

    async def _say(self, step: Request) -> None:
        sent = Request(
            method=step.method,
            path=step.path.replace(NS, self.namespace),
            query=step.query,
            body=step.body,
            content_type=step.content_type,
        )
        asked = f"{step.method} {step.path.rpartition('/')[2]}"
        try:
            document = await self.connection.request(sent)
        except ApiError as error:
            self.heard.append((asked, error.status, error.reason, sorted(error.causes)))
            return
        self.heard.append((asked, self._comparable(document)))

    def _comparable(self, document: Manifest) -> Manifest:
        if document["kind"].endswith("List"):
            self.said[""] = document
            more = {"more": bool(document["metadata"].get("continue"))}
            return {**more, "items": [_without(item) for item in document["items"]]}
        if document["kind"] == "Status":
            return {key: document[key] for key in ("status", "code") if key in document}
        metadata = document["metadata"]
        before = self.said.get(metadata["name"], {"metadata": {}})["metadata"]
        self.said[metadata["name"]] = document
        news = {
            "same object": before.get("uid") == metadata["uid"],
            "same version": before.get("resourceVersion") == metadata.get("resourceVersion"),
            "being deleted": "deletionTimestamp" in metadata,
        }
        return {**_without(document), "news": news}


def _without(document: Manifest) -> Manifest:
    """A document without what every server makes anew."""
    metadata = {k: v for k, v in document["metadata"].items() if k not in (*MADE_ANEW, "deletionTimestamp")}
    if "generateName" in metadata:
        metadata["name"] = f"{metadata['generateName']}…"
    return {**document, "metadata": metadata}


def shared(of_real: Any, of_fake: Any, where: tuple[str, ...] = ()) -> Any:
    """The real answer without the defaults, in specs and statuses, that the fake does not know."""
    if isinstance(of_real, Mapping) and isinstance(of_fake, Mapping):
        filled_in = "spec" in where or "status" in where
        return {
            key: shared(value, of_fake.get(key), (*where, key))
            for key, value in of_real.items()
            if key in of_fake or not filled_in
            if key in of_fake or key not in ("spec", "status")
        }
    if (
        isinstance(of_real, list | tuple)
        and isinstance(of_fake, list | tuple)
        and len(of_real) == len(of_fake)
    ):
        return [shared(one, other, where) for one, other in zip(of_real, of_fake, strict=True)]
    return list(of_real) if isinstance(of_real, tuple) else of_real


@asynccontextmanager
async def real_server(plane: ControlPlane) -> AsyncIterator[Connection]:
    connection = HttpConnection(await load_configuration(plane.kubeconfig))
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def fake_server() -> AsyncIterator[Connection]:
    api = FakeApi()
    async with api.running():
        connection = HttpConnection(api.configuration())
        try:
            yield connection
        finally:
            await connection.close()


@pytest.mark.parametrize("name", CONVERSATIONS)
async def test_the_fake_answers_as_the_real_one_does(
    control_plane: ControlPlane, namespace: str, name: str
) -> None:
    async with real_server(control_plane) as real, fake_server() as fake:
        of_real = await Talk(real, namespace).hold(CONVERSATIONS[name])
        of_fake = await Talk(fake, namespace).hold(CONVERSATIONS[name])
    for heard, expected in zip(of_fake, of_real, strict=True):
        assert shared(heard, heard) == shared(expected, heard)


async def test_the_fake_tells_a_watch_what_the_real_one_does(
    control_plane: ControlPlane, namespace: str
) -> None:
    """From the version of a list on, and again from an earlier event's version."""
    async with real_server(control_plane) as real, fake_server() as fake:
        of_real, of_fake = [await watched(server, namespace) for server in (real, fake)]
    assert of_fake == of_real


async def watched(connection: Connection, namespace: str) -> list[tuple[str, str, Any]]:
    talk = Talk(connection, namespace)
    await talk.hold([post(CONFIG_MAPS, config("before")), listed(CONFIG_MAPS)])
    version = talk.said[""]["metadata"]["resourceVersion"]
    await talk.hold(
        [
            post(CONFIG_MAPS, config()),
            merge(CONFIG_MAPS, "a", {"data": {"k": "w"}}),
            merge(CONFIG_MAPS, "a", {"data": {"k": "w"}}),
            delete(CONFIG_MAPS, "a"),
        ]
    )
    first = await events_since(talk, version)
    later = await events_since(talk, first[0]["object"]["metadata"]["resourceVersion"])
    return [
        (event["type"], event["object"]["metadata"]["name"], event["object"]["data"])
        for event in [*first, *later]
    ]


async def events_since(talk: Talk, version: str) -> list[Manifest]:
    """Events that come within a second."""
    query = {"watch": "1", "resourceVersion": version, "timeoutSeconds": 1}
    asked = Request(method="GET", path=CONFIG_MAPS.path(talk.namespace), query=query)
    found = [event async for event in talk.connection.stream(asked, 30)]
    return [event for event in found if event["type"] != "BOOKMARK"]
