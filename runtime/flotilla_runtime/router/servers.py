"""What HAProxy should know and what it knows → the admin socket commands that close the gap. Pure.

Level-triggered: the plan is made from what HAProxy itself says each time, so a restart of HAProxy (which
forgets every server) and a restart of the agent (which forgets what it did) need no case of their own. A
plan that was carried out leaves nothing to plan.

A key's home is chosen from the list in the control map (router.lua). A server leaves that list before it
drains, and enters it after it was added.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from flotilla_runtime.contract import RouterConfig, RouterServer, ServerState
from flotilla_runtime.router.files import BACKEND, NO_SERVERS, RunFiles
from flotilla_runtime.router.pods import Replica

CLOSED_PORT = 1  # of the loopback address
SEQUENCE_HEADROOM_TENTHS = 11  # a tenth more than the engine runs at once, so its batch never waits for us


class AdminState(StrEnum):
    """What the admin socket was told of a server."""

    READY = "Ready"
    DRAIN = "Drain"
    MAINTENANCE = "Maintenance"


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedServer:
    """A server as HAProxy has it."""

    name: str
    id: int
    ip: str
    port: int
    admin: AdminState
    max_connections: int
    in_flight: int = 0
    queued: int = 0

    @property
    def has_room(self) -> bool:
        """Whether a request would be sent on at once."""
        return self.admin is AdminState.READY and not self.queued and self.in_flight < self.max_connections


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """HAProxy's state at one moment; `unassigned` wait for any server with room, `held` for a first one.
    `unanswered` are all that have passed the frontend, those on the way from one server to the next included.
    `arrived` is how many requests came since HAProxy's start.
    """

    servers: tuple[ObservedServer, ...] = ()
    control: Mapping[str, str] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)
    unassigned: int = 0
    unanswered: int = 0
    held: int = 0
    arrived: int | None = None

    @property
    def waiting(self) -> int:
        """Every request in a queue."""
        return self.unassigned + sum(server.queued for server in self.servers)

    @property
    def busy(self) -> bool:
        """Whether any request is here."""
        return bool(self.unanswered or self.in_flight or self.waiting or self.held)

    @property
    def in_flight(self) -> int:
        """Every request at a replica."""
        return sum(server.in_flight for server in self.servers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Desired:
    """What HAProxy should know; `keys` are callers by the hash of their key."""

    replicas: tuple[Replica, ...] = ()
    live_routers: int = 1
    draining: bool = False
    keys: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """One router's share of what the set may run and hold."""

    max_connections: int
    queue: int


def limits(config: RouterConfig, live_routers: int) -> Limits:
    """Rounded up: a router never gets a share of nothing, and the engine queues the odd one."""
    return Limits(
        max_connections=_divide_up(config.max_num_seqs * SEQUENCE_HEADROOM_TENTHS, 10 * live_routers),
        queue=_divide_up(config.max_queue, live_routers),
    )


def plan(config: RouterConfig, desired: Desired, observed: Observed) -> tuple[str, ...]:
    """The commands, in the order in which they must run."""
    share = limits(config, desired.live_routers)
    known = {server.name: server for server in observed.servers}
    wanted = {replica.name: replica for replica in desired.replicas}
    doomed = [
        server for server in observed.servers if not _same_server(wanted.get(server.name), server, config)
    ]
    kept = [server for server in observed.servers if server not in doomed]
    ready = [replica for replica in desired.replicas if replica.state is ServerState.READY]
    adding = [replica for replica in ready if replica.name not in known]
    others = any(replica.name in known for replica in ready)
    listed = _server_list(_entry(replica) for replica in ready)
    staying = _server_list(entry for entry in _listed(observed) if entry in listed.split(","))
    return (
        *_control(config, observed.control, {"servers": staying}),
        *(command for server in doomed for command in _removal(server)),
        *(command for server in kept for command in _position(wanted[server.name], server, config, others)),
        *(command for server in kept for command in _adjustment(server, share)),
        *(command for replica in adding for command in _addition(replica, config, share)),
        *_control(
            config,
            {**observed.control, "servers": staying},
            {
                "servers": listed,
                "queue_limit": str(share.queue),
                "draining": "1" if desired.draining else "0",
            },
        ),
        *_keys(config, desired, observed),
    )


def rebalance(earlier: Observed, now: Observed) -> tuple[str, ...]:
    """Sends a server's queue back to be balanced again when it did not move although another server had room.

    HAProxy keeps a queued request at its server whatever the others do; draining a server for an instant is
    how it is told to choose anew (_empty_queue). It takes two looks in a row, so that the moment between an
    answer and the next request does not cost conversations their home.
    """
    before = {server.name: server for server in earlier.servers}
    roomy = {server.name for server in earlier.servers if server.has_room}
    if not any(server.has_room and server.name in roomy for server in now.servers):
        return ()
    stuck = [
        server
        for server in now.servers
        if server.admin is AdminState.READY
        and server.queued
        and server.name in before
        and before[server.name].queued
    ]
    return tuple(
        command
        for server in stuck
        for command in (
            *_empty_queue(server),
            _address(server.name, server.ip, server.port),
            f"set server {BACKEND}/{server.name} state ready",
        )
    )


def rebalanced(commands: Sequence[str]) -> int:
    """Of how many servers these commands send the queue back."""
    return sum(command.endswith(" state drain") for command in commands)


