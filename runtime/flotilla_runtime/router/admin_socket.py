"""HAProxy's admin socket: sends commands, and reads what HAProxy holds.

One connection a command: they are few, a UNIX socket costs nothing, and there is no session to lose when
HAProxy restarts. What HAProxy says is parsed here and nowhere else.

    RouterProcessError      HAProxy cannot be spoken with
    └── UnexpectedReply     it answered, and not as HAProxy 2.6 to 3.x do
"""

import asyncio
import csv
import io
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from pathlib import Path

import structlog

from flotilla_runtime.router.certificate import Certificate, fingerprint_shown
from flotilla_runtime.router.files import ARRIVED, BACKEND, REQUEST_RING, RunFiles
from flotilla_runtime.router.servers import AdminState, Observed, ObservedServer

REPLY_SECONDS = 5.0
BACKEND_AND_SERVERS = 6  # `show stat` takes the sum of 2 for backends and 4 for servers
FORCED_MAINTENANCE = 0x01
FORCED_DRAIN = 0x08
LINE_BYTES = 1024 * 1024

log = structlog.get_logger(__name__)

# What HAProxy says when it did as told; silence is consent too.
GOOD_REPLIES = ("New server registered.", "Server deleted.")
GOOD_BEGINNINGS = ("IP changed from ", "no need to change the addr")
# A server that is being deleted still has a connection; the next plan asks again.
RETRIED_REPLIES = ("Server still has connections attached to it, cannot remove it.",)


class RouterProcessError(Exception):
    """HAProxy does not answer on its admin socket; it is starting, restarting or gone."""


class UnexpectedReply(RouterProcessError):  # noqa: N818 (it is named by what happened)
    """A reply this version of the agent cannot read."""


class AdminSocket:
    """The admin socket of the HAProxy in this pod."""

    def __init__(self, files: RunFiles) -> None:
        self._files = files
        self._path = files.path(files.ADMIN_SOCKET)

    async def send(self, command: str) -> str:
        """One command and its reply."""
        return await self._send(command, command)

    async def _send(self, command: str, shown: str) -> str:
        """`shown` is what an error may tell of the command."""
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
            raise RouterProcessError(f"admin socket {self._path}: {error!r} for {shown!r}") from error

    async def execute(self, commands: Iterable[str]) -> dict[str, str]:
        """Runs the commands in order; returns the replies of those that failed, by command."""
        refused: dict[str, str] = {}
        for command in commands:
            reply = await self.send(command)
            if not _is_good(reply):
                refused[command] = reply
        return refused

    async def observe(self, *, with_keys: bool, with_held: bool = False) -> Observed:
        """What HAProxy holds now."""
        state = await self.send(f"show servers state {BACKEND}")
        statistics = await self.send(f"show stat {BACKEND} {BACKEND_AND_SERVERS} -1")
        control = await self.send(f"show map {self._files.path(RunFiles.CONTROL_MAP)}")
        keys = await self.send(f"show map {self._files.path(RunFiles.KEYS_MAP)}") if with_keys else ""
        arrived = parse_arrived(await self.send(f"get var {ARRIVED}"))
        observed = replace(parse_observed(state, statistics, control, keys), arrived=arrived)
        return replace(observed, held=await self._held()) if with_held else observed

    async def _held(self) -> int:
        reply = await self.send("flotilla held")
        if not reply.isdecimal():
            raise UnexpectedReply(f"flotilla held: {reply[:200]!r}")
        return int(reply)

    async def renew_certificate(self, path: str, certificate: Certificate) -> str | None:
        """Hands over a pair that HAProxy does not have; what it says of one that it refuses, else None."""
        if fingerprint_shown(await self.send(f"show ssl cert {path}")) == certificate.fingerprint:
            return None
        replies = [await self._send(f"set ssl cert {path} <<\n{certificate.pem}\n", f"set ssl cert {path}")]
        if "Transaction" in replies[0]:
            replies.append(await self.send(f"commit ssl cert {path}"))
        if fingerprint_shown(await self.send(f"show ssl cert {path}")) == certificate.fingerprint:
            log.info("certificate_renewed", fingerprint=certificate.fingerprint)
            return None
        await self.send(f"abort ssl cert {path}")
        return " ".join(replies)

    async def process(self) -> tuple[str, str]:
        """Tells one HAProxy worker from the next: in a restarted container its id may be the same again."""
        rows = (line.partition(": ") for line in (await self.send("show info")).splitlines())
        info = {name: value for name, _, value in rows}
        try:
            return info["Pid"], info["Start_time_sec"]
        except KeyError as absent:
            raise UnexpectedReply(f"show info names no {absent}") from None

    async def request_lines(self, *, only_new: bool) -> AsyncIterator[str]:
        """The request lines as HAProxy writes them, until the connection ends."""
        try:
            reader, writer = await asyncio.open_unix_connection(self._path, limit=LINE_BYTES)
        except OSError as error:
            raise RouterProcessError(f"admin socket {self._path}: {error!r}") from error
        try:
            writer.write(f"show events {REQUEST_RING} -w{'n' if only_new else ''}\n".encode())
            await writer.drain()
            while line := await reader.readline():
                yield line.decode(errors="replace").strip()
        except (OSError, ValueError) as error:
            raise RouterProcessError(f"request ring: {error!r}") from error
        finally:
            writer.close()


