"""HAProxy's replies: the words of its versions, and what every supported HAProxy says to our commands."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from flotilla_runtime.router import replies
from flotilla_runtime.router.admin_socket import AdminSocket
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
from flotilla_runtime.router.errors import UnexpectedReply
from flotilla_runtime.router.files import RunFiles
from flotilla_runtime.router.servers import ObservedServer
from router_support.builders import server
from router_support.fake_pods import FakePods
from router_support.haproxy_version import ON_EVERY
from router_support.routers import Router

# Some columns of HAProxy 2.6 and 3.2, with one server that drains and one that has room.
STATE = """1
# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_fqdn srv_port
4 engines 1 a 127.0.0.2 2 8 1 - 9
4 engines 2 b fd00::1 2 0 1 - 8000
"""
STATISTICS = """# pxname,svname,qcur,qmax,scur,smax,slim,stot
engines,a,3,3,2,2,5,7
engines,b,0,0,0,0,,0
engines,BACKEND,1,3,6,6,200,7
"""
CONTROL = "0x557ee5d1d270 servers a=1,b=2\n0x557ee5d1d300 queue_limit 1000\n0x557ee5d1d390 draining 0\n"


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param("", id="nothing to say"),
        pytest.param("New server registered.", id="added"),
        pytest.param("Server deleted.", id="deleted"),
        pytest.param("IP changed from '127.0.0.1' to '127.0.0.2', port changed from '9' to '8'", id="moved"),
        pytest.param("no need to change the addr, port changed from '8' to '9'", id="another port, by 2.6"),
        pytest.param("port changed from '8' to '9' by 'stats socket command'", id="another port, by 3.2"),
        pytest.param("nothing changed", id="the same address, by 3.2"),
        pytest.param(
            "Server still has connections attached to it, cannot remove it.", id="to be deleted next time"
        ),
    ],
)
def test_a_reply_to_a_command_that_succeeded(reply: str) -> None:
    assert replies.is_good(reply)


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param("No such server.", id="a server that is gone"),
        pytest.param("Only servers in maintenance mode can be deleted.", id="a server that is not"),
        pytest.param("'id' : custom id 1 already used at (null):0 ('server a').", id="an id twice, by 3.2"),
        pytest.param("Already exists a server with the same name in backend.", id="a name twice, by 3.4"),
        pytest.param("entry not found.", id="an entry that is not there"),
        pytest.param("Unknown command: 'flotilla'", id="a command that is none"),
    ],
)
def test_a_reply_to_a_command_that_failed(reply: str) -> None:
    assert not replies.is_good(reply)


def test_the_tables_of_servers_are_read_by_their_headers() -> None:
    observed = replies.read_observed(STATE, STATISTICS, CONTROL, "0x1 0A1B2C ann\n")
    draining = server(
        "a", 1, ip="127.0.0.2", port=9, admin=AdminState.DRAIN, max_connections=5, in_flight=2, queued=3
    )
    assert observed.servers == (draining, server("b", 2, ip="fd00::1", max_connections=0))
    assert observed.control == {"servers": "a=1,b=2", "queue_limit": "1000", "draining": "0"}
    assert observed.keys == {"0A1B2C": "ann"}
    assert (observed.unassigned, observed.unanswered) == (1, 6)


def test_a_server_without_statistics_has_just_been_added() -> None:
    statistics = STATISTICS.replace("engines,b,0,0,0,0,,0\n", "")
    observed = replies.read_observed(STATE, statistics, CONTROL, "")
    assert observed.servers[1] == server("b", 2, ip="fd00::1", max_connections=0)


@pytest.mark.parametrize(
    ("state", "statistics", "says"),
    [
        pytest.param("", STATISTICS, "no header", id="no table of servers"),
        pytest.param("1\n4 engines 1 a\n", STATISTICS, "no header", id="a table without a header"),
        pytest.param(
            STATE.replace("srv_port", "port"), STATISTICS, "srv_port", id="another column of servers"
        ),
        pytest.param(STATE.replace(" 8000", " web"), STATISTICS, "'web'", id="a port that is no number"),
        pytest.param(STATE, "", "BACKEND", id="no statistics"),
        pytest.param(STATE, STATISTICS.replace("BACKEND", "c"), "BACKEND", id="no row of the backend"),
        pytest.param(STATE, STATISTICS.replace("scur", "current"), "scur", id="another column of statistics"),
    ],
)
def test_a_table_that_has_changed_is_unexpected(state: str, statistics: str, says: str) -> None:
    with pytest.raises(UnexpectedReply, match=says):
        replies.read_observed(state, statistics, "", "")


@pytest.mark.parametrize(
    ("reply", "count"),
    [
        pytest.param("proc.arrived: type=sint value=<0>", 0, id="none yet"),
        pytest.param("proc.arrived: type=sint value=<1234567>", 1_234_567, id="many"),
        pytest.param("Variable not found.", None, id="no such variable"),
        pytest.param("proc.arrived: type=str value=<x>", None, id="not a number"),
        pytest.param("", None, id="nothing"),
    ],
)
def test_the_number_of_arrivals(reply: str, count: int | None) -> None:
    assert replies.read_arrived(reply) == count


def test_the_number_of_held_requests() -> None:
    assert replies.read_held("7") == 7
    with pytest.raises(UnexpectedReply, match="flotilla held"):
        replies.read_held("Unknown command: 'flotilla'")


def test_a_process_is_told_by_its_id_and_its_start() -> None:
    told = "Name: HAProxy\nVersion: 3.2.26-1\nPid: 24032\nStart_time_sec: 1795410510\n"
    assert replies.read_process(told) == ("24032", "1795410510")
    with pytest.raises(UnexpectedReply, match="Start_time_sec"):
        replies.read_process("Pid: 24032\n")


@pytest.mark.parametrize(
    ("reply", "fingerprint"),
    [
        pytest.param("Filename: /tls.crt\nSHA1 FingerPrint: 0A1B2C\nAlgorithm: RSA2048", "0A1B2C", id="one"),
        pytest.param(
            "Can't display the certificate: Not found or the certificate is a bundle!", None, id="none"
        ),
    ],
)
def test_the_fingerprint_of_a_certificate(reply: str, fingerprint: str | None) -> None:
    assert replies.read_fingerprint(reply) == fingerprint


@asynccontextmanager
async def haproxy_without_agent() -> AsyncIterator[AdminSocket]:
    async with FakePods() as api, Router(api, "router-1", hold_at_zero=True) as router:
        await router.stop_agent()
        yield AdminSocket(RunFiles(str(router.directory)))


def entry(change: MapChange, key: str, value: str = "") -> ChangeMap:
    return ChangeMap(change=change, file=RunFiles.CONTROL_MAP, key=key, value=value)


ADD = AddServer(name="a", id=1, ip="127.0.0.1", port=9, max_connections=53)


@pytest.mark.services
@pytest.mark.usefixtures("haproxy")
@ON_EVERY
async def test_haproxy_carries_out_each_command_and_refuses_what_cannot_be() -> None:
    done: tuple[Command, ...] = (
        ADD,
        EnableServer(name="a"),
        SetState(name="a", state=AdminState.DRAIN),
        SetAddress(name="a", ip="127.0.0.2", port=8),
        SetAddress(name="a", ip="127.0.0.2", port=8),
        SetAddress(name="a", ip="127.0.0.2", port=7),
        SetMaxConnections(name="a", max_connections=5),
        CloseConnections(name="a"),
        entry(MapChange.ADD, "new", "value"),
        entry(MapChange.SET, "servers", "a=1"),
    )
    impossible: tuple[Command, ...] = (
        ADD,
        DeleteServer(name="a"),
        EnableServer(name="b"),
        entry(MapChange.SET, "nowhere", "value"),
        entry(MapChange.DELETE, "nowhere"),
    )
    async with haproxy_without_agent() as socket:
        assert await socket.execute(done) == {}
        assert set(await socket.execute(impossible)) == set(impossible)
        observed = await socket.observe(with_keys=True, with_held=True)
        moved = ObservedServer(
            name="a", id=1, ip="127.0.0.2", port=7, admin=AdminState.DRAIN, max_connections=5
        )
        assert observed.servers == (moved,)
        assert (observed.control["servers"], observed.control["new"]) == ("a=1", "value")
        assert (observed.arrived, observed.held, observed.keys) == (0, 0, {})
        gone = (SetState(name="a", state=AdminState.MAINTENANCE), DeleteServer(name="a"))
        assert await socket.execute((*gone, entry(MapChange.DELETE, "new"))) == {}
        after = await socket.observe(with_keys=False)
        assert (after.servers, "new" in after.control) == ((), False)
