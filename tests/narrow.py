# SPDX-License-Identifier: AGPL-3.0-only
"""
Wires in memory that hold as little as real ones do: whoever reads can pause, and
whoever writes is then asked to.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.testing import MemoryReactorClock
from twisted.test.iosim import FakeTransport, IOPump, connect

#: What a transport of Twisted's keeps before it asks for a pause, and what it
#: reads at a time.
BUFFER_BYTES = 65_536


class NarrowTransport(FakeTransport):
    """
    One end of such a wire. What the system itself would hold on the way is left
    out.

    @ivar peer: the other end.
    @ivar reads: whether it wants to be given more.
    @ivar most_bytes: how much it has ever kept.
    """

    peer: NarrowTransport
    reads = True
    most_bytes = 0
    _asked_to_pause = False

    @property
    def kept_bytes(self) -> int:
        """
        How much was written, and is not on its way.
        """
        return sum(map(len, self.stream))

    def write(self, data: bytes) -> None:
        """
        Keep it, and ask for a pause if that is much.
        """
        super().write(data)
        self.most_bytes = max(self.most_bytes, self.kept_bytes)
        if self.producer and self.kept_bytes > BUFFER_BYTES:
            self._asked_to_pause = True
            self.producer.pauseProducing()

    def getOutBuffer(self) -> bytes | None:
        """
        What goes over the wire next.
        """
        if not self.peer.reads:
            return None
        data = b"".join(self.stream)
        self.stream = [data[BUFFER_BYTES:]] if len(data) > BUFFER_BYTES else []
        if not self.stream and self._asked_to_pause and self.producer:
            self._asked_to_pause = False
            self.producer.resumeProducing()
        return data[:BUFFER_BYTES] or None

    def pauseProducing(self) -> None:
        """
        See C{IPushProducer}.
        """
        self.reads = False

    def resumeProducing(self) -> None:
        """
        See C{IPushProducer}.
        """
        self.reads = True


def narrow_wire(reactor: MemoryReactorClock) -> IOPump:
    """
    Complete the one connection that somebody waits for, over a narrow wire.
    """
    factories: list[Any] = [reactor.tcpServers[0][1], reactor.tcpClients.pop()[2]]
    reactor.connectors.pop()
    server, client = (factory.buildProtocol(None) for factory in factories)
    ends = NarrowTransport(server, True), NarrowTransport(client, False)
    ends[0].peer, ends[1].peer = ends[1], ends[0]
    pump: IOPump = connect(server, ends[0], client, ends[1], clock=reactor)
    return pump
