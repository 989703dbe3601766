"""The KV cache of one simulated engine: blocks, shared prefixes and eviction.

A sequence's tokens fill blocks in order. The key of a full block is a hash of its text and of all text before
it, so two sequences with the same beginning share their first blocks. The last block of a sequence is private
until it is full. A block that no sequence uses keeps its content until it is evicted for a new block; the
least recently used one is evicted first.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

BlockKey = int


@dataclass(slots=True, kw_only=True)
class KVCache:
    """The number of users of each keyed block, the unused blocks by age, and the number of private ones."""

    blocks: int
    block_tokens: int
    prefix_caching: bool = True
    _users: dict[BlockKey, int] = field(default_factory=dict)
    _remembered: OrderedDict[BlockKey, None] = field(default_factory=OrderedDict)
    _private: int = 0

    @property
    def used_blocks(self) -> int:
        """How many blocks the sequences hold now."""
        return len(self._users) + self._private

    @property
    def usage(self) -> float:
        """The held share of all blocks, from 0 to 1."""
        return self.used_blocks / self.blocks

    def cached_blocks(self, keys: Sequence[BlockKey]) -> int:
        """How many of a sequence's first blocks are in the cache."""
        if not self.prefix_caching:
            return 0
        for count, key in enumerate(keys):
            if key not in self._users and key not in self._remembered:
                return count
        return len(keys)

    def room_for(self, keys: Sequence[BlockKey], private: int) -> bool:
        """Whether a sequence can hold these keyed blocks and this many private ones."""
        fresh = sum(1 for key in dict.fromkeys(keys) if key not in self._users)
        return self.used_blocks + fresh + private <= self.blocks

    def hold(self, keys: Sequence[BlockKey], private: int = 0) -> None:
        """Take blocks for a sequence; the caller has checked `room_for`."""
        for key in keys:
            self._users[key] = self._users.get(key, 0) + 1
            self._remembered.pop(key, None)
        self._private += private
        self._forget_what_does_not_fit()

    def release(self, keys: Sequence[BlockKey], private: int) -> None:
        """Give a sequence's blocks back; full ones stay in the cache, and the last one is evicted first."""
        for key in reversed(keys):
            self._users[key] -= 1
            if self._users[key] == 0:
                del self._users[key]
                if self.prefix_caching:
                    self._remembered[key] = None
        self._private -= private

    def fill_private(self, key: BlockKey) -> None:
        """Turn a private block, which is now full, into a shared one."""
        self._private -= 1
        self.hold([key])

    def _forget_what_does_not_fit(self) -> None:
        while self.used_blocks + len(self._remembered) > self.blocks:
            self._remembered.popitem(last=False)

    def check(self) -> None:
        """Assert every invariant; tests call it after each step."""
        assert self._private >= 0
        assert all(users > 0 for users in self._users.values())
        assert self._users.keys().isdisjoint(self._remembered)
        assert self.used_blocks + len(self._remembered) <= self.blocks
        assert self.prefix_caching or not self._remembered
