"""Connections to a fleet's Redis: one server, primaries that Sentinel watches, or a Cluster.

All keys of a fleet have one hash tag, so one server has them all at any time: the primary that Sentinel
names, or that of the tag's slot. Each new connection asks where that is, by redis-py's own clients. What
shows that the primary has moved ends the connection, and the request fails like any other that got no answer:
whoever sent it knows for how long to repeat it. So scripts, transactions, blocking commands and subscriptions
are the same whatever the topology.

redis-py's own retries are off for the same reason.
"""

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit, urlunsplit

from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import Connection, SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import (
    AskError,
    ClusterDownError,
    ConnectionError,  # noqa: A004
    MovedError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
)

from flotilla_runtime.contract import (
    ENV_REDIS_URL,
    QueueConfig,
    RedisTopology,
    SecretError,
    SecretForm,
    TaskKeys,
    secret_value,
)
from flotilla_runtime.secret_files import secret_in

CONNECT_TIMEOUT_SECONDS: Final = 2.0
ANSWER_TIMEOUT_SECONDS: Final = 5.0
MOST_CONNECTIONS: Final = 64
REDIS_PORT: Final = 6379
SENTINEL_PORT: Final = 26379
DEFAULT_MASTER: Final = "mymaster"  # as in Redis' own sentinel.conf
MOVED: Final = (MovedError, AskError, ReadOnlyError, ClusterDownError)

Address = tuple[str, int]


class RedisUrlError(SecretError):
    """The URL of Redis cannot be used. The message has no part of it."""


class PasswordError(ConnectionError):
    """The password cannot be used, so no connection comes about until the secret is mended."""


class NoPrimaryError(ConnectionError):
    """No server is known that has the fleet's keys."""


class PasswordFile(CredentialProvider):
    """The password in a mounted secret, read for each connection, so that a new one needs no restart."""

    def __init__(self, path: Path, user: str | None = None) -> None:
        self._path = path
        self._user = user

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """User and password in the form that redis-py expects."""
        try:
            password = secret_in(self._path, SecretForm.TEXT)
        except SecretError as problem:
            raise PasswordError(str(problem)) from None
        return (self._user, password) if self._user else (password,)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        """The same; the file is small and in memory."""
        return self.get_credentials()


def connect(config: QueueConfig, environment: Mapping[str, str] = os.environ) -> "Redis":
    """A client for the primary that has the fleet's keys; nothing is sent yet."""
    hosts, url = hosts_of(config.url or _url_in(environment))
    settings: dict[str, Any] = {**_settings(config), **_named_in(url)}
    if config.topology is RedisTopology.SINGLE:
        if len(hosts) > 1:
            raise RedisUrlError(
                "the URL of Redis names several hosts; set queue.redis.topology to Sentinel or Cluster, or "
                "name one host"
            )
        return Redis.from_pool(BlockingConnectionPool(**settings))
    for name in ("host", "port"):
        settings.pop(name, None)
    over_tls = settings.pop("connection_class", Connection) is SSLConnection
    pool = BlockingConnectionPool(
        connection_class=FoundSSLConnection if over_tls else FoundConnection,
        primary=Primary(_whereabouts(config, hosts, settings, over_tls=over_tls)),
        **settings,
    )
    return Redis.from_pool(pool)


def hosts_of(url: str) -> tuple[list[tuple[str, int | None]], str]:
    """The hosts that a URL names, with commas between them, and the URL with the first one alone.

    The error of an unreadable port shows no part of the password.
    """
    parts = urlsplit(url)
    user, at, places = parts.netloc.rpartition("@")
    try:
        named = [urlsplit(f"//{place}") for place in places.split(",") if place]
        hosts = [(host.hostname or "localhost", host.port) for host in named]
    except ValueError:
        raise RedisUrlError(
            "the URL of Redis has no readable port; percent-encode the special characters of the password"
        ) from None
    first = places.split(",")[0]
    return hosts, urlunsplit(parts._replace(netloc=f"{user}{at}{first}"))


def _named_in(url: str) -> Mapping[str, Any]:
    """The settings that a URL names. redis-py's errors are not told, because they may have a part of it."""
    try:
        return dict(parse_url(url))
    except ValueError:
        raise RedisUrlError(
            "the URL of Redis cannot be read; write redis://USER:PASSWORD@HOST:PORT/DATABASE, or rediss:// "
            "for TLS, with parameters that redis-py knows"
        ) from None


def _url_in(environment: Mapping[str, str]) -> str:
    where = f"the environment variable {ENV_REDIS_URL} (queue.redis.urlSecretRef)"
    return secret_value(environment.get(ENV_REDIS_URL, ""), where, SecretForm.TEXT)


class Whereabouts(Protocol):
    """Knows which server is the primary of the fleet's keys."""

    async def ask(self) -> Address:
        """The address of the primary, asked anew. Raises an error of redis-py if nobody knows."""


