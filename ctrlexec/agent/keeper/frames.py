# SPDX-License-Identifier: AGPL-3.0-only
"""
How agent and keeper talk: in frames, each some fields, each some bytes.

A length is four bytes, the highest first. A frame is the length of what follows,
and then, for each field, its length and its bytes.
"""

from __future__ import annotations

_LENGTH_BYTES = 4

#: How long a frame may be that holds no order, in bytes.
MESSAGE_BYTES = 1024 * 1024


class NotAFrame(ValueError):
    """
    What came is no frame, or one that is too long.
    """


def packed(*fields: bytes) -> bytes:
    """
    Fields as one text, from which L{unpacked} makes them again.
    """
    return b"".join(_counted(field) for field in fields)


def unpacked(data: bytes) -> list[bytes]:
    """
    @raise NotAFrame: the last field is cut.
    """
    fields = []
    at = 0
    while at < len(data):
        start = at + _LENGTH_BYTES
        end = start + int.from_bytes(data[at:start], "big")
        if end > len(data) or start > len(data):
            raise NotAFrame("a field is cut")
        fields.append(data[start:end])
        at = end
    return fields


def frame(*fields: bytes) -> bytes:
    """
    Fields as they are sent.
    """
    return _counted(packed(*fields))


class Frames:
    """
    The frames in what comes, piece by piece, of a stream.
    """

    def __init__(self, most: int = MESSAGE_BYTES) -> None:
        """
        @param most: how many bytes the next frames may have, without their own
            length.
        """
        self.most = most
        self._data = bytearray()

    def feed(self, data: bytes) -> None:
        """
        More of the stream has come.
        """
        self._data += data

    def next(self) -> list[bytes] | None:
        """
        @return: the fields of the next frame; C{None} until all of it is there.
        @raise NotAFrame: the stream makes no sense, nor will it ever again.
        """
        if len(self._data) < _LENGTH_BYTES:
            return None
        end = _LENGTH_BYTES + int.from_bytes(self._data[:_LENGTH_BYTES], "big")
        if end - _LENGTH_BYTES > self.most:
            raise NotAFrame("a frame is too long")
        if len(self._data) < end:
            return None
        fields = unpacked(bytes(self._data[_LENGTH_BYTES:end]))
        del self._data[:end]
        return fields


def _counted(data: bytes) -> bytes:
    return len(data).to_bytes(_LENGTH_BYTES, "big") + data
