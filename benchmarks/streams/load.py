"""A program that keeps a number of streams open through the routers, and records how each one ended.

As with a Service, a new connection goes to a router pod that was ready and not being deleted a moment ago.

- A stream is whole when the client has got the number of tokens that it asked for, and `[DONE]`.
- It failed cleanly when the client can see the failure: an error status, an error event, or a broken
  connection.
- It is unclean when it seems complete and is not, or when it goes silent.

The program prints "open" when all streams are open. On SIGTERM it opens no more streams, and reads the open
ones to their end.
"""

import argparse
import asyncio
import itertools
import json
import random
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, TextIO

import aiohttp

from flotilla_operator.cluster.client import Client
from flotilla_operator.cluster.connection import HttpConnection, load_configuration
from flotilla_operator.objects.resources import PODS
from flotilla_runtime import contract

ENDPOINTS_EVERY_SECONDS = 1.0
SILENCE_SECONDS = 90.0
AFTER_FAILURE_SECONDS = 0.5
FEWEST_TOKENS = 20
MOST_TOKENS = 60
SEED = 5


class Outcome(StrEnum):
    """How a stream ended."""

    WHOLE = "Whole"
    CLEAN_ERROR = "CleanError"
    UNCLEAN = "Unclean"


@dataclass(slots=True, kw_only=True)
class Stream:
    """One stream as its client saw it; times are monotonic, in seconds."""

    wanted: int
    router: str
    began_at: float
    replica: str = ""
    tokens: int = 0
    done: bool = False
    problem: str = ""
    outcome: Outcome = Outcome.UNCLEAN
    ended_at: float = 0.0

    def take(self, data: str) -> None:
        """One event."""
        if data == "[DONE]":
            self.done = True
            return
        event = json.loads(data)
        if "error" in event:
            raise StreamError(f"error event: {event['error']}")
        self.tokens += any(choice["delta"].get("content") for choice in event["choices"])


class StreamError(Exception):
    """The stream failed in a way that the client can see."""


class Callers:
    """The callers, and the routers that they know."""

    def __init__(self, client: Client, options: argparse.Namespace, record: TextIO) -> None:
        self._client = client
        self._namespace: str = options.namespace
        self._body = {"model": options.model, "stream": True, "ignore_eos": True}
        self._streams: int = options.streams
        self._record = record
        self._random = random.Random(SEED)
        self._numbers = itertools.count(1)
        self._routers: list[str] = []
        self._open = 0
        self._all_open = asyncio.Event()
        self._stopping = asyncio.Event()
        self._session: aiohttp.ClientSession | None = None

    async def run(self) -> None:
        """Keep streams open until told to stop."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._stopping.set)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=SILENCE_SECONDS)
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as self._session:
            following = asyncio.create_task(self._follow_endpoints())
            callers = [asyncio.create_task(self._call()) for _ in range(self._streams)]
            await self._all_open.wait()
            print("open", flush=True)
            await asyncio.gather(*callers)
            following.cancel()

    async def _follow_endpoints(self) -> None:
        while True:
            pods, _ = await self._client.list_all(PODS, self._namespace)
            self._routers = [pod["status"]["podIP"] for pod in pods if _takes_connections(pod)]
            await asyncio.sleep(ENDPOINTS_EVERY_SECONDS)

    async def _call(self) -> None:
        await asyncio.sleep(self._random.uniform(0, 5))  # not all at once, as callers are not
        while not self._stopping.is_set():
            if not self._routers:
                await asyncio.sleep(AFTER_FAILURE_SECONDS)
                continue
            stream = Stream(
                wanted=self._random.randint(FEWEST_TOKENS, MOST_TOKENS),
                router=self._random.choice(self._routers),
                began_at=time.monotonic(),
            )
            await self._follow(stream)
            self._record.write(json.dumps(asdict(stream)) + "\n")
            self._record.flush()
            if stream.outcome is not Outcome.WHOLE:
                await asyncio.sleep(AFTER_FAILURE_SECONDS)

    async def _follow(self, stream: Stream) -> None:
        number = next(self._numbers)
        try:
            await self._read(stream, number)
        except TimeoutError as problem:
            stream.problem = f"silent for {SILENCE_SECONDS:.0f} s: {problem!r}"
        except (aiohttp.ClientError, OSError, StreamError) as problem:
            stream.problem, stream.outcome = repr(problem), Outcome.CLEAN_ERROR
        else:
            whole = stream.done and stream.tokens == stream.wanted
            stream.outcome = Outcome.WHOLE if whole else Outcome.UNCLEAN
        stream.ended_at = time.monotonic()

    async def _read(self, stream: Stream, number: int) -> None:
        assert self._session is not None
        body = {
            **self._body,
            "max_tokens": stream.wanted,
            "messages": [{"role": "user", "content": f"question {number}"}],
        }
        url = f"http://{stream.router}:{contract.PORT_ROUTER}/v1/chat/completions"
        headers = {contract.HEADER_SESSION: f"session-{number}"}
        async with self._session.post(url, json=body, headers=headers) as answer:
            stream.replica = answer.headers.get(contract.HEADER_REPLICA, "")
            if answer.status != 200:
                raise StreamError(f"status {answer.status}: {(await answer.text())[:200]}")
            self._open += 1
            if self._open == self._streams:
                self._all_open.set()
            try:
                async for line in answer.content:
                    if line.startswith(b"data: "):
                        stream.take(line[6:].decode().strip())
            finally:
                self._open -= 1


def _takes_connections(pod: Mapping[str, Any]) -> bool:
    labels = pod["metadata"].get("labels") or {}
    if labels.get(contract.LABEL_COMPONENT) != "router" or "deletionTimestamp" in pod["metadata"]:
        return False
    conditions = pod.get("status", {}).get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


async def call(options: argparse.Namespace) -> None:
    """Open this many streams, and a new one whenever one ends."""
    client = Client(HttpConnection(await load_configuration(options.kubeconfig)))
    with options.to.open("w") as record:
        try:
            await Callers(client, options, record).run()
        finally:
            await client.close()


def main() -> int:
    """Keep streams open until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--streams", type=int, required=True)
    parser.add_argument(
        "--to",
        type=Path,
        required=True,
        help="the file to write, with one JSON object a line for each stream that ended",
    )
    asyncio.run(call(parser.parse_args()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
