# SPDX-License-Identifier: AGPL-3.0-only
"""
Answers on their way out, as fast as their client reads them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet.interfaces import IPushProducer
from twisted.web.http import datetimeToString

from ctrlexec.api.problems import Answer
from ctrlexec.protocol.sending import WRITE_BYTES

#: What we call ourselves: no version, as it helps those who look for old ones.
SERVER = b"ctrl-exec"


@attrs.define(eq=False)
class Outlet:
    """
    What was written and is not with the transport yet.

    @ivar transport: takes as much as it has room for, and says when it has
        again.
    @ivar progressed: told of each piece that the transport takes.
    """

    transport: Any
    progressed: Callable[[], None]
    _waiting: deque[memoryview] = attrs.field(factory=deque, init=False)
    _producer: IPushProducer | None = attrs.field(default=None, init=False)
    _is_paused: bool = attrs.field(default=False, init=False)

    @property
    def is_empty(self) -> bool:
        """
        Whether all of it is with the transport, and that has room for more.
        """
        return not self._waiting and not self._is_paused

    def write(self, data: bytes) -> None:
        """
        Write now what there is room for, and the rest later.
        """
        rest = memoryview(data)
        while rest:
            self._waiting.append(rest[:WRITE_BYTES])
            rest = rest[WRITE_BYTES:]
        self._send()

    def pause(self) -> None:
        """
        The transport has no room.
        """
        self._is_paused = True
        if self._producer is not None:
            self._producer.pauseProducing()

    def resume(self) -> None:
        """
        It has room again.
        """
        self._is_paused = False
        self._send()
        if self._producer is not None and not self._is_paused:
            self._producer.resumeProducing()

    def feed_from(self, producer: IPushProducer | None) -> None:
        """
        @param producer: what makes the answer, at the speed at which it is
            read; C{None} when it is all made.
        """
        self._producer = producer
        if producer is not None and self._is_paused:
            producer.pauseProducing()

    def clear(self) -> None:
        """
        Nobody reads it any more.
        """
        self._waiting.clear()

    def _send(self) -> None:
        while self._waiting and not self._is_paused:
            piece = self._waiting.popleft()
            self.progressed()
            self.transport.write(bytes(piece))


def last_words(answer: Answer, minor: int) -> bytes:
    """
    An answer after which the connection closes.

    @param minor: 0 for HTTP/1.0.
    """
    lines = [
        b"HTTP/1.%d %d %s" % (minor, answer.status, answer.reason.encode()),
        b"Server: %s" % SERVER,
        b"Date: %s" % datetimeToString(),
        b"Content-Type: %s" % answer.content_type.encode(),
        b"Content-Length: %d" % len(answer.body),
        b"Connection: close",
        *(f"{name}: {value}".encode() for name, value in answer.headers.items()),
    ]
    return b"\r\n".join([*lines, b"", answer.body])
