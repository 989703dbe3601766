"""Plans the commands that bring HAProxy from its current to the desired state. Pure.

The plan is level-triggered: it is made from HAProxy's own state each time. So a restart of HAProxy, which
forgets every server, and a restart of the agent, which forgets its actions, need no special case. After a
plan was carried out there is nothing to plan.

router.lua chooses a conversation's home from the list of servers in the control map. A server is taken off
that list before it drains, and is put on it after it was added.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from flotilla_runtime.contract import RouterConfig, RouterServer, ServerState
from flotilla_runtime.router.commands import (
    AddServer,
    AdminState,
    ChangeMap,
    CloseConnections,
    Command,
    DeleteServer,
    EnableServer,
    MapChange,
    SetAddress,
    SetMaxConnections,
    SetState,
)
from flotilla_runtime.router.control_map import SERVERS, Home, entries, read_homes, write_homes
from flotilla_runtime.router.files import RunFiles
from flotilla_runtime.router.pods import Replica

CLOSED_PORT = 1  # of the loopback address
SEQUENCE_HEADROOM_TENTHS = 11  # a tenth more than the engine runs at once, so that its batch is always full


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedServer:
    """A server in HAProxy."""

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
        """Whether a request would be sent to it at once."""
        return self.admin is AdminState.READY and not self.queued and self.in_flight < self.max_connections


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """HAProxy's state at one moment; `control` and `keys` are the entries of the two maps.

    `unassigned` requests wait for any server with room, and `held` ones for a first server. `unanswered` are
    all requests that have passed the frontend, including those that move from one server to another.
    `arrived` is the number of requests since HAProxy's start.
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
        """The number of requests in queues."""
        return self.unassigned + sum(server.queued for server in self.servers)

    @property
    def busy(self) -> bool:
        """Whether there is any request in this router."""
        return bool(self.unanswered or self.in_flight or self.waiting or self.held)

    @property
    def in_flight(self) -> int:
        """The number of requests that replicas are answering."""
        return sum(server.in_flight for server in self.servers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Desired:
    """The state that HAProxy should have; `keys` are the callers by the hash of their key."""

    replicas: tuple[Replica, ...] = ()
    live_routers: int = 1
    draining: bool = False
    keys: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """One router's share of the set's limits: connections per replica, and queued requests."""

    max_connections: int
    queue: int


def limits(config: RouterConfig, live_routers: int) -> Limits:
    """The shares, rounded up so that none is zero; the engine queues the requests that are too many."""
    return Limits(
        max_connections=_divide_up(config.max_num_seqs * SEQUENCE_HEADROOM_TENTHS, 10 * live_routers),
        queue=_divide_up(config.max_queue, live_routers),
    )


def plan(config: RouterConfig, desired: Desired, observed: Observed) -> tuple[Command, ...]:
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
    homes = [_home(replica) for replica in ready]
    staying = {SERVERS: write_homes(home for home in _homes(observed) if home in homes)}
    control = entries(homes=homes, queue_limit=share.queue, draining=desired.draining)
    return (
        *_changes(RunFiles.CONTROL_MAP, observed.control, staying),
        *(command for server in doomed for command in _removal(server)),
        *(command for server in kept for command in _position(wanted[server.name], server, config, others)),
        *(command for server in kept for command in _adjustment(server, share)),
        *(command for replica in adding for command in _addition(replica, config, share)),
        *_changes(RunFiles.CONTROL_MAP, {**observed.control, **staying}, control),
        *_keys(config, desired, observed),
    )


def rebalance(earlier: Observed, now: Observed) -> tuple[Command, ...]:
    """Balance the requests that are queued for one server again, when another server has had room meanwhile.

    HAProxy leaves a queued request at its server even when other servers are free. Draining the server for a
    moment makes HAProxy choose again (`_empty_queue`). This needs two observations in a row, so that the
    short time between an answer and the next request does not move conversations away from their home.
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
            SetAddress(name=server.name, ip=server.ip, port=server.port),
            SetState(name=server.name, state=AdminState.READY),
        )
    )


def rebalanced(commands: Sequence[Command]) -> int:
    """The number of servers whose queues these commands of `rebalance` balance again."""
    return sum(isinstance(command, SetState) and command.state is AdminState.DRAIN for command in commands)


def router_servers(config: RouterConfig, desired: Desired, observed: Observed) -> tuple[RouterServer, ...]:
    """The replicas for the status. A drain is acknowledged once HAProxy sends the replica no new requests."""
    known = {server.name: server for server in observed.servers}
    homes = _homes(observed)
    rows = []
    for replica in desired.replicas:
        server = known.get(replica.name)
        state = ServerState.ABSENT if server is None else _state(server)
        quiet = state is not ServerState.READY and _home(replica) not in homes
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
    """Whether this is the replica's server. One at the closed address counts too: an agent that stopped in
    the middle of a plan must not end streams.
    """
    if replica is None or replica.id != server.id:
        return False
    there = (server.ip, server.port)
    return there in ((replica.ip, config.engine_port), _closed(replica.ip))


def _closed(ip: str) -> tuple[str, int]:
    """A loopback address of the same family on which nothing listens, so connections are refused at once."""
    return ("::1" if ":" in ip else "127.0.0.1"), CLOSED_PORT


def _empty_queue(server: ObservedServer) -> tuple[Command, Command]:
    """Make HAProxy choose another server for the requests that are queued for this one.

    When a server is set to drain, HAProxy 2.6 chooses again by itself. HAProxy 3.x connects the queued
    requests to the draining server at once, above its limit, and chooses again only when the connection is
    refused. So the server gets a closed address first. Open connections are not affected.
    """
    ip, port = _closed(server.ip)
    drain = SetState(name=server.name, state=AdminState.DRAIN)
    return SetAddress(name=server.name, ip=ip, port=port), drain


def _state(server: ObservedServer) -> ServerState:
    return ServerState.READY if server.admin is AdminState.READY else ServerState.DRAINING


def _home(replica: Replica) -> Home:
    return Home(name=replica.name, id=replica.id)


def _homes(observed: Observed) -> tuple[Home, ...]:
    """The servers among which router.lua chooses now."""
    return read_homes(observed.control.get(SERVERS, ""))


def _changes(file: str, current: Mapping[str, str], wanted: Mapping[str, str]) -> Iterable[Command]:
    """Give a map these entries; others stay."""
    for key, value in wanted.items():
        if key not in current:
            yield ChangeMap(change=MapChange.ADD, file=file, key=key, value=value)
        elif current[key] != value:
            yield ChangeMap(change=MapChange.SET, file=file, key=key, value=value)


def _removal(server: ObservedServer) -> Iterable[Command]:
    """Remove a server whose pod is gone or replaced; its open connections are useless and are closed."""
    if server.admin is not AdminState.MAINTENANCE:
        yield SetState(name=server.name, state=AdminState.MAINTENANCE)
    if server.in_flight:
        yield CloseConnections(name=server.name)
    yield DeleteServer(name=server.name)


def _position(
    replica: Replica, server: ObservedServer, config: RouterConfig, others: bool
) -> Iterable[Command]:
    """Set a server's state and address. Requests queued for a draining server move to `others` if any."""
    changes = _state(server) is not replica.state
    emptied = changes and replica.state is not ServerState.READY and server.queued > 0 and others
    if emptied:
        yield from _empty_queue(server)
    if emptied or (server.ip, server.port) != (replica.ip, config.engine_port):
        yield SetAddress(name=server.name, ip=replica.ip, port=config.engine_port)
    if changes and not emptied:
        state = AdminState.READY if replica.state is ServerState.READY else AdminState.DRAIN
        yield SetState(name=server.name, state=state)


def _adjustment(server: ObservedServer, share: Limits) -> Iterable[Command]:
    if server.max_connections != share.max_connections:
        yield SetMaxConnections(name=server.name, max_connections=share.max_connections)


def _addition(replica: Replica, config: RouterConfig, share: Limits) -> Iterable[Command]:
    yield AddServer(
        name=replica.name,
        id=replica.id,
        ip=replica.ip,
        port=config.engine_port,
        max_connections=share.max_connections,
    )
    yield EnableServer(name=replica.name)


def _keys(config: RouterConfig, desired: Desired, observed: Observed) -> Iterable[Command]:
    """Add new keys before old ones are deleted, so that a caller whose key is replaced always has one."""
    if config.caller_keys_directory is None:
        return
    yield from _changes(RunFiles.KEYS_MAP, observed.keys, dict(sorted(desired.keys.items())))
    for digest in sorted(observed.keys.keys() - desired.keys.keys()):
        yield ChangeMap(change=MapChange.DELETE, file=RunFiles.KEYS_MAP, key=digest)
