"""LangGraph's checkpointer for tasks: in the fleet's Redis, beside the task's journal.

All threads of a graph are in the space of its task, or of its conversation, so no thread id reaches further.
A channel's value is kept once for each version. Writes of nodes that end while others run are kept too: after
a kill only those that had not ended are repeated.
"""

import random
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    get_checkpoint_id,
    get_checkpoint_metadata,
    writes_sort_key,
)

from flotilla_runtime.agent.graphs.fields import Field, FieldKind, field_name, packed, read_fields, unpacked
from flotilla_runtime.agent.graphs.serializer import StrictSerializer
from flotilla_runtime.agent.protocols import CheckpointChange

PRUNE_BYTES: Final = 4 * 2**20  # beyond which only the newest checkpoints of a thread are kept
DELTAS: Final = "counters_since_delta_snapshot"  # in the metadata of a checkpoint that needs those before it


class Kept(Protocol):
    """Where checkpoints are kept: texts by names."""

    async def write(self, change: CheckpointChange) -> int:
        """Write a change; the bytes that there are then."""

    async def fields(self) -> Sequence[str]:
        """The names of all that is there."""

    async def texts(self, fields: Sequence[str]) -> Sequence[str | None]:
        """The texts of these names."""


class FlotillaSaver(BaseCheckpointSaver[str]):
    """A checkpointer on what `kept` gives when it is asked: that of the task that runs."""

    def __init__(self, kept: Callable[[], Kept]) -> None:
        super().__init__(serde=StrictSerializer())
        self._kept: Final = kept

    def get_next_version(self, current: str | None, channel: None) -> str:
        """A version after this one. Two branches of one history never have the same."""
        number = 0 if current is None else int(str(current).split(".")[0])
        return f"{number + 1:032}.{random.getrandbits(64):016x}"

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The checkpoint that the configuration names, or the newest of its thread and namespace."""
        thread, namespace = _thread_of(config), config["configurable"].get("checkpoint_ns", "")
        fields = await self._fields()
        wanted = get_checkpoint_id(config)
        found = [
            one
            for one in fields
            if _is(one, FieldKind.CHECKPOINT, thread, namespace) and wanted in (None, one.id)
        ]
        if not found:
            return None
        return await self._tuple(max(found, key=lambda one: one.id), fields)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002 - LangGraph's name
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """The checkpoints of a thread, the newest first."""
        fields = await self._fields()
        left = limit
        for one in _listed(fields, config, before):
            if left is not None and left <= 0:
                return
            found = await self._tuple(one, fields)
            known: Mapping[str, Any] = dict(found.metadata) if found is not None else {}
            if found is None or any(known.get(name) != value for name, value in (filter or {}).items()):
                continue
            left = None if left is None else left - 1
            yield found

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Keep a checkpoint, and the values of the channels that are new in it: all or nothing."""
        thread, namespace = _thread_of(config), config["configurable"].get("checkpoint_ns", "")
        values = checkpoint["channel_values"]
        put = {
            field_name(FieldKind.VALUE, thread, namespace, channel, version): packed(
                value=self.serde.dumps_typed(values[channel])
            )
            for channel, version in new_versions.items()
            if channel in values
        }
        shown = {name: value for name, value in checkpoint.items() if name != "channel_values"}
        put[field_name(FieldKind.CHECKPOINT, thread, namespace, checkpoint["id"])] = packed(
            checkpoint=self.serde.dumps_typed(shown),
            metadata=self.serde.dumps_typed(get_checkpoint_metadata(config, metadata)),
            parent=config["configurable"].get("checkpoint_id"),
        )
        if await self._kept().write(CheckpointChange(put=put)) > PRUNE_BYTES:
            await self.aprune([thread])
        return _config(thread, namespace, checkpoint["id"])

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Keep what a node has written. A write that is known stays, unless it is of LangGraph's own."""
        thread, namespace = _thread_of(config), config["configurable"].get("checkpoint_ns", "")
        checkpoint = config["configurable"]["checkpoint_id"]
        put: dict[str, str] = {}
        add: dict[str, str] = {}
        for place, (channel, value) in enumerate(writes):
            number = WRITES_IDX_MAP.get(channel, place)
            name = field_name(FieldKind.WRITE, thread, namespace, checkpoint, task_id, number)
            text = packed(channel=channel, value=self.serde.dumps_typed(value), path=task_path)
            (put if number < 0 else add)[name] = text
        await self._kept().write(CheckpointChange(put=put, add=add))

    async def adelete_thread(self, thread_id: str) -> None:
        """Remove all of a thread."""
        await self._drop(one for one in await self._fields() if one.thread == thread_id)

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Remove the checkpoints that these runs of LangGraph have made, with their writes."""
        runs, fields = set(run_ids), await self._fields()
        checkpoints = [one for one in fields if one.kind is FieldKind.CHECKPOINT]
        gone = {
            (one.thread, one.namespace, one.id)
            for one, metadata in zip(checkpoints, await self._metadata(checkpoints), strict=True)
            if metadata.get("run_id") in runs
        }
        await self._drop(one for one in fields if _belongs(one, gone))

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy all of a thread to another one."""
        source = [one for one in await self._fields() if one.thread == source_thread_id]
        texts = await self._kept().texts([one.text for one in source])
        put = {
            field_name(one.kind, target_thread_id, one.namespace, *one.key): text
            for one, text in zip(source, texts, strict=True)
            if text is not None
        }
        await self._kept().write(CheckpointChange(put=put))

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Remove these threads, or all of them but the newest checkpoint of each namespace.

        Where the newest one needs those before it, because a channel keeps differences, all are kept.
        """
        if strategy not in ("keep_latest", "delete"):
            raise ValueError(f"{strategy!r} is no strategy: keep_latest and delete are")
        fields = [one for one in await self._fields() if one.thread in thread_ids]
        if strategy == "delete":
            await self._drop(fields)
            return
        newest: dict[tuple[str, str], Field] = {}
        for one in sorted(
            (one for one in fields if one.kind is FieldKind.CHECKPOINT), key=lambda one: one.id
        ):
            newest[one.thread, one.namespace] = one
        for place, one in newest.items():
            found = await self._tuple(one, fields)
            if found is not None and not found.metadata.get(DELTAS):
                versions = found.checkpoint["channel_versions"]
                await self._drop(_older(fields, place, one.id, versions))

    async def _fields(self) -> list[Field]:
        return read_fields(await self._kept().fields())

    async def _drop(self, fields: Iterable[Field]) -> None:
        names = tuple(one.text for one in fields)
        if names:
            await self._kept().write(CheckpointChange(drop=names))

    async def _metadata(self, checkpoints: Sequence[Field]) -> list[Mapping[str, Any]]:
        texts = await self._kept().texts([one.text for one in checkpoints])
        return [{} if text is None else self.serde.loads_typed(unpacked(text)["metadata"]) for text in texts]

    async def _tuple(self, one: Field, fields: Sequence[Field]) -> CheckpointTuple | None:
        """A checkpoint with its values and the writes that wait; None if it has gone meanwhile."""
        writes = [field for field in fields if _is(field, FieldKind.WRITE, one.thread, one.namespace, one.id)]
        texts = await self._kept().texts([one.text, *(field.text for field in writes)])
        if texts[0] is None:
            return None
        stored = unpacked(texts[0])
        checkpoint: Checkpoint = self.serde.loads_typed(stored["checkpoint"])
        values = await self._values(one, checkpoint["channel_versions"])
        waiting = [
            (field, unpacked(text)) for field, text in zip(writes, texts[1:], strict=True) if text is not None
        ]
        waiting.sort(key=lambda write: writes_sort_key(write[1]["path"], write[0].key[1], write[0].key[2]))
        parent = stored["parent"]
        return CheckpointTuple(
            config=_config(one.thread, one.namespace, one.id),
            checkpoint={**checkpoint, "channel_values": values},
            metadata=self.serde.loads_typed(stored["metadata"]),
            parent_config=None if parent is None else _config(one.thread, one.namespace, parent),
            pending_writes=[
                (field.key[1], write["channel"], self.serde.loads_typed(write["value"]))
                for field, write in waiting
            ],
        )

    async def _values(self, one: Field, versions: ChannelVersions) -> dict[str, Any]:
        names = [
            field_name(FieldKind.VALUE, one.thread, one.namespace, channel, version)
            for channel, version in versions.items()
        ]
        texts = await self._kept().texts(names)
        return {
            channel: self.serde.loads_typed(unpacked(text)["value"])
            for channel, text in zip(versions, texts, strict=True)
            if text is not None
        }


def _config(thread: str, namespace: str, checkpoint: str) -> RunnableConfig:
    return {"configurable": {"thread_id": thread, "checkpoint_ns": namespace, "checkpoint_id": checkpoint}}


def _thread_of(config: RunnableConfig) -> str:
    return str(config["configurable"]["thread_id"])


def _is(one: Field, kind: FieldKind, thread: str, namespace: str, checkpoint: str | None = None) -> bool:
    same = (one.kind, one.thread, one.namespace) == (kind, thread, namespace)
    return same and checkpoint in (None, one.id)


def _listed(
    fields: Sequence[Field], config: RunnableConfig | None, before: RunnableConfig | None
) -> list[Field]:
    """The checkpoints that a list has, without its filter, the newest first."""
    asked: Mapping[str, Any] = config["configurable"] if config else {}
    last = get_checkpoint_id(before) if before else None
    found = [
        one
        for one in fields
        if one.kind is FieldKind.CHECKPOINT
        and asked.get("thread_id", one.thread) == one.thread
        and asked.get("checkpoint_ns", one.namespace) == one.namespace
        and (asked.get("checkpoint_id") or one.id) == one.id
        and (last is None or one.id < last)
    ]
    return sorted(found, key=lambda one: one.id, reverse=True)


def _belongs(one: Field, checkpoints: set[tuple[str, str, str]]) -> bool:
    """Whether a field is one of these checkpoints, or a write to one."""
    return one.kind is not FieldKind.VALUE and (one.thread, one.namespace, one.id) in checkpoints


def _older(
    fields: Iterable[Field], place: tuple[str, str], newest: str, versions: ChannelVersions
) -> list[Field]:
    """The fields that the newest checkpoint of a thread and namespace does not need."""
    return [
        one
        for one in fields
        if (one.thread, one.namespace) == place
        and (versions.get(one.id) != one.key[1] if one.kind is FieldKind.VALUE else one.id != newest)
    ]
