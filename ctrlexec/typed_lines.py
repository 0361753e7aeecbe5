# SPDX-License-Identifier: AGPL-3.0-only
"""
Lines from a descriptor, without changing it.

C{StandardIO} of Twisted would make the terminal non-blocking, for the shell
and for whatever else writes there, too.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import attrs
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

#: What of a line without an end is kept, in bytes.
LINE_BYTES = 1024


@implementer(IReadDescriptor)
@attrs.define(eq=False)
class TypedLines:
    """
    Reads lines whenever a reactor says that there is something to be read.

    @ivar descriptor: what is read from; never closed by us.
    @ivar received: called with each line, without its end.
    @ivar ended: called when there is no more; whoever added this to a reactor
        removes it then.
    """

    descriptor: int
    received: Callable[[str], None]
    ended: Callable[[], None]
    _rest: bytes = attrs.field(default=b"", init=False)

    def fileno(self) -> int:
        """
        See L{IReadDescriptor}.
        """
        return self.descriptor

    def logPrefix(self) -> str:
        """
        See L{IReadDescriptor}.
        """
        return "typed lines"

    def doRead(self) -> None:
        """
        See L{IReadDescriptor}.
        """
        try:
            data = os.read(self.descriptor, LINE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            # A terminal that was hung up.
            data = b""
        if not data:
            self.ended()
            return
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[-LINE_BYTES:]
        for line in lines:
            self.received(line.decode("utf-8", "replace").removesuffix("\r"))

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:
        """
        See L{IReadDescriptor}.
        """
