"""100 callers, each with a key of its own, who submit their tasks one after another."""

import asyncio
import json
import secrets
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path

import aiohttp

RETRY_SECONDS = 0.2


def write_keys(folder: Path, callers: int) -> dict[str, str]:
    """The Secret of callers as a mounted folder; the key of each."""
    folder.mkdir(parents=True)
    keys = {f"caller-{number:03}": secrets.token_urlsafe(24) for number in range(callers)}
    for name, key in keys.items():
        (folder / name).write_text(key)
    return keys


def shares_of(numbers: Sequence[int], callers: int) -> list[Sequence[int]]:
    """The tasks of each caller; no share is larger than another by more than one."""
    return [numbers[place::callers] for place in range(callers)]


async def submit_all(url: str, keys: Mapping[str, str], tasks: int, pace: str, first: int = 0) -> list[str]:
    """Submit this many tasks, shared out among all callers; their ids."""
    shares = shares_of(range(first, first + tasks), len(keys))
    connector = aiohttp.TCPConnector(limit=len(keys))
    async with aiohttp.ClientSession(url, connector=connector) as session:
        ids = await asyncio.gather(
            *(_submit(session, key, share, pace) for key, share in zip(keys.values(), shares, strict=True))
        )
    return [one for each in ids for one in each]


async def _submit(session: aiohttp.ClientSession, key: str, numbers: Sequence[int], pace: str) -> list[str]:
    return [await _one(session, key, number, pace) for number in numbers]


async def _one(session: aiohttp.ClientSession, key: str, number: int, pace: str) -> str:
    body = {"input": json.dumps({"task": number, "pace": pace}), "idempotencyKey": f"{pace}-{number}"}
    headers = {"Authorization": f"Bearer {key}"}
    while True:
        async with session.post("/v1/tasks", json=body, headers=headers) as answer:
            if answer.status in (HTTPStatus.CREATED, HTTPStatus.OK):
                return str((await answer.json())["id"])
            if answer.status != HTTPStatus.TOO_MANY_REQUESTS:
                raise RuntimeError(f"a submission was answered {answer.status}: {await answer.text()}")
        await asyncio.sleep(RETRY_SECONDS)
