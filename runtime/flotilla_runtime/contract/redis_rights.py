"""The commands of Redis that a fleet's users may call: those of the store and of its scripts, and no other.

Redis checks the commands inside a script against the rights of who runs it. An executor runs scripts that
gateways and workers have loaded, and loads none: a script of its own could loop, and Redis would answer
nobody. It lacks GET, which every script for tasks calls first, so these end at once for it.
"""

from collections.abc import Collection
from typing import Final

_CONNECTION: Final = {"ping", "time", "evalsha", "blpop"}
_EXECUTOR_SCRIPTS: Final = {
    *("del", "exists", "hdel", "hget", "hincrby", "hmget", "hset", "hstrlen", "lpop", "lrange", "ltrim"),
    *("pexpire", "pttl", "rpush", "zadd", "zcard", "zpopmin", "zrange", "zrangebyscore", "zrem"),
    "zremrangebyscore",
}
EXECUTOR_COMMANDS: Final = frozenset(_CONNECTION | _EXECUTOR_SCRIPTS)
TASK_COMMANDS: Final = EXECUTOR_COMMANDS | {
    *("multi", "exec", "discard", "info", "wait", "script|load", "script|exists"),
    *("ssubscribe", "sunsubscribe", "spublish", "pubsub|shardnumsub"),
    *("decrby", "expire", "get", "hexists", "hgetall", "hkeys", "hlen", "hsetnx", "hvals", "incr", "incrby"),
    *("lindex", "llen", "lrem", "mget", "sadd", "scard", "set", "smembers", "srandmember", "srem", "unlink"),
    *("xadd", "xdel", "xlen", "xrange", "zcount", "zrangebylex", "zscore"),
}


def acl_rights(commands: Collection[str]) -> str:
    """The rights in the language of Redis' access control lists."""
    return " ".join(("-@all", *(f"+{command}" for command in sorted(commands))))
