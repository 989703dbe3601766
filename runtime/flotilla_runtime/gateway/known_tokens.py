"""The tokens that a gateway remembers: each by its hash alone, for a short time, and never too many.

Tokens that were good once are kept apart from all others, so that no flood of others pushes one out. Of one
user a bounded number is kept: who may make tokens makes as many as they like.
"""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

MOST_GOOD: Final = 10_000
MOST_OF_ONE_USER: Final = 200
MOST_OTHERS: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The API server's answer about a token at a time: its user and rights, or why it is refused."""

    at: float
    until: float
    user: str = ""
    rights: frozenset[str] = frozenset()
    refusal: str | None = None

    @property
    def is_good(self) -> bool:
        """Whether the token may do anything with this fleet."""
        return self.refusal is None and bool(self.rights)


class KnownTokens:
    """The answers, by the hash of the token; the ones used longest ago make room."""

    def __init__(self) -> None:
        self._good: OrderedDict[bytes, Answer] = OrderedDict()
        self._of_user: dict[str, OrderedDict[bytes, None]] = {}
        self._others: OrderedDict[bytes, Answer] = OrderedDict()

    def __len__(self) -> int:
        return len(self._good) + len(self._others)

    def good(self, digest: bytes) -> Answer | None:
        """The last answer about a token that was good then, however old it is."""
        if (answer := self._good.get(digest)) is not None:
            self._good.move_to_end(digest)
            self._of_user[answer.user].move_to_end(digest)
        return answer

    def other(self, digest: bytes) -> Answer | None:
        """The last answer about a token that was not good then."""
        return self._others.get(digest)

    def keep(self, digest: bytes, answer: Answer) -> None:
        """Keep an answer in place of the one before."""
        self._forget(digest)
        if not answer.is_good:
            self._others[digest] = answer
            while len(self._others) > MOST_OTHERS:
                self._others.popitem(last=False)
            return
        self._good[digest] = answer
        theirs = self._of_user.setdefault(answer.user, OrderedDict())
        theirs[digest] = None
        if len(theirs) > MOST_OF_ONE_USER:
            self._forget(next(iter(theirs)))
        if len(self._good) > MOST_GOOD:
            self._forget(next(iter(self._good)))

    def _forget(self, digest: bytes) -> None:
        self._others.pop(digest, None)
        if (before := self._good.pop(digest, None)) is not None:
            theirs = self._of_user[before.user]
            theirs.pop(digest, None)
            if not theirs:
                del self._of_user[before.user]


def digest_of(token: str) -> bytes:
    """The hash by which a token is remembered."""
    return hashlib.sha256(token.encode()).digest()
