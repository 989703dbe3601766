"""Facts of a Redis: whether it is fit to hold tasks, how full it is, and its replicas; pure.

All of it is in INFO, which managed services answer too, unlike CONFIG. What a service leaves out is unknown,
and no problem.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from flotilla_runtime.contract import StoreProblem

OLDEST_VERSION: Final = (7, 0)
AOF_ACKNOWLEDGED_FROM: Final = (7, 2)  # WAITAOF
SECTIONS: Final = ("server", "memory", "persistence", "replication")
SUBMISSIONS_SHARE: Final = 0.75  # of maxmemory; the rest is the workers'
MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisFacts:
    """The facts of one primary; None is unknown. `limit_mib` is where submissions stop.

    A replica that still copies the whole of Redis is none yet. `requires_replica` says whether Redis takes
    writes only with one; `confirms_files`, whether it can tell that a replica has a write in its file.
    """

    problem: StoreProblem | None
    used_mib: float | None
    limit_mib: float | None
    replicas: int | None
    requires_replica: bool | None
    confirms_files: bool

    @classmethod
    def of(
        cls, info: Mapping[str, Any], max_stored_mib: float | None, *, fails_over: bool = False
    ) -> "RedisFacts":
        """Read the sections of INFO. `fails_over` if a replica may take the primary's place by itself."""
        version, files = _version(info), info.get("aof_enabled")
        maxmemory, used = info.get("maxmemory"), info.get("used_memory")
        limit = max_stored_mib
        if limit is None and maxmemory:
            limit = int(maxmemory) * SUBMISSIONS_SHARE / MIB
        requires = _requires_replica(info)
        return cls(
            problem=_problem(
                version,
                info.get("maxmemory_policy"),
                maxmemory,
                files,
                limit,
                is_guarded=not fails_over or requires is not False,
            ),
            used_mib=None if used is None else int(used) / MIB,
            limit_mib=limit,
            replicas=_replicas(info),
            requires_replica=requires,
            confirms_files=bool(files) and version is not None and version >= AOF_ACKNOWLEDGED_FROM,
        )


def _problem(
    version: tuple[int, ...] | None,
    policy: Any,
    maxmemory: Any,
    files: Any,
    limit: float | None,
    *,
    is_guarded: bool,
) -> StoreProblem | None:
    """The gravest problem."""
    if version is not None and version < OLDEST_VERSION:
        return StoreProblem.TOO_OLD
    if policy not in (None, "noeviction") and maxmemory != 0:
        return StoreProblem.EVICTS
    if files is not None and not files:
        return StoreProblem.NO_APPEND_ONLY_FILE
    if not is_guarded:
        return StoreProblem.NO_REPLICA_REQUIRED
    if limit is None and maxmemory is not None:
        return StoreProblem.NO_LIMIT
    return None


def _requires_replica(info: Mapping[str, Any]) -> bool | None:
    """Whether min-replicas-to-write is set; only then does Redis tell how many good replicas it has."""
    return "min_slaves_good_slaves" in info if "connected_slaves" in info else None


def _replicas(info: Mapping[str, Any]) -> int | None:
    connected = info.get("connected_slaves")
    if connected is None:
        return None
    listed = [info[f"slave{number}"] for number in range(int(connected)) if f"slave{number}" in info]
    return sum(each.get("state") == "online" for each in listed) if listed else int(connected)


def _version(info: Mapping[str, Any]) -> tuple[int, ...] | None:
    """The version of Redis; for Valkey that of the Redis that it is compatible with."""
    told = str(info.get("redis_version", ""))
    numbers = told.split(".")[:2]
    return tuple(map(int, numbers)) if all(map(str.isdecimal, numbers)) else None
