"""Plans for HAProxy's admin socket: tables, and properties against a model of it.

What the real HAProxy does with them is in test_router_service.py.
"""

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flotilla_runtime.contract import RouterConfig, ServerState
from flotilla_runtime.router.commands import AdminState, Command, text
from flotilla_runtime.router.files import RunFiles
from flotilla_runtime.router.pods import Replica
from flotilla_runtime.router.servers import (
    Desired,
    Limits,
    Observed,
    limits,
    plan,
    rebalance,
    rebalanced,
    router_servers,
)
from router_support.builders import config, replica, server
from router_support.model_haproxy import ModelHAProxy

CONFIG = config()
FILES = RunFiles(CONFIG.run_directory)
SETTLED = {"queue_limit": "1000", "draining": "0"}
DRAINING = ServerState.DRAINING
CONTROL = "/run/flotilla/control.map"
KEYS = "/run/flotilla/keys.map"
SENT_BACK = ("set server engines/a addr 127.0.0.1 port 1", "set server engines/a state drain")


def texts(commands: Iterable[Command]) -> tuple[str, ...]:
    return tuple(text(command, FILES) for command in commands)


def observed(*servers: object, listed: str = "-", **control: str) -> Observed:
    return Observed(servers=servers, control={**SETTLED, "servers": listed, **control})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("desired", "seen", "commands"),
    [
        pytest.param(Desired(), observed(), (), id="nothing to know, nothing to do"),
        pytest.param(
            Desired(replicas=(replica("a", 1),)),
            observed(),
            (
                "add server engines/a 10.0.0.1:8000 id 1 maxconn 53",
                "enable server engines/a",
                f"set map {CONTROL} servers a=1",
            ),
            id="a new replica is listed after it was added",
        ),
        pytest.param(
            Desired(replicas=(replica("a", 1, ip="fd00::1"),)),
            observed(listed="a=1"),
            ("add server engines/a [fd00::1]:8000 id 1 maxconn 53", "enable server engines/a"),
            id="an address of the other family stands in brackets",
        ),
        pytest.param(
            Desired(replicas=(replica("a", 1, state=DRAINING),)),
            observed(server("a", 1), listed="a=1"),
            (f"set map {CONTROL} servers -", "set server engines/a state drain"),
            id="a replica leaves the list before it drains",
        ),
        pytest.param(
            Desired(replicas=(replica("a", 1, state=DRAINING), replica("b", 2))),
            observed(server("a", 1, in_flight=53, queued=2), server("b", 2), listed="b=2"),
            (*SENT_BACK, "set server engines/a addr 10.0.0.1 port 8000"),
            id="what waits for a replica that drains goes to another",
        ),
        pytest.param(
            Desired(replicas=(replica("a", 1, state=DRAINING),)),
            observed(server("a", 1, in_flight=53, queued=2)),
            ("set server engines/a state drain",),
            id="what waits for the last replica stays, although it drains",
        ),
        pytest.param(
            Desired(replicas=(replica("a", 1),)),
            observed(
                server("a", 1, ip="127.0.0.1", port=1, admin=AdminState.DRAIN, in_flight=2), listed="a=1"
            ),
            ("set server engines/a addr 10.0.0.1 port 8000", "set server engines/a state ready"),
            id="a server that an agent left at the closed address gets its own back, and keeps its streams",
        ),
        pytest.param(
            Desired(replicas=(replica("a", 1),)),
            observed(server("a", 1, admin=AdminState.DRAIN)),
            ("set server engines/a state ready", f"set map {CONTROL} servers a=1"),
            id="a drain that is called off is undone",
        ),
        pytest.param(
            Desired(replicas=(replica("a", 1, state=DRAINING),)),
            observed(),
            (),
            id="a draining replica that HAProxy does not know is not added",
        ),
        pytest.param(
            Desired(),
            observed(server("a", 1, in_flight=2), listed="a=1"),
            (
                f"set map {CONTROL} servers -",
                "set server engines/a state maint",
                "shutdown sessions server engines/a",
                "del server engines/a",
            ),
            id="a replica that is gone is deleted with what is still open",
        ),
        pytest.param(
            Desired(replicas=(replica("a", 1, ip="10.0.0.9"),)),
            observed(server("a", 1), listed="a=1"),
            ("set server engines/a state maint", "del server engines/a"),
            id="a replica with a new address is deleted first and added next time",
        ),
        pytest.param(
            Desired(replicas=(replica("a", 1),), live_routers=2),
            observed(server("a", 1), listed="a=1"),
            ("set maxconn server engines/a 27", f"set map {CONTROL} queue_limit 500"),
            id="a second router halves the limits",
        ),
        pytest.param(
            Desired(draining=True),
            observed(),
            (f"set map {CONTROL} draining 1",),
            id="a router that is leaving closes its connections",
        ),
    ],
)
def test_plan(desired: Desired, seen: Observed, commands: tuple[str, ...]) -> None:
    assert texts(plan(CONFIG, desired, seen)) == commands


