# SPDX-License-Identifier: AGPL-3.0-only
"""
How far somebody has heard what the hosts of a run have to say, in one word: the
id of a server-sent event, which a client that has lost its connection comes back
with.

Nothing is kept here for those who may come back: all that there is to know is in
the id, and any API of the same dispatcher can read it. It is as long as it has to
be, and not longer than a header line may be; of very many hosts that are in the
middle of their output, some are told from their beginning again.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2s

import attrs

from ctrlexec.api.definitions import BadRequest
from ctrlexec.dispatcher.orders import Seen

#: How long an id may be, in characters.
MOST_CHARACTERS = 8_000
_MOST_BYTES = MOST_CHARACTERS * 3 // 4
_ID = re.compile(f"[A-Za-z0-9_-]{{1,{MOST_CHARACTERS}}}")
# What tells the ids of one run from those of another.
_TAG_BYTES = 4
_UNDER_WAY, _DONE = b"\0", b"\1"
# No run writes that much, nor has that many hosts.
_MOST = 2**53


@attrs.frozen
class Mark:
    """
    What an id says. Hosts are numbered, in the order of their names.

    @ivar is_done: whether there is nothing left to hear.
    @ivar ended: the hosts whose result is known, a bit each.
    @ivar seen: how much is known of the output of others.
    """

    is_done: bool = False
    ended: int = 0
    seen: Mapping[int, Seen] = attrs.field(factory=dict)

    @classmethod
    def read(cls, text: str, reqid: str) -> Mark:
        """
        @param text: an id, as a client has it.
        @raise BadRequest: none of ours is like that, or it is another run's.
        """
        if not _ID.fullmatch(text):
            raise _bad()
        try:
            data = urlsafe_b64decode(text + "=" * (-len(text) % 4))
        except ValueError:
            raise _bad() from None
        tag, kind, rest = data[:_TAG_BYTES], data[_TAG_BYTES:][:1], data[5:]
        if tag != _tag(reqid):
            raise _bad()
        match kind:
            case b"\1" if not rest:
                return cls(is_done=True)
            case b"\0":
                return cls._under_way(rest)
        raise _bad()

    @classmethod
    def _under_way(cls, data: bytes) -> Mark:
        numbers = _numbers(data)
        length = next(numbers, 0)
        start = len(_spelled(length))
        ended = data[start : start + length]
        if len(ended) != length:
            raise _bad()
        seen: dict[int, Seen] = {}
        rest = _numbers(data[start + length :])
        for host in rest:
            stdout, stderr = next(rest, None), next(rest, None)
            if stdout is None or stderr is None or host in seen:
                raise _bad()
            seen[host] = Seen(stdout, stderr)
        return cls(ended=int.from_bytes(ended, "little"), seen=seen)


class Progress:
    """
    What the client of a stream has been told so far.

    @ivar hosts: the names of all that the run goes to.
    """

    def __init__(self, reqid: str, hosts: Iterable[str], mark: Mark) -> None:
        self.reqid = reqid
        self.hosts = sorted({*hosts})
        self._numbers = {host: number for number, host in enumerate(self.hosts)}
        self._ended = mark.ended
        self._seen = {
            self.hosts[number]: seen
            for number, seen in mark.seen.items()
            if number < len(self.hosts) and not mark.ended >> number & 1
        }
        # An id goes with every event, and most of it is as it was before.
        self._spelled = {host: self._spell(host) for host in self._seen}

    @property
    def seen(self) -> Mapping[str, Seen]:
        """
        How much of the output of those whose result is not known.
        """
        return dict(self._seen)

    @property
    def left(self) -> tuple[str, ...]:
        """
        The hosts to ask about: none for all of them.
        """
        left = [host for host in self.hosts if not self.has_ended(host)]
        return () if len(left) == len(self.hosts) else tuple(left)

    def has_ended(self, host: str) -> bool:
        """
        Whether the client knows the result of a host.
        """
        number = self._numbers.get(host)
        return number is not None and bool(self._ended >> number & 1)

    def heard(self, host: str, stream: str, end: int) -> None:
        """
        It has been told what a host has written up to here.

        @param stream: C{"stdout"} or C{"stderr"}.
        """
        if host not in self._numbers or not 0 <= end < _MOST:
            return
        seen = self._seen.get(host, Seen())
        # Not by name: what it is called is what an agent has sent.
        self._seen[host] = (
            attrs.evolve(seen, stderr=end)
            if stream == "stderr"
            else attrs.evolve(seen, stdout=end)
        )
        self._spelled[host] = self._spell(host)

    def end(self, host: str) -> None:
        """
        It has been told the result of a host.
        """
        number = self._numbers.get(host)
        if number is not None:
            self._ended |= 1 << number
            self._seen.pop(host, None)
            self._spelled.pop(host, None)

    def spelled(self) -> str:
        """
        @return: the id of what it has been told last.
        """
        ended = self._ended.to_bytes((self._ended.bit_length() + 7) // 8, "little")
        data = bytearray(_tag(self.reqid) + _UNDER_WAY + _spelled(len(ended)) + ended)
        for each in self._spelled.values():
            if len(data) + len(each) > _MOST_BYTES:
                break
            data += each
        return _text(data)

    def done(self) -> str:
        """
        @return: the id of the last event of all.
        """
        return _text(_tag(self.reqid) + _DONE)

    def _spell(self, host: str) -> bytes:
        seen = self._seen[host]
        numbers = (self._numbers[host], seen.stdout, seen.stderr)
        return b"".join(map(_spelled, numbers))


def _tag(reqid: str) -> bytes:
    return blake2s(reqid.encode(), digest_size=_TAG_BYTES).digest()


def _text(data: bytes | bytearray) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _spelled(number: int) -> bytes:
    """
    Seven bits a byte, the low ones first; all but the last have the eighth set.
    """
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    found.append(number)
    return bytes(found)


def _numbers(data: bytes) -> Iterator[int]:
    """
    @raise BadRequest: one of them is not complete, or too large.
    """
    number = shift = 0
    for byte in data:
        number |= (byte & 127) << shift
        shift += 7
        if number >= _MOST or shift > 63:
            raise _bad()
        if byte < 128:
            yield number
            number = shift = 0
    if shift:
        raise _bad()


def _bad() -> BadRequest:
    return BadRequest("Last-Event-ID: is not the id of an event of this run")
