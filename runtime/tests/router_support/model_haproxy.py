"""HAProxy's admin socket as a plain dictionary: right by being trivial, so that plans can be run against it.

It reads the text of a command, as HAProxy does.
It refuses what HAProxy refuses: a name or an id twice, a deletion outside maintenance or with connections.
"""

from dataclasses import replace

from flotilla_runtime.router.commands import AdminState
from flotilla_runtime.router.servers import Observed, ObservedServer

STATES = {"ready": AdminState.READY, "drain": AdminState.DRAIN, "maint": AdminState.MAINTENANCE}


class ModelHAProxy:
    def __init__(self, observed: Observed) -> None:
        self.servers = {server.name: server for server in observed.servers}
        self.maps = {"control.map": dict(observed.control), "keys.map": dict(observed.keys)}
        self.refused: list[str] = []

    def observed(self) -> Observed:
        return Observed(
            servers=tuple(self.servers.values()), control=self.maps["control.map"], keys=self.maps["keys.map"]
        )

    def run(self, command: str) -> None:
        words = command.split(" ")
        if words[1] == "map":
            self._map(words)
        elif not self._server(command, words):
            self.refused.append(command)

    def _map(self, words: list[str]) -> None:
        entries = self.maps[words[2].rsplit("/", 1)[1]]
        if words[0] == "del":
            del entries[words[3]]
        else:
            assert (words[3] in entries) is (words[0] == "set"), words
            entries[words[3]] = words[4]

    def _server(self, command: str, words: list[str]) -> bool:
        if command.startswith("add server"):
            return self._add(words)
        name = words[3 if words[1] in ("sessions", "maxconn") else 2].removeprefix("engines/")
        held = self.servers[name]
        if words[0] == "enable":
            self.servers[name] = replace(held, admin=AdminState.READY)
        elif command.startswith("set maxconn"):
            self.servers[name] = replace(held, max_connections=int(words[4]))
        elif words[0] == "set" and words[3] == "addr":
            self.servers[name] = replace(held, ip=words[4], port=int(words[6]))
        elif words[0] == "set":
            self.servers[name] = replace(held, admin=STATES[words[4]])
        elif words[0] == "shutdown":
            self.servers[name] = replace(held, in_flight=0)
        elif words[0] == "del":
            if held.admin is not AdminState.MAINTENANCE or held.in_flight or held.queued:
                return False
            del self.servers[name]
        else:
            raise AssertionError(command)
        return True

    def _add(self, words: list[str]) -> bool:
        name, server_id = words[2].removeprefix("engines/"), int(words[5])
        if name in self.servers or any(held.id == server_id for held in self.servers.values()):
            return False
        host, port = words[3].rsplit(":", 1)
        self.servers[name] = ObservedServer(
            name=name,
            id=server_id,
            ip=host.strip("[]"),
            port=int(port),
            admin=AdminState.MAINTENANCE,
            max_connections=int(words[7]),
        )
        return True
