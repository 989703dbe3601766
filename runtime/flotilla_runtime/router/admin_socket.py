"""Sends commands to HAProxy's admin socket.

Each command uses its own connection: commands are few, a UNIX socket is cheap, and no session is lost when
HAProxy restarts. What a reply says is read in replies.py.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from pathlib import Path

import structlog

from flotilla_runtime.contract.failure_texts import what_failed
from flotilla_runtime.router import replies
from flotilla_runtime.router.certificate import Certificate
from flotilla_runtime.router.commands import Command, shown, text
from flotilla_runtime.router.errors import RouterProcessError
from flotilla_runtime.router.files import ARRIVED, BACKEND, REQUEST_RING, RunFiles
from flotilla_runtime.router.servers import Observed

REPLY_SECONDS = 5.0
BACKEND_AND_SERVERS = 6  # `show stat` takes the sum of 2 for backends and 4 for servers
LINE_BYTES = 1024 * 1024

log = structlog.get_logger(__name__)


class AdminSocket:
    """The admin socket of the HAProxy in this pod."""

    def __init__(self, files: RunFiles) -> None:
        self._files = files
        self._path = files.path(files.ADMIN_SOCKET)

    async def send(self, command: str) -> str:
        """Send one command and return its reply."""
        return await self._send(command, command)

    async def _send(self, command: str, named: str) -> str:
        """Send a command; errors name it `named`, because the command may hold a secret."""
        try:
            async with asyncio.timeout(REPLY_SECONDS):
                reader, writer = await asyncio.open_unix_connection(self._path)
                try:
                    writer.write(command.encode() + b"\n")
                    await writer.drain()
                    return (await reader.read()).decode(errors="replace").strip()
                finally:
                    writer.close()
        except (OSError, TimeoutError) as error:
            raise RouterProcessError(
                f"HAProxy did not answer {named!r} on the admin socket {self._path}: {what_failed(error)}"
            ) from error

    async def execute(self, commands: Iterable[Command]) -> dict[Command, str]:
        """Run the commands in order; returns the replies of those that failed, by command."""
        refused: dict[Command, str] = {}
        for command in commands:
            reply = await self._send(text(command, self._files), shown(command, self._files))
            if not replies.is_good(reply):
                refused[command] = reply
        return refused

    async def observe(self, *, with_keys: bool, with_held: bool = False) -> Observed:
        """HAProxy's current state."""
        state = await self.send(f"show servers state {BACKEND}")
        statistics = await self.send(f"show stat {BACKEND} {BACKEND_AND_SERVERS} -1")
        control = await self.send(f"show map {self._files.path(RunFiles.CONTROL_MAP)}")
        keys = await self.send(f"show map {self._files.path(RunFiles.KEYS_MAP)}") if with_keys else ""
        arrived = replies.read_arrived(await self.send(f"get var {ARRIVED}"))
        held = replies.read_held(await self.send("flotilla held")) if with_held else 0
        return replace(replies.read_observed(state, statistics, control, keys), arrived=arrived, held=held)

    async def renew_certificate(self, path: str, certificate: Certificate) -> str | None:
        """Give HAProxy a certificate that it does not have; returns HAProxy's replies if it refuses it."""
        if await self._fingerprint(path) == certificate.fingerprint:
            return None
        said = [await self._send(f"set ssl cert {path} <<\n{certificate.pem}\n", f"set ssl cert {path}")]
        if replies.begins_transaction(said[0]):
            said.append(await self.send(f"commit ssl cert {path}"))
        if await self._fingerprint(path) == certificate.fingerprint:
            log.info("certificate_renewed", fingerprint=certificate.fingerprint)
            return None
        await self.send(f"abort ssl cert {path}")
        return " ".join(said)

    async def _fingerprint(self, path: str) -> str | None:
        return replies.read_fingerprint(await self.send(f"show ssl cert {path}"))

    async def process(self) -> tuple[str, str]:
        """Process id and start time of HAProxy: a restarted container can have the same process id again."""
        return replies.read_process(await self.send("show info"))

    async def request_lines(self, *, only_new: bool) -> AsyncIterator[str]:
        """The request lines, as HAProxy writes them, until the connection ends."""
        try:
            reader, writer = await asyncio.open_unix_connection(self._path, limit=LINE_BYTES)
        except OSError as error:
            raise RouterProcessError(
                f"the admin socket {self._path} cannot be opened: {what_failed(error)}"
            ) from error
        try:
            writer.write(f"show events {REQUEST_RING} -w{'n' if only_new else ''}\n".encode())
            await writer.drain()
            while line := await reader.readline():
                yield line.decode(errors="replace").strip()
        except (OSError, ValueError) as error:
            raise RouterProcessError(
                f"reading HAProxy's request lines failed: {what_failed(error)}"
            ) from error
        finally:
            writer.close()


def write_run_file(files: RunFiles, name: str, content: str) -> None:
    """Replace a file of the run directory atomically, so that HAProxy never reads half of one."""
    target = Path(files.path(name))
    partial = target.with_name(f".{name}.partial")
    partial.write_text(content, "utf-8")
    partial.replace(target)