class SentinelWhereabouts:
    """Asks the first Sentinel that answers."""

    def __init__(self, sentinels: list[Address], master: str, settings: Mapping[str, Any]) -> None:
        self._sentinels = sentinels
        self._master = master
        self._settings = dict(settings)

    async def ask(self) -> Address:
        """The address of the primary that Sentinel names."""
        asked = Sentinel(self._sentinels, sentinel_kwargs=self._settings)  # type: ignore[no-untyped-call]
        async with asked as sentinel:
            host, port = await sentinel.discover_master(self._master)
        return str(host), int(port)


class ClusterWhereabouts:
    """Asks the nodes of a Cluster which of them has the slot of a key."""

    def __init__(self, nodes: list[ClusterNode], key: str, settings: Mapping[str, Any]) -> None:
        self._nodes = nodes
        self._key = key
        self._settings = dict(settings)

    async def ask(self) -> Address:
        """The address of the slot's primary."""
        cluster = RedisCluster(startup_nodes=self._nodes, require_full_coverage=False, **self._settings)
        try:
            await cluster.initialize()
            node = cluster.get_node_from_key(self._key)
            if node is None:
                raise NoPrimaryError("no node of the Redis Cluster has the slot of the fleet's keys")
            self._nodes = [ClusterNode(each.host, each.port) for each in cluster.get_nodes()] or self._nodes
            return str(node.host), int(node.port)
        except RedisClusterException as problem:
            raise NoPrimaryError("the Redis Cluster cannot be asked for its slots") from problem
        finally:
            await cluster.aclose()


class Primary:
    """The address of the primary, remembered until something shows that it has moved.

    Connections that are opened at the same time, as after a failover, share one question.
    """

    def __init__(self, whereabouts: Whereabouts) -> None:
        self._whereabouts = whereabouts
        self._asking = asyncio.Lock()
        self._known: Address | None = None

    async def address(self) -> Address:
        """Where the primary is."""
        async with self._asking:
            if self._known is None:
                self._known = await self._whereabouts.ask()
            return self._known

    def forget(self) -> None:
        """Ask again before the next connection."""
        self._known = None


class FoundConnection(Connection):
    """A connection to wherever the primary is when it is opened."""

    def __init__(self, *, primary: Primary, **settings: Any) -> None:
        self._primary = primary
        super().__init__(**settings)

    async def connect_check_health(
        self, check_health: bool = True, retry_socket_connect: bool = True
    ) -> None:
        """Open the connection, if it is not open, to where the primary is now."""
        if self.is_connected:
            return
        self.host, self.port = await self._primary.address()
        try:
            await super().connect_check_health(check_health, retry_socket_connect)
        except (RedisError, OSError):
            self._primary.forget()
            raise

    async def disconnect(self, *args: Any, **settings: Any) -> None:
        """Whatever ends a connection may be that the primary has moved."""
        self._primary.forget()
        await super().disconnect(*args, **settings)

    async def read_response(self, *args: Any, **settings: Any) -> Any:
        """The next answer. One that shows that the primary has moved ends the connection."""
        try:
            return await super().read_response(*args, **settings)
        except MOVED as moved:
            await self.disconnect()
            raise NoPrimaryError("this server is not the primary of the fleet's keys") from moved


class FoundSSLConnection(FoundConnection, SSLConnection):
    """The same over TLS."""


def _settings(config: QueueConfig) -> dict[str, Any]:
    path = config.password_path
    return {
        "credential_provider": PasswordFile(Path(path), config.user) if path else None,
        "decode_responses": True,
        "max_connections": MOST_CONNECTIONS,
        "timeout": ANSWER_TIMEOUT_SECONDS,
        "socket_connect_timeout": CONNECT_TIMEOUT_SECONDS,
        "socket_timeout": ANSWER_TIMEOUT_SECONDS,
        "retry": Retry(NoBackoff(), 0),
        "health_check_interval": 15,
    }


def _shared(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that also hold for the connections that ask where the primary is."""
    return {name: value for name, value in settings.items() if name.startswith(("ssl_", "socket_", "retry"))}


def _whereabouts(
    config: QueueConfig, hosts: list[tuple[str, int | None]], settings: Mapping[str, Any], *, over_tls: bool
) -> Whereabouts:
    if config.topology is RedisTopology.SENTINEL:
        path = config.sentinel_password_path
        return SentinelWhereabouts(
            [(host, port or SENTINEL_PORT) for host, port in hosts],
            config.sentinel_master or DEFAULT_MASTER,
            {
                **_shared(settings),
                "ssl": over_tls,
                "credential_provider": PasswordFile(Path(path)) if path else None,
                "decode_responses": True,
            },
        )
    if settings.get("db"):
        raise RedisUrlError("a Redis Cluster has the database 0 alone; leave the path of the URL out")
    names = ("username", "password", "credential_provider")
    return ClusterWhereabouts(
        [ClusterNode(host, port or REDIS_PORT) for host, port in hosts],
        TaskKeys(config.fleet).leases,
        {
            **_shared(settings),
            **{name: settings[name] for name in names if name in settings},
            "ssl": over_tls,
        },
    )