def router_servers(config: RouterConfig, desired: Desired, observed: Observed) -> tuple[RouterServer, ...]:
    """The replicas for the status: a drain is acknowledged once HAProxy sends the replica nothing new."""
    known = {server.name: server for server in observed.servers}
    listed = set(_listed(observed))
    rows = []
    for replica in desired.replicas:
        server = known.get(replica.name)
        state = ServerState.ABSENT if server is None else _state(server)
        quiet = state is not ServerState.READY and _entry(replica) not in listed
        rows.append(
            RouterServer(
                name=replica.name,
                id=replica.id,
                address=f"{replica.ip}:{config.engine_port}",
                state=state,
                in_flight=0 if server is None else server.in_flight,
                queued=0 if server is None else server.queued,
                acknowledged_drain_epoch=replica.drain_epoch if quiet else None,
            )
        )
    return tuple(rows)


def _divide_up(dividend: int, divisor: int) -> int:
    return -(-dividend // divisor)


def _same_server(replica: Replica | None, server: ObservedServer, config: RouterConfig) -> bool:
    """One at the closed address counts, so that an agent that ended in the middle costs no streams."""
    if replica is None or replica.id != server.id:
        return False
    there = (server.ip, server.port)
    return there in ((replica.ip, config.engine_port), _closed(replica.ip))


def _closed(ip: str) -> tuple[str, int]:
    """An address of the same family where nobody listens, and where a connection is refused at once."""
    return ("::1" if ":" in ip else "127.0.0.1"), CLOSED_PORT


def _address(name: str, ip: str, port: int) -> str:
    return f"set server {BACKEND}/{name} addr {ip} port {port}"


def _empty_queue(server: ObservedServer) -> tuple[str, str]:
    """HAProxy 3.x connects what waits at once to the very server that drains, past its limit, and chooses
    anew when the connection is refused; 2.6 chooses anew by itself. Connections that stand stay as they are.
    """
    closed = _address(server.name, *_closed(server.ip))
    return closed, f"set server {BACKEND}/{server.name} state drain"


def _state(server: ObservedServer) -> ServerState:
    return ServerState.READY if server.admin is AdminState.READY else ServerState.DRAINING


def _entry(replica: Replica) -> str:
    return f"{replica.name}={replica.id}"


def _server_list(entries: Iterable[str]) -> str:
    return ",".join(entries) or NO_SERVERS


def _listed(observed: Observed) -> Sequence[str]:
    return observed.control.get("servers", NO_SERVERS).split(",")


def _control(config: RouterConfig, current: Mapping[str, str], entries: Mapping[str, str]) -> Iterable[str]:
    path = RunFiles(config.run_directory).path(RunFiles.CONTROL_MAP)
    for key, value in entries.items():
        if key not in current:
            yield f"add map {path} {key} {value}"
        elif current[key] != value:
            yield f"set map {path} {key} {value}"


def _removal(server: ObservedServer) -> Iterable[str]:
    """The pod is gone or another has its name, so what is still open leads nowhere."""
    if server.admin is not AdminState.MAINTENANCE:
        yield f"set server {BACKEND}/{server.name} state maint"
    if server.in_flight:
        yield f"shutdown sessions server {BACKEND}/{server.name}"
    yield f"del server {BACKEND}/{server.name}"


def _position(replica: Replica, server: ObservedServer, config: RouterConfig, others: bool) -> Iterable[str]:
    """Whether it takes requests, and where. What waits for one that drains goes to `others`, if there are."""
    changes = _state(server) is not replica.state
    emptied = changes and replica.state is not ServerState.READY and server.queued > 0 and others
    if emptied:
        yield from _empty_queue(server)
    if emptied or (server.ip, server.port) != (replica.ip, config.engine_port):
        yield _address(server.name, replica.ip, config.engine_port)
    if changes and not emptied:
        word = "ready" if replica.state is ServerState.READY else "drain"
        yield f"set server {BACKEND}/{server.name} state {word}"


def _adjustment(server: ObservedServer, share: Limits) -> Iterable[str]:
    if server.max_connections != share.max_connections:
        yield f"set maxconn server {BACKEND}/{server.name} {share.max_connections}"


def _addition(replica: Replica, config: RouterConfig, share: Limits) -> Iterable[str]:
    host = f"[{replica.ip}]" if ":" in replica.ip else replica.ip
    yield (
        f"add server {BACKEND}/{replica.name} {host}:{config.engine_port} "
        f"id {replica.id} maxconn {share.max_connections}"
    )
    yield f"enable server {BACKEND}/{replica.name}"


def _keys(config: RouterConfig, desired: Desired, observed: Observed) -> Iterable[str]:
    """New keys first, so that a caller whose key is exchanged has one all the time."""
    if config.caller_keys_directory is None:
        return
    path = RunFiles(config.run_directory).path(RunFiles.KEYS_MAP)
    for digest, caller in sorted(desired.keys.items()):
        if digest not in observed.keys:
            yield f"add map {path} {digest} {caller}"
        elif observed.keys[digest] != caller:
            yield f"set map {path} {digest} {caller}"
    for digest in sorted(observed.keys.keys() - desired.keys.keys()):
        yield f"del map {path} {digest}"