def _is_good(reply: str) -> bool:
    return not reply or reply in (*GOOD_REPLIES, *RETRIED_REPLIES) or reply.startswith(GOOD_BEGINNINGS)


def parse_observed(state: str, statistics: str, control: str, keys: str) -> Observed:
    """The replies of `show servers state`, `show stat` and twice `show map` → one value."""
    rows = {row["svname"]: row for row in _statistics(statistics)}
    if "BACKEND" not in rows:
        raise UnexpectedReply(f"show stat has no row for the backend: {statistics[:200]!r}")
    servers = tuple(_server(row, rows.get(row["srv_name"], {})) for row in _server_states(state))
    return Observed(
        servers=servers,
        control=_map(control),
        keys=_map(keys),
        unassigned=int(rows["BACKEND"]["qcur"] or 0),
        unanswered=int(rows["BACKEND"]["scur"] or 0),
    )


def parse_arrived(text: str) -> int | None:
    """`proc.arrived: type=sint value=<5>` → 5. What cannot be read is unknown: a figure stops no round."""
    digits = text.rpartition("value=<")[2].removesuffix(">")
    return int(digits) if digits.isdecimal() else None


def _server_states(text: str) -> Iterable[dict[str, str]]:
    """A version line, a header after '#', and a row a server."""
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) < 2 or not lines[1].startswith("# "):
        raise UnexpectedReply(f"show servers state has no header: {text[:200]!r}")
    header = lines[1][2:].split(" ")
    return [dict(zip(header, line.split(" "), strict=False)) for line in lines[2:]]


def _statistics(text: str) -> Iterable[dict[str, str]]:
    return csv.DictReader(io.StringIO(text.removeprefix("# ")))


def _server(state: dict[str, str], statistics: dict[str, str]) -> ObservedServer:
    return ObservedServer(
        name=state["srv_name"],
        id=int(state["srv_id"]),
        ip=state["srv_addr"],
        port=int(state["srv_port"]),
        admin=_admin_state(int(state["srv_admin_state"])),
        max_connections=int(statistics.get("slim") or 0),
        in_flight=int(statistics.get("scur") or 0),
        queued=int(statistics.get("qcur") or 0),
    )


def _admin_state(bits: int) -> AdminState:
    if bits & FORCED_MAINTENANCE:
        return AdminState.MAINTENANCE
    return AdminState.DRAIN if bits & FORCED_DRAIN else AdminState.READY


def _map(text: str) -> dict[str, str]:
    """Rows of `address key value`."""
    rows = (line.split(" ", 2) for line in text.splitlines() if line.startswith("0x"))
    return {row[1]: row[2] for row in rows if len(row) == 3}


def write_run_file(files: RunFiles, name: str, text: str) -> None:
    """Replaces a file of the run directory at once, so HAProxy never starts from half of one."""
    target = Path(files.path(name))
    partial = target.with_name(f".{name}.partial")
    partial.write_text(text, "utf-8")
    partial.replace(target)
