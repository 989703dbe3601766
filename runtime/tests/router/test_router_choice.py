"""The choice of a replica, from router.lua itself in the Lua version that HAProxy has."""

import zlib

import pytest

from router.lua_choice import Choice, Load, RouterLua, chat_body
from router_support.builders import config

CHAT = "/v1/chat/completions"
KEYS = [zlib.crc32(str(number).encode()) for number in range(200)]
IDS = {"a": 1, "b": 2, "c": 3, "d": 4}
LOAD_FACTOR = config().load_factor


def idle(*names: str, most: int = 24) -> dict[str, Load]:
    return {name: Load(connections=0, most=most) for name in names}


@pytest.fixture
def router() -> RouterLua:
    return RouterLua(lambda text: zlib.crc32(text.encode()))


def home(router: RouterLua, key: int, ids: dict[str, int] = IDS) -> str:
    choice = router.pick(key, ids, idle(*ids), load_factor=LOAD_FACTOR)
    assert choice is not None
    assert not choice.moved
    return choice.replica


@pytest.mark.holds("decisions/0002-haproxy.md", "Routers agree in whatever order they learned of the servers")
def test_routers_that_learned_of_the_servers_in_another_order_agree(router: RouterLua) -> None:
    backwards = dict(reversed(IDS.items()))
    assert [home(router, key) for key in KEYS] == [home(router, key, backwards) for key in KEYS]


def test_every_server_is_the_home_of_some(router: RouterLua) -> None:
    homes = [home(router, key) for key in KEYS]
    assert all(30 <= homes.count(name) <= 70 for name in IDS)


def test_only_the_keys_of_a_lost_server_move(router: RouterLua) -> None:
    left = {name: number for name, number in IDS.items() if name != "b"}
    for key in KEYS:
        before = home(router, key)
        assert home(router, key, left) == before or before == "b"


def test_a_server_that_haproxy_does_not_know_is_left_out(router: RouterLua) -> None:
    choices = [router.pick(key, IDS, idle("a"), load_factor=LOAD_FACTOR) for key in KEYS]
    assert {choice.replica for choice in choices if choice is not None} == {"a"}
    assert router.pick(KEYS[0], IDS, {}, load_factor=LOAD_FACTOR) is None


@pytest.mark.holds("router.md", "A home keeps no more than its share of the load, by `loadFactor`")
@pytest.mark.parametrize(
    ("at_home", "elsewhere", "moved"),
    [
        pytest.param(Load(connections=11, most=24), 0, False, id="less than half of what it may: it stays"),
        pytest.param(Load(connections=12, most=24), 0, True, id="half, and the others idle: it goes"),
        pytest.param(Load(connections=20, most=24), 20, False, id="all are as loaded: it stays"),
        pytest.param(Load(connections=20, most=24), 15, False, id="no more than a quarter above the mean"),
        pytest.param(Load(connections=23, most=24), 12, True, id="more than its share"),
        pytest.param(Load(connections=24, most=24), 23, True, id="full, and the others are not"),
        pytest.param(Load(connections=20, queued=1, most=24), 20, True, id="requests wait for it already"),
        pytest.param(Load(connections=24, most=24), 24, False, id="all are full: it waits at home"),
    ],
)
def test_a_home_is_passed_over(router: RouterLua, at_home: Load, elsewhere: int, moved: bool) -> None:
    for key in KEYS[:20]:
        first = home(router, key)
        loads = {**idle(*IDS), **{name: Load(connections=elsewhere, most=24) for name in IDS}, first: at_home}
        choice = router.pick(key, IDS, loads, load_factor=LOAD_FACTOR)
        assert choice == Choice(replica=choice.replica if choice else "", moved=moved)
        assert (choice.replica != first) is moved


@pytest.mark.holds("router.md", "A home keeps no more than its share of the load, by `loadFactor`")
@pytest.mark.parametrize(("load_factor", "moved"), [(1.25, True), (2.0, False)])
def test_the_share_of_a_home_is_the_load_factor_of_its_set(
    router: RouterLua, load_factor: float, moved: bool
) -> None:
    for key in KEYS[:20]:
        loads = {name: Load(connections=12, most=24) for name in IDS}
        loads[home(router, key)] = Load(connections=20, most=24)
        choice = router.pick(key, IDS, loads, load_factor=load_factor)
        assert choice is not None
        assert choice.moved is moved


def test_who_is_passed_over_goes_to_the_next_of_its_own_order(router: RouterLua) -> None:
    for key in KEYS[:20]:
        first = home(router, key)
        second = home(router, key, {name: number for name, number in IDS.items() if name != first})
        loads = {**idle(*IDS), first: Load(connections=24, most=24)}
        choice = router.pick(key, IDS, loads, load_factor=LOAD_FACTOR)
        assert choice == Choice(replica=second, moved=True)


@pytest.mark.holds("router.md", "The beginning is the first system and the first user message, both whole")
def test_callers_that_share_a_long_template_are_spread(router: RouterLua) -> None:
    template = "how to answer " * 500
    keys = [
        router.key(CHAT, chat_body([("system", "be kind"), ("user", f"{template}{number}")]))[1]
        for number in range(80)
    ]
    homes = [home(router, key) for key in keys if key is not None]
    assert all(10 <= homes.count(name) <= 30 for name in IDS)


@pytest.mark.holds("router.md", "The beginning is the first system and the first user message, both whole")
def test_a_conversation_keeps_its_key_while_it_grows(router: RouterLua) -> None:
    began = [("system", "be kind"), ("user", "long text " * 1000)]
    key = router.key(CHAT, chat_body(began))
    assert key[0] == "Messages"
    assert router.key(CHAT, chat_body([*began, ("assistant", "yes"), ("user", "go on " * 20_000)])) == key
    assert router.key(CHAT, chat_body([("system", "be terse"), *began[1:]])) != key


SYSTEM = ("system", "how to answer " * 5000)
TOOLS = f'{{"tools": ["{"what it does " * 5500}"], '


@pytest.mark.holds("router.md", "With a first message behind the 64 KiB, the first 32 KiB are the key")
@pytest.mark.parametrize(
    ("head", "before"),
    [
        pytest.param("{", [SYSTEM], id="a system message that is longer than the buffer"),
        pytest.param(TOOLS, [("system", "be kind")], id="tools longer than the buffer before the messages"),
    ],
)
def test_an_agent_whose_first_words_are_behind_the_buffer_keeps_its_key(
    router: RouterLua, head: str, before: list[tuple[str, str]]
) -> None:
    def key(head: str, *messages: tuple[str, str]) -> tuple[str | None, int | None]:
        return router.key(CHAT, head + chat_body([*before, *messages]).removeprefix("{"))

    first = key(head, ("user", "hello"))
    assert first[0] == "Messages"
    assert key(head, ("user", "hello"), ("assistant", "yes"), ("user", "go on " * 20_000)) == first
    assert key(f'{{"model": "other", {head.removeprefix("{")}', ("user", "hello")) != first


def test_a_long_system_message_that_is_there_in_whole_is_no_conversation(router: RouterLua) -> None:
    assert router.key(CHAT, chat_body([("system", "how to answer " * 3000)])) == (None, None)
