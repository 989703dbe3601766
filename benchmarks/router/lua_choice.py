"""The actions of router.lua as Python functions, with a simulated HAProxy.

The file itself runs, in HAProxy's Lua version, so tests and simulations of the choice use the real rule.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from itertools import islice

from lupa.lua53 import LuaRuntime

from flotilla_runtime.router.control_map import Home, write_homes
from flotilla_runtime.router.haproxy import BUFFER_BYTES

HEADER_BYTES = 1024  # the room that headers take in the buffer, beside the body
PATH = re.compile(r"\$\.messages\[(\d+)\]\.(role|content)")
MESSAGE = re.compile(r'{"role": "(?P<role>[^"]*)", "content": ("(?P<content>[^"]*)")?')

OWN_DIVISOR = "local HALF = 2\n"

# The parts of HAProxy's Lua API that router.lua uses; an unknown server is an error, as in HAProxy.
HAPROXY = """
function(source, hash, query)
    local actions = {}
    core = {
        register_action = function(name, _, action) actions[name] = action end,
        register_cli = function() end,
        register_service = function() end,
        register_filter = function() end,
    }
    filter = {}
    load(source)()
    local function transaction(vars, request, load_of)
        local function figure(place)
            return function(_, name)
                local known = load_of(name)
                if known == nil then error("no such server") end
                return known[place]
            end
        end
        return {
            get_var = function(_, name) return vars[name] end,
            set_var = function(_, name, value) vars[name] = value end,
            sc = { xxh32 = function(_, text) return hash(text) end },
            c = { json_query = function(_, body, path) return query(body, path) end },
            f = {
                req_fhdr = function(_, name) return request[name] end,
                req_body = function() return request.body end,
                req_body_size = function() return request.size end,
                path = function() return request.path end,
                srv_conn = figure(0), srv_queue = figure(1), srv_conn_free = figure(2),
            },
        }
    end
    return function(name, vars, request, load_of)
        actions[name](transaction(vars, request, load_of))
    end
end
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """HAProxy's figures of one server."""

    connections: int
    queued: int = 0
    most: int

    def figures(self) -> tuple[int, int, int]:
        """In flight, queued and free, in the order in which the simulated HAProxy reads them."""
        return self.connections, self.queued, max(0, self.most - self.connections)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The chosen replica, and whether it is not the key's home replica."""

    replica: str
    moved: bool


class RouterLua:
    """Finds a request's key and chooses its replica. `hash_key` replaces xxh32: it maps a text to 32 bits.
    `bound_from_share` replaces the share of a replica's capacity, in router.lua one half, from which the load
    bound applies.
    """

    def __init__(self, hash_key: Callable[[str], int], *, bound_from_share: float | None = None) -> None:
        self._lua = LuaRuntime(encoding="latin-1")
        source = files("flotilla_runtime.router").joinpath("router.lua").read_text("utf-8")
        if bound_from_share is not None:
            source = _bound_from(source, bound_from_share)
        self._run = self._lua.eval(HAPROXY)(source.encode().decode("latin-1"), hash_key, _query)

    def key(self, path: str, body: str, *, session: str | None = None) -> tuple[str | None, int | None]:
        """The source of the key, and the key."""
        variables = self._lua.table()
        sent = body.encode()
        seen = sent[: BUFFER_BYTES - HEADER_BYTES].decode("latin-1")
        request = self._lua.table_from(
            {"path": path, "body": seen, "size": len(sent), "x-session-id": session}
        )
        self._run("flotilla_key", variables, request, None)
        return variables["txn.key_source"], variables["txn.key"]

    def pick(
        self, key: int, ids: Mapping[str, int], loads: Mapping[str, Load], *, load_factor: float
    ) -> Choice | None:
        """The choice among servers with these ids; HAProxy knows only those in `loads`."""
        figures = {name: load.figures() for name, load in loads.items()}
        servers = write_homes(Home(name=name, id=number) for name, number in ids.items())
        variables = self._lua.table_from(
            {"txn.key": key, "txn.servers": servers, "txn.load_factor_percent": round(load_factor * 100)}
        )
        self._run("flotilla_pick", variables, None, figures.get)
        chosen = variables["txn.server"]
        return None if chosen is None else Choice(replica=chosen, moved=bool(variables["txn.moved"]))


def chat_body(messages: Iterable[tuple[str, str]]) -> str:
    """A chat request for the simulated HAProxy, whose messages must have no quotation marks."""
    return json.dumps({"messages": [{"role": role, "content": content} for role, content in messages]})


def _bound_from(source: str, share: float) -> str:
    assert source.count(OWN_DIVISOR) == 1, f"router.lua has not exactly one line {OWN_DIVISOR!r}"
    return source.replace(OWN_DIVISOR, f"local HALF = 1 / {share}\n")


def _query(body: str, path: str) -> str | None:
    """HAProxy's json_query on a chat_body that may be cut off; it finds values that end before the cut."""
    found = PATH.fullmatch(path)
    message = None if found is None else next(islice(MESSAGE.finditer(body), int(found[1]), None), None)
    return None if found is None or message is None else message[found[2]]