def test_keys_are_added_before_old_ones_go() -> None:
    guarded = config(caller_keys_directory="/keys")
    seen = Observed(control={**SETTLED, "servers": "-"}, keys={"AA": "fleet", "BB": "old"})
    assert texts(plan(guarded, Desired(keys={"AA": "build", "CC": "new"}), seen)) == (
        f"set map {KEYS} AA build",
        f"add map {KEYS} CC new",
        f"del map {KEYS} BB",
    )


@pytest.mark.parametrize(
    ("sequences", "routers", "share"),
    [
        pytest.param(48, 1, Limits(max_connections=53, queue=1000), id="one router has it all"),
        pytest.param(10, 1, Limits(max_connections=11, queue=1000), id="a tenth more, exactly"),
        pytest.param(48, 3, Limits(max_connections=18, queue=334), id="shares are rounded up"),
        pytest.param(1, 9, Limits(max_connections=1, queue=112), id="no router gets nothing"),
    ],
)
def test_limits(sequences: int, routers: int, share: Limits) -> None:
    assert limits(config(max_num_seqs=sequences), routers) == share


FULL = server("a", 1, max_connections=1, in_flight=1, queued=2)
FREE = server("b", 2, max_connections=1)


@pytest.mark.holds(
    "decisions/0002-haproxy.md", "A queue that stands still moves when another replica has room"
)
@pytest.mark.parametrize(
    ("earlier", "now", "moved"),
    [
        pytest.param((FULL, FREE), (FULL, FREE), True, id="it waits while another has room, twice in a row"),
        pytest.param((FREE,), (FULL, FREE), False, id="it has only just begun to wait"),
        pytest.param((FULL,), (FULL, FREE), False, id="the other has only just got room"),
        pytest.param((FULL,), (FULL,), False, id="nobody has room"),
        pytest.param(
            (FULL, server("b", 2, admin=AdminState.DRAIN)),
            (FULL, server("b", 2, admin=AdminState.DRAIN)),
            False,
            id="a draining server's room is none",
        ),
    ],
)
def test_rebalance(earlier: tuple[object, ...], now: tuple[object, ...], moved: bool) -> None:
    home = "set server engines/a addr 10.0.0.1 port 8000"
    again = (*SENT_BACK, home, "set server engines/a state ready")
    commands = rebalance(observed(*earlier), observed(*now))
    assert texts(commands) == (again if moved else ())
    assert rebalanced(commands) == moved


@pytest.mark.holds(
    "draining.md", "The operator writes the epoch of the drain and routers acknowledge that epoch"
)
@pytest.mark.parametrize(
    ("seen", "acknowledged"),
    [
        pytest.param(observed(server("a", 1), listed="a=1"), None, id="not while it takes requests"),
        pytest.param(
            observed(server("a", 1, admin=AdminState.DRAIN), listed="a=1"), None, id="not while it is a home"
        ),
        pytest.param(observed(server("a", 1, admin=AdminState.DRAIN)), 7, id="once nothing new can reach it"),
        pytest.param(observed(), 7, id="at once when HAProxy does not know it"),
    ],
)
def test_a_drain_is_acknowledged(seen: Observed, acknowledged: int | None) -> None:
    desired = Desired(replicas=(replica("a", 1, state=DRAINING, drain_epoch=7),))
    (row,) = router_servers(CONFIG, desired, seen)
    assert row.acknowledged_drain_epoch == acknowledged


