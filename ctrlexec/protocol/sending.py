# SPDX-License-Identifier: AGPL-3.0-only
"""
Answers that are longer than a transport takes at once.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
from twisted.internet.interfaces import IConsumer, IPushProducer, ISSLTransport
from zope.interface import implementer

#: Answers longer than this are written as fast as the peer reads them.
WRITE_BYTES = 65_536


class ITlsTransport(ISSLTransport, IConsumer, IPushProducer):
    """
    What a connection stands on.
    """


@implementer(IPushProducer)
@attrs.define
class Sender:
    """
    Writes a long answer piece by piece, as the transport takes it.
    """

    transport: ITlsTransport
    rest: memoryview
    progressed: Callable[[], None]
    done: Callable[[], None]
    _paused: bool = False

    def start(self) -> None:
        self.transport.registerProducer(self, True)
        self.resumeProducing()

    def resumeProducing(self) -> None:
        self._paused = False
        while self.rest and not self._paused:
            piece, self.rest = self.rest[:WRITE_BYTES], self.rest[WRITE_BYTES:]
            self.progressed()
            self.transport.write(bytes(piece))
        if not self.rest and not self._paused:
            self._paused = True
            self.transport.unregisterProducer()
            self.done()

    def pauseProducing(self) -> None:
        self._paused = True

    def stopProducing(self) -> None:
        self.pauseProducing()
