# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.protocol.server}: an exchange of more than one request.
"""

from __future__ import annotations

from ctrlexec.protocol import limits
from ctrlexec.protocol.exchange import Exchange, Request
from ctrlexec.protocol.http import request
from tests.edges import ServerTestCase

FIRST = request("POST", "/pair", b"1", host="a", minor=0)
SECOND = request("POST", "/pair-reveal", b"2", host="a", minor=0)


class AskedTests(ServerTestCase):
    """
    A handler that wants to hear more before its last answer.
    """

    def begun(self) -> Exchange:
        """
        The first request has its first answer, and more is wanted.
        """
        self.connect().receive(FIRST)
        (exchange,) = self.host.exchanges
        self.heard: list[Request] = []
        self.lost: list[None] = []
        exchange.when_lost(lambda: self.lost.append(None))
        exchange.answer(200, b"{}", more=True)
        exchange.when_asked(self.heard.append)
        return exchange

    def test_asked(self) -> None:
        """
        The next request belongs to the same exchange, in whatever pieces it
        comes; the last answer closes.
        """
        exchange = self.begun()
        for byte in SECOND:
            self.edge.receive(bytes([byte]))
        self.assertEqual(self.heard, [Request("POST", "/pair-reveal", b"2")])
        self.assertEqual(len(self.host.exchanges), 1)
        exchange.answer(200, b"{2}")
        self.assertEqual(self.edge.sent, [(200, b"{}"), (200, b"{2}")])
        self.assertClosing(limits.WRITE_SECONDS)

    def test_once(self) -> None:
        """
        Nothing more is heard than was wanted.
        """
        self.begun()
        self.edge.receive(SECOND, SECOND, FIRST)
        self.assertEqual(len(self.heard), 1)
        self.assertEqual(len(self.host.exchanges), 1)

    def test_unwanted(self) -> None:
        """
        After another answer nothing is.
        """
        self.begun().answer(200, b"{}", more=True)
        self.edge.receive(SECOND)
        self.assertEqual(self.heard, [])

    def test_rubbish(self) -> None:
        """
        What is no request ends the exchange, and whoever has it knows.
        """
        exchange = self.begun()
        self.edge.receive(b"\0\r\n\r\n")
        self.assertEqual((self.heard, self.lost), ([], [None]))
        self.assertTrue(self.transport.disconnecting)
        before = self.edge.sent
        exchange.answer(200, b"late")
        self.assertEqual(self.edge.sent, before)
        self.edge.lose()
        self.assertEqual(self.lost, [None])

    def test_slow(self) -> None:
        """
        So does a body that does not come.
        """
        self.begun()
        self.edge.receive(SECOND[:-1])
        self.edge.wait(limits.BODY_SECONDS)
        self.assertEqual((self.heard, self.lost), ([], [None]))

    def test_lost(self) -> None:
        """
        And the end of the connection.
        """
        self.begun()
        self.edge.lose()
        self.assertEqual(self.lost, [None])
