"""Server-sent events, from bytes that are cut anywhere. Pure.

Only the data of events counts: chat completions use no names, ids or retry times. Comments, which proxies
send to keep a connection open, are no events.
"""

from collections.abc import Iterator
from typing import Final

LONGEST_EVENT_BYTES: Final = 8 * 2**20  # a whole answer in one event, as some servers send it
BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


class EventTooLongError(Exception):
    """An event is longer than LONGEST_EVENT_BYTES."""


class EventParser:
    """Gives the data of each event as soon as its last byte is there; work is linear in the bytes."""

    def __init__(self) -> None:
        self._line = bytearray()
        self._data: list[bytes] = []
        self._size = 0
        self._after_return = False  # the last byte was CR, so that LF is the same line's end
        self._is_first_line = True

    def feed(self, part: bytes) -> Iterator[bytes]:
        """Read more bytes; gives the data of the events that are now complete."""
        if not part:
            return
        if self._after_return:
            part = part.removeprefix(b"\n")
        self._after_return = part.endswith(b"\r")
        *ended, rest = part.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        for piece in ended:
            self._grow(piece)
            line, self._line = bytes(self._line), bytearray()
            data = self._end_line(line)
            if data is not None:
                yield data
        self._grow(rest)

    def _grow(self, piece: bytes) -> None:
        self._line += piece
        self._size += len(piece)
        if self._size > LONGEST_EVENT_BYTES:
            raise EventTooLongError

    def _end_line(self, line: bytes) -> bytes | None:
        if self._is_first_line:
            line = line.removeprefix(BYTE_ORDER_MARK)
            self._is_first_line = False
        if not line:
            data, self._data, self._size = self._data, [], 0
            return b"\n".join(data) if data else None
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
        else:
            self._size -= len(line)
        return None