NAMES = st.sampled_from(["a", "b", "c", "d"])
IPS = st.sampled_from(["10.0.0.1", "10.0.0.2", "fd00::1"])


def unique(items: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(items, max_size=4, unique_by=(lambda item: item.name, lambda item: item.id))


REPLICAS = unique(
    st.builds(
        replica,
        NAMES,
        st.integers(1, 5),
        ip=IPS,
        state=st.sampled_from([ServerState.READY, ServerState.DRAINING]),
    )
)
SERVERS = unique(
    st.builds(
        server,
        NAMES,
        st.integers(1, 5),
        ip=st.one_of(IPS, st.sampled_from(["127.0.0.1", "::1"])),
        port=st.sampled_from([8000, 9000, 1]),
        admin=st.sampled_from(AdminState),
        max_connections=st.sampled_from([27, 53]),
        in_flight=st.integers(0, 2),
    )
)
LISTED = st.lists(st.sampled_from(["a=1", "b=2", "c=3", "d=9"]), unique=True).map(
    lambda entries: ",".join(entries) or "-"
)
CALLER_KEYS = st.dictionaries(st.sampled_from(["AA", "BB", "CC"]), st.sampled_from(["one", "two"]))


@given(REPLICAS, SERVERS, LISTED, CALLER_KEYS, CALLER_KEYS, st.integers(1, 3), st.booleans())
def test_plans_settle(
    replicas: list[Replica],
    servers: list[object],
    listed: str,
    wanted_keys: dict[str, str],
    held_keys: dict[str, str],
    routers: int,
    draining: bool,
) -> None:
    """From any state, two rounds reach the wanted one, refuse nothing in the second and leave no plan."""
    guarded = config(caller_keys_directory="/keys")
    usable = tuple(sorted(replicas, key=lambda item: item.id))
    desired = Desired(replicas=usable, live_routers=routers, draining=draining, keys=wanted_keys)
    start = observed(*servers, listed=listed)
    model = ModelHAProxy(Observed(servers=start.servers, control=start.control, keys=held_keys))
    for _ in range(2):
        model.refused.clear()
        for command in texts(plan(guarded, desired, model.observed())):
            model.run(command)
            assert_listed_servers_were_wanted(model, desired, start)
    assert model.refused == []
    assert plan(guarded, desired, model.observed()) == ()
    assert_reached(guarded, model, desired)


def assert_listed_servers_were_wanted(model: ModelHAProxy, desired: Desired, start: Observed) -> None:
    """Nothing enters the list of homes that is not wanted ready, at any moment of a plan."""
    entries = set(model.maps["control.map"]["servers"].split(","))
    ready = {f"{item.name}={item.id}" for item in desired.replicas if item.state is ServerState.READY}
    assert entries <= ready | set(start.control["servers"].split(",")) | {"-"}


def assert_reached(guarded: RouterConfig, model: ModelHAProxy, desired: Desired) -> None:
    ready = [item for item in desired.replicas if item.state is ServerState.READY]
    listed = ",".join(f"{item.name}={item.id}" for item in ready) or "-"
    assert model.maps["control.map"]["servers"] == listed
    assert model.maps["keys.map"] == desired.keys
    taking = {name for name, held in model.servers.items() if held.admin is AdminState.READY}
    assert taking == {item.name for item in ready}
    assert set(model.servers) <= {item.name for item in desired.replicas}
    share = limits(guarded, desired.live_routers)
    homes = {item.name: (item.ip, guarded.engine_port) for item in desired.replicas}
    assert all((held.ip, held.port) == homes[name] for name, held in model.servers.items())
    assert {held.max_connections for held in model.servers.values()} <= {share.max_connections}
