# SPDX-License-Identifier: AGPL-3.0-only
"""
An agent under attack, by clients that speak raw TLS or less.

Each attacker has an address of its own on the loopback network, as its
addresses in the world would differ from the dispatcher's.
"""

from __future__ import annotations

import contextlib
import resource
import socket
import ssl
import time
from pathlib import Path

from ctrlexec.certificates import AgentRole, DispatcherRole, read_certificate
from tests.e2e.installation import (
    PATIENCE_SECONDS,
    EndToEndCase,
    hang_up,
)

DATA = Path(__file__).parent.parent / "data"
PING = b"POST /ping HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
FLOOD = 1000
MEMORY_BYTES = 20 * 2**20
#: As long as an agent waits for a header, and a little more.
HEADER_PATIENCE_SECONDS = 17.0


class AttackTests(EndToEndCase):
    """
    A trusted dispatcher is answered as if nothing had happened.
    """

    def setUp(self) -> None:
        super().setUp()
        self.agent = self.paired("agent-one")[0]
        self.serving = self.agent.serve()
        self.room_for(FLOOD + 200)

    def room_for(self, files: int) -> None:
        """
        Let this process have so many files open.
        """
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft < files:
            resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
            self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))

    # Who attacks, and with what.

    def plain(self, source: str) -> socket.socket:
        """
        A TCP connection from an address.
        """
        connection = socket.create_connection(
            ("127.0.0.1", self.agent.port), PATIENCE_SECONDS, (source, 0)
        )
        self.addCleanup(connection.close)
        return connection

    def secure(self, source: str, context: ssl.SSLContext) -> ssl.SSLSocket:
        """
        A TLS connection from an address.
        """
        connection = context.wrap_socket(self.plain(source))
        self.addCleanup(connection.close)
        return connection

    def sibling(self) -> ssl.SSLContext:
        """
        What a client has that took over another agent.
        """
        return self.agent.context(*self.credentials(AgentRole("agent-two")))

    # What they do.

    def knocks(self, source: str, context: ssl.SSLContext) -> None:
        """
        A client that the handshake does not let in: not one byte is answered.
        """
        with contextlib.suppress(ssl.SSLError, ConnectionError):
            connection = self.secure(source, context)
            connection.sendall(PING)
            self.assertEqual(connection.recv(100), b"")
        self.logged("tls-failure", source)

    def asks(self, source: str, context: ssl.SSLContext, data: bytes) -> bytes:
        """
        A client that sends something, and then has nothing more to say.

        @return: all that is answered.
        """
        connection = self.secure(source, context)
        connection.settimeout(PATIENCE_SECONDS)
        answer = b""
        with contextlib.suppress(ConnectionError):
            connection.sendall(data)
            while piece := connection.recv(2**16):
                answer += piece
        return answer

    def logged(self, action: str, source: str, count: int = 1) -> None:
        """
        Wait until the agent has logged something of an address.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        while len(self.lines(action, source)) < count:
            self.assertLess(time.monotonic(), deadline, f"no {action} of {source}")
            self.await_line(self.agent.log, f"ACTION={action} ", self.serving)
            time.sleep(0.01)

    def lines(self, action: str, source: str) -> list[str]:
        """
        What the agent has logged of an address.
        """
        return [
            line
            for line in self.agent.log.read_text().splitlines()
            if f"ACTION={action} " in line and f"PEER={source}" in line.split()
        ]

    # How the agent is.

    def ping_seconds(self) -> float:
        """
        How long a ping of the dispatcher takes, its handshake included.
        """
        begun = time.monotonic()
        connection = self.agent.connect()
        connection.sendall(PING)
        answer = connection.recv(2**16)
        self.assertTrue(answer.startswith(b"HTTP/1.1 200 OK\r\n"), answer)
        connection.close()
        return time.monotonic() - begun

    def memory_bytes(self) -> int:
        """
        How much memory the agent has.
        """
        status = Path(f"/proc/{self.serving.pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) * 1024

    # The attacks.

    def test_everything(self) -> None:
        """
        After all that strangers can think of, one after the other and in part
        at once, a ping is answered within a second, and the memory is back.
        """
        self.ping_seconds()
        before = self.memory_bytes()
        self.with_revoked_certificate()
        slow = [self.plain("127.0.0.20"), self.secure("127.0.0.21", self.sibling())]
        begun = time.monotonic()
        self.with_bad_certificates()
        self.again_and_again()
        self.with_certificate_of_agent()
        self.oversized()
        self.pipelined()
        self.half_open_from_one_address()
        self.byte_by_byte(slow, begun)
        self.half_open_from_everywhere()
        self.assertLess(self.ping_seconds(), 1)
        self.assertLess(self.memory_bytes() - before, MEMORY_BYTES)
        (row,) = self.json("run", "agent-one", "show")["results"]
        self.assertEqual(row["exit"], 3)
        self.assertEqual(self.lines("rate-block", "127.0.0.1"), [])

    def with_revoked_certificate(self) -> None:
        """
        A dispatcher's certificate, until its serial is on the list.
        """
        cert, key = self.credentials(DispatcherRole("ops"))
        closing = PING.replace(b"HTTP/1.1", b"HTTP/1.0")
        answer = self.asks("127.0.0.2", self.agent.context(cert, key), closing)
        self.assertIn(b" 200 ", answer.splitlines()[0])
        serial = read_certificate(cert.read_bytes()).serial
        (self.agent.home / "revoked-serials").write_text(f"{serial}\n")
        hang_up(self.serving)
        self.await_line(self.agent.log, "ACTION=reload")
        answer = self.asks("127.0.0.2", self.agent.context(cert, key), PING)
        self.assertIn(b"403", answer.splitlines()[0])
        self.assertTrue(answer.endswith(b'{"error":"certificate revoked"}'), answer)
        self.logged("revoked-cert", "127.0.0.2")

    def with_bad_certificates(self) -> None:
        """
        None, another CA's, and one that has expired.
        """
        other = DATA / "original-dispatcher.crt", DATA / "original-dispatcher.key"
        expired = self.credentials(DispatcherRole("ops"), age_days=3)
        self.knocks("127.0.0.3", self.agent.context(None))
        self.knocks("127.0.0.4", self.agent.context(*other))
        self.knocks("127.0.0.5", self.agent.context(*expired))

    def again_and_again(self) -> None:
        """
        Who fails too often is turned away at the door, and the log says so once.
        """
        for _ in range(4):
            self.plain("127.0.0.6").close()
        self.logged("rate-block", "127.0.0.6")
        for _ in range(100):
            with contextlib.suppress(ConnectionError):
                self.assertEqual(self.plain("127.0.0.6").recv(1), b"")
        self.assertEqual(len(self.lines("tls-failure", "127.0.0.6")), 4)
        self.assertEqual(len(self.lines("rate-block", "127.0.0.6")), 1)

    def with_certificate_of_agent(self) -> None:
        """
        An agent gives no orders, and may not try for long.
        """
        context, run = self.sibling(), b'{"script":"show"}'
        head = b"POST /run HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(run)
        for _ in range(11):
            answer = self.asks("127.0.0.7", context, head + run)
            self.assertIn(b"403", answer.splitlines()[0])
            self.assertTrue(answer.endswith(b'"status":"forbidden"}'), answer)
        self.logged("rate-block", "127.0.0.7")
        with self.assertRaises((ssl.SSLError, ConnectionError)):
            self.asks("127.0.0.7", context, head + run)
        self.assertEqual(len(self.lines("serial-reject", "127.0.0.7")), 11)

    def oversized(self) -> None:
        """
        More than a request may have, in its header and in its body, which is
        not even waited for.
        """
        start = b"POST /run HTTP/1.1\r\n"
        for code, data in (
            (b"413", start + b"Content-Length: 9999999999\r\n\r\n"),
            (b"413", start + b"Content-Length: 2000000\r\n\r\n" + b"x" * 2_000_000),
            (b"431", start + b"X: " + b"x" * 100_000 + b"\r\n\r\n"),
            (b"431", start + b"X: x\r\n" * 10_000 + b"\r\n"),
        ):
            answer = self.asks("127.0.0.8", self.sibling(), data)
            self.assertIn(code, answer.splitlines()[0])

    def pipelined(self) -> None:
        """
        A thousand requests in one go: a trusted dispatcher has an answer to
        each, in turn, and whoever is none has one in all.
        """
        stream = 999 * PING + PING.replace(b"Host: x", b"Connection: close")
        answer = self.asks("127.0.0.9", self.agent.context(), stream)
        self.assertEqual(answer.count(b"HTTP/1.1 200 "), 1000)
        answer = self.asks("127.0.0.9", self.sibling(), stream)
        self.assertEqual(answer.count(b"HTTP/1.1 403 "), 1)

    def half_open_from_one_address(self) -> None:
        """
        They get their share of the places; a dispatcher still finds one.
        """
        flood = [self.plain("127.0.0.10") for _ in range(FLOOD)]
        self.logged("overload", "127.0.0.10")
        self.assertLess(self.ping_seconds(), 1)
        self.assertEqual(len(self.lines("overload", "127.0.0.10")), 1)
        for connection in flood:
            connection.close()
        self.logged("rate-block", "127.0.0.10")

    def half_open_from_everywhere(self) -> None:
        """
        They can take all places, and a dispatcher finds one all the same.
        """
        flood = [
            self.plain(f"127.0.{1 + number // 250}.{1 + number % 250}")
            for number in range(FLOOD)
        ]
        self.await_line(self.agent.log, "LIVE=256", self.serving)
        self.assertLess(self.ping_seconds(), 1)
        for connection in flood:
            connection.close()
        self.await_line(self.agent.log, "PEER=127.0.1.200 ", self.serving)

    def byte_by_byte(self, slow: list[socket.socket], begun: float) -> None:
        """
        Clients that never get to the end of what they have to say, with TLS and
        without, are cut off.
        """
        hello = b"\x16\x03\x01\x02\x00\x01" + b"\x00" * 100
        for connection, data in zip(slow, (hello, PING), strict=True):
            connection.settimeout(1)
            with contextlib.suppress(ssl.SSLError, ConnectionError):
                for byte in data:
                    connection.sendall(bytes([byte]))
                    with contextlib.suppress(TimeoutError):
                        if connection.recv(1000):
                            break
            self.assertLess(time.monotonic() - begun, 2 * HEADER_PATIENCE_SECONDS)
