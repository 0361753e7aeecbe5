# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of the API's connections, byte by byte: L{ctrlexec.api.channel}.
"""

from __future__ import annotations

from ctrlexec.protocol import limits
from ctrlexec.protocol.server import LINGER_SECONDS
from tests.apis import ApiCase, Wire, asking

HEALTH = asking("GET", "/health")


class LimitTests(ApiCase):
    """
    What a client may send at the most: nobody is asked who it is.
    """

    settings = ""

    def refused(self, *pieces: bytes) -> tuple[int, bytes]:
        """
        What is answered to bytes after which the connection closes.
        """
        wire = self.wire().send(*pieces)
        self.assertTrue(wire.transport.half_closed)
        reply = wire.reply()
        self.assertEqual(reply.fields["connection"], "close")
        self.assertEqual(reply.fields["server"], "ctrl-exec")
        self.assertEqual(reply.fields["content-type"], "application/json")
        wire.leave()
        return reply.status, reply.body

    def test_headers(self) -> None:
        """
        Thirty-three lines of header are one too many.
        """
        lines = [f"X-{number}: a" for number in range(31)]
        self.assertEqual(self.ask("GET", "/health", None, *lines).status, 403)
        status, body = self.refused(asking("GET", "/health", None, *lines, "Y: b"))
        self.assertEqual(status, 431)
        self.assertEqual(
            body,
            b'{"ok":false,"error":"request header fields too large",'
            b'"detail":"more than 32 header lines"}',
        )

    def test_longHeaders(self) -> None:
        """
        Few lines may still be too much.
        """
        status, body = self.refused(b"GET / HTTP/1.1\r\nX: " + b"a" * 20_000)
        self.assertEqual(status, 431)
        self.assertEqual(
            body,
            b'{"ok":false,"error":"request header fields too large",'
            b'"detail":"more than 16384 bytes of header"}',
        )

    def test_body(self) -> None:
        """
        A body of 1 MiB is read; one of a byte more is not.
        """
        most = b" " * 1_048_576
        self.assertEqual(self.ask("POST", "/run", most).status, 403)
        head = b"POST /run HTTP/1.1\r\nContent-Length: 1048577\r\n\r\n"
        status, body = self.refused(head)
        self.assertEqual(status, 413)
        self.assertEqual(
            body,
            b'{"ok":false,"error":"payload too large",'
            b'"detail":"body exceeds 1048576 bytes"}',
        )
        self.assertEqual(self.refused(head, b"what nobody reads")[0], 413)
        for length in (b"0" * 9000 + b"9" * 30, b"9" * 9000):
            head = b"POST /run HTTP/1.1\r\nContent-Length: %s\r\n\r\n" % length
            self.assertEqual(self.refused(head)[0], 413)

    def test_chunked(self) -> None:
        """
        A body whose length is not known before grows no further, either.
        """
        head = b"POST /run HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        chunk = b"80000\r\n" + b" " * 0x80000 + b"\r\n"
        self.assertEqual(self.wire().send(head, chunk, chunk).replies(), [])
        self.reactor.advance(limits.BODY_SECONDS + LINGER_SECONDS)
        self.site.abort_all()
        status, body = self.refused(head, chunk, chunk, b"1\r\na")
        self.assertEqual((status, b"1048576" in body), (413, True))

    def test_manyBodies(self) -> None:
        """
        Many large bodies that never end do not add up, nor do they keep others
        out: for one too many the oldest is turned away, and room is made by each
        that is complete, or whose client leaves.
        """
        head = b"POST /run HTTP/1.1\r\nContent-Length: 1048576\r\n\r\n"
        most = b" " * 1_048_575
        wires = [self.wire().send(head, most) for _ in range(64)]
        self.assertEqual(self.site.body_bytes, 64 * 1_048_575)
        late = self.wire().send(head, most)
        self.assertEqual(late.replies(), [])
        reply = wires[0].reply()
        self.assertEqual((reply.status, reply.fields["retry-after"]), (503, "1"))
        self.assertTrue(wires[0].transport.half_closed)
        self.assertEqual(self.ask("POST", "/run", b" " * 1000).status, 403)
        self.assertEqual(wires[1].reply().status, 503)
        self.assertEqual(wires[2].send(b" ").reply().status, 403)
        wires[3].leave()
        self.assertEqual(self.site.body_bytes, 61 * 1_048_575)
        wires[2].send(head, most)
        self.reactor.advance(limits.BODY_SECONDS)
        self.assertEqual(self.site.body_bytes, 0)

    def test_malformed(self) -> None:
        """
        What is no request is told so, in JSON.
        """
        status, body = self.refused(b"\x16\x03\x01 hello\r\n\r\n")
        self.assertEqual(status, 400)
        self.assertEqual(
            body,
            b'{"ok":false,"error":"bad request","detail":"malformed request line"}',
        )
        for head in (b"X", b"Content-Length: -1", b"Content-Length: 1, 1"):
            request = b"POST /run HTTP/1.1\r\n" + head + b"\r\n\r\n"
            self.assertEqual(self.refused(request)[0], 400)

    def test_logged(self) -> None:
        """
        Each of them is a line of the log; a query is not, as it may be secret.
        """
        self.refused(b"nonsense\r\n\r\n")
        self.refused(b"POST /run?token=a HTTP/1.1\r\nContent-Length: 9999999\r\n\r\n")
        self.assertEqual(
            self.logged("api-request"),
            [
                "ACTION=api-request LEN=0 METHOD=- PATH=- PEER=192.0.2.9 STATUS=400",
                "ACTION=api-request LEN=0 METHOD=POST PATH=/run PEER=192.0.2.9 "
                "STATUS=413",
            ],
        )

    def test_problem(self) -> None:
        """
        Whoever wants a problem in RFC 9457's words gets it.
        """
        accept = b"Accept: application/problem+json"
        wire = self.wire().send(
            b"POST /run HTTP/1.1\r\n%s\r\nContent-Length: 1048577\r\n\r\n" % accept
        )
        reply = wire.reply()
        self.assertEqual(reply.fields["content-type"], "application/problem+json")
        self.assertEqual(
            reply.body,
            b'{"ok":false,"error":"payload too large",'
            b'"detail":"body exceeds 1048576 bytes",'
            b'"type":"about:blank","title":"Content Too Large","status":413}',
        )


class TimeTests(ApiCase):
    """
    How long a client may take.
    """

    def late(self, seconds: float, *pieces: bytes) -> Wire:
        """
        A client that sends no more than this.
        """
        wire = self.wire().send(*pieces)
        self.reactor.advance(seconds - 0.1)
        self.assertFalse(wire.transport.half_closed)
        self.reactor.advance(0.1)
        self.assertTrue(wire.transport.half_closed)
        return wire

    def test_header(self) -> None:
        """
        A header that does not end is answered.
        """
        wire = self.late(limits.HEADER_SECONDS, b"GET / HTTP/1.1\r\n")
        self.assertEqual(
            wire.reply().body,
            b'{"ok":false,"error":"request timeout",'
            b'"detail":"the request did not arrive in time"}',
        )

    def test_body(self) -> None:
        """
        So is a body.
        """
        head = b"POST /run HTTP/1.1\r\nContent-Length: 9\r\n\r\n"
        wire = self.late(limits.BODY_SECONDS, head, b"half")
        self.assertEqual(wire.reply().status, 408)

    def test_silent(self) -> None:
        """
        A client that says nothing is not answered, at first or after an answer.
        """
        self.assertEqual(self.late(limits.HEADER_SECONDS).replies(), [])
        wire = self.late(limits.IDLE_SECONDS, HEALTH)
        self.assertEqual(len(wire.replies()), 1)

    def test_linger(self) -> None:
        """
        A client that does not close its side is not waited for long.
        """
        wire = self.late(limits.HEADER_SECONDS)
        wire.send(b"still here")
        self.reactor.advance(LINGER_SECONDS)
        self.assertTrue(wire.transport.aborted)
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class KeepAliveTests(ApiCase):
    """
    Several requests on a connection.
    """

    def test_stays(self) -> None:
        """
        A client may ask again, also before it has the answer.
        """
        wire = self.wire().send(HEALTH)
        self.assertEqual(wire.reply().fields["connection"], "keep-alive")
        replies = wire.send(HEALTH + HEALTH, HEALTH[:10], HEALTH[10:]).replies()
        self.assertEqual([each.status for each in replies], [200] * 3)
        self.assertFalse(wire.transport.half_closed)

    def test_close(self) -> None:
        """
        A client that wants to be done is; so is one of HTTP/1.0.
        """
        for request in (
            asking("GET", "/health", None, "Connection: close"),
            asking("GET", "/health", minor=0),
        ):
            wire = self.wire().send(request)
            self.assertEqual(wire.reply().fields["connection"], "close")
            self.assertTrue(wire.transport.half_closed)

    def test_continue(self) -> None:
        """
        A client that asks whether to send its body is told to.
        """
        wire = self.wire().send(
            b"POST /run HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
        )
        self.assertEqual(wire.transport.value(), b"HTTP/1.1 100 Continue\r\n\r\n")
        wire.transport.clear()
        self.assertEqual(wire.send(b"{}").reply().status, 400)

    def test_head(self) -> None:
        """
        HEAD is GET without its body.
        """
        wire = self.wire().send(asking("HEAD", "/health"))
        head, _, body = wire.transport.value().partition(b"\r\n\r\n")
        self.assertTrue(head.startswith(b"HTTP/1.1 200 OK\r\n"))
        self.assertEqual(body, b"")
        self.assertTrue(wire.transport.half_closed)
