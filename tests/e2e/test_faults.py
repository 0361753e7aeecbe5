# SPDX-License-Identifier: AGPL-3.0-only
"""
What must not bring a program down, and what is said when it does stop.
"""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import struct
import time
from pathlib import Path

from tests.e2e.installation import (
    PATIENCE_SECONDS,
    AgentHome,
    EndToEndCase,
    hang_up,
)

DATA = Path(__file__).parent.parent / "data"


class SturdyAgentTests(EndToEndCase):
    """
    Each of these ends an agent of the original (PROTOCOL.md section 10).
    """

    def setUp(self) -> None:
        super().setUp()
        (self.agent,) = self.paired("agent-one")
        self.serving = self.agent.serve()

    def assertAnswers(self) -> None:
        self.assertIsNone(self.serving.poll())
        (row,) = self.json("ping", "agent-one")["results"]
        self.assertEqual(row["status"], "ok")

    def plain(self) -> socket.socket:
        return socket.create_connection(
            ("127.0.0.1", self.agent.port), PATIENCE_SECONDS
        )

    def refused(self, context: ssl.SSLContext) -> None:
        """
        A client that does not get an answer.
        """
        with self.plain() as connection:
            try:
                with context.wrap_socket(connection) as secure:
                    secure.sendall(b"POST /ping HTTP/1.0\r\n\r\n")
                    self.assertEqual(secure.recv(100), b"")
            except (ssl.SSLError, ConnectionError):
                pass

    def test_hangUp(self) -> None:
        """
        C{SIGHUP} reads the settings again.
        """
        hang_up(self.serving)
        self.await_line(self.agent.log, "ACTION=reload")
        self.assertAnswers()

    def test_portScan(self) -> None:
        """
        A connection that is closed at once.
        """
        self.plain().close()
        self.await_line(self.agent.log, "ACTION=tls-failure")
        self.assertAnswers()

    def test_oldTls(self) -> None:
        """
        A client that speaks TLS 1.1 at most.
        """
        context = self.agent.context()
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("ALL:@SECLEVEL=0")
        self.refused(context)
        self.await_line(self.agent.log, "ACTION=tls-failure")
        self.assertAnswers()

    def test_otherAuthority(self) -> None:
        """
        A client whose certificate another CA has signed.
        """
        context = self.agent.context(
            DATA / "original-dispatcher.crt", DATA / "original-dispatcher.key"
        )
        self.refused(context)
        self.await_line(self.agent.log, "ACTION=tls-failure")
        self.assertAnswers()

    def test_noCertificate(self) -> None:
        """
        A client without a certificate.
        """
        self.refused(self.agent.context(None))
        self.await_line(self.agent.log, "ACTION=tls-failure")
        self.assertAnswers()

    def test_agentsCertificate(self) -> None:
        """
        A client with the certificate of an agent gives no orders.
        """
        home = self.agent.home
        context = self.agent.context(home / "agent.crt", home / "agent.key")
        secure = self.agent.connect(context)
        secure.sendall(b"POST /ping HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}")
        answer = secure.makefile("rb").read()
        self.assertIn(b"403", answer.splitlines()[0])
        self.assertTrue(
            answer.endswith(b'{"error":"serial mismatch","status":"forbidden"}')
        )
        self.await_line(self.agent.log, "ACTION=serial-reject")
        self.assertAnswers()

    def test_plainHttp(self) -> None:
        """
        A client that speaks no TLS.
        """
        with self.plain() as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            connection.recv(100)
        self.await_line(self.agent.log, "ACTION=tls-failure")
        self.assertAnswers()

    def test_reset(self) -> None:
        """
        A client that resets the connection after its request.
        """
        secure = self.agent.connect()
        secure.sendall(b"POST /ping HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}")
        secure.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        secure.close()
        self.assertAnswers()

    def test_oneByteASecond(self) -> None:
        """
        A client that never gets to the end of its header is cut off.
        """
        secure = self.agent.connect()
        begun = time.monotonic()
        try:
            for byte in b"POST /ping HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}":
                secure.sendall(bytes([byte]))
                time.sleep(1)
        except (ssl.SSLError, ConnectionError):
            pass
        else:
            self.fail("it was let through")
        self.assertLess(time.monotonic() - begun, 30)
        self.assertAnswers()

    def test_unreadContext(self) -> None:
        """
        A script that never reads its stdin loses no answer.
        """
        self.agent.allow("deaf", "#!/bin/sh\nexec <&-\necho done\n")
        hang_up(self.serving)
        self.await_line(self.agent.log, "ACTION=reload")
        for _ in range(20):
            (row,) = self.json("run", "agent-one", "deaf")["results"]
            self.assertEqual(row["stdout"], "done\n")


class KilledTests(EndToEndCase):
    def test_dispatcherDiesDuringARun(self) -> None:
        """
        The script runs to its end, and the agent logs it.
        """
        (agent,) = self.paired("agent-one")
        done = self.root / "done"
        agent.allow("slow", f"#!/bin/sh\nsleep 1\ntouch {done}\n")
        agent.serve()
        asking = self.start(
            "ctrl-exec", "--config", self.settings, "run", "agent-one", "slow"
        )
        self.await_line(agent.log, "ACTION=run-start")
        asking.kill()
        self.await_line(agent.log, "ACTION=run ")
        self.assertTrue(done.exists())

    def test_agentDiesDuringARun(self) -> None:
        """
        The dispatcher asks again, for as long as it would have waited; then the
        operator gets a row that says that nobody knows.
        """
        (agent,) = self.paired("agent-one")
        agent.allow("slow", "#!/bin/sh\nexec sleep 8\n")
        self.configure(read_timeout=5)
        serving = agent.serve()
        asking = self.start(
            "ctrl-exec", "--config", self.settings, "--json", "run", "agent-one", "slow"
        )
        self.await_line(agent.log, "ACTION=run-start")
        serving.kill()
        done = self.end(asking)
        self.assertEqual(done.status, 1)
        (row,) = json.loads(done.out)["results"]
        self.assertEqual((row["exit"], row["state"]), (-1, "unknown"), row)
        self.assertTrue(row["error"])
        self.assertEqual([name for name in agent.files() if "tmp" in name], [])

    def test_listenerDiesDuringAPairing(self) -> None:
        """
        The agent stores nothing and says what to do; it can ask again.
        """
        self.set_up_dispatcher()
        listener = self.start_pairing()
        agent = AgentHome.made(self, "agent-one")
        asking = agent.request_pairing()
        self.await_line(self.log, "ACTION=pair-request")
        listener.kill()
        done = self.end(asking)
        self.assertEqual(done.status, 1)
        self.assertIn("nothing was stored", done.err)
        self.assertIn("hint: run request-pairing again", done.err)
        self.assertEqual([f for f in agent.files() if ".tmp" in f or "crt" in f], [])
        self.start_pairing()
        again = self.end(agent.request_pairing("--background"))
        self.dispatched("approve", again.out.strip())
        self.await_line(agent.log, "ACTION=pair-complete")

    def test_agentDiesDuringAPairing(self) -> None:
        """
        Its request leaves the queue, and there is nothing to approve.
        """
        self.set_up_dispatcher()
        self.start_pairing()
        agent = AgentHome.made(self, "agent-one")
        asking = agent.request_pairing()
        self.await_line(self.log, "ACTION=pair-request")
        (waiting,) = self.json("list-requests")
        asking.kill()
        self.await_line(self.log, "ACTION=pair-end")
        self.assertEqual(self.json("list-requests"), [])
        done = self.dispatcher("approve", waiting["id"])
        self.assertEqual(done.status, 1)
        self.assertTrue(done.err.startswith("error: "), done)
        self.assertEqual(self.json("list-agents"), [])


class PortInUseTests(EndToEndCase):
    def setUp(self) -> None:
        super().setUp()
        self.taken = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.taken.close)
        self.port = self.taken.getsockname()[1]

    def test_agent(self) -> None:
        """
        The agent ends, not with 0, and one line says which port is taken.
        """
        (agent,) = self.paired("agent-one")
        agent.configure(port=self.port)
        words = ["-n", "--pidfile=", "ctrl-exec-agent", "--config"]
        for done in (
            self.end(agent.command("serve")),
            self.end(self.start("twistd", *words, agent.home / "agent.conf")),
        ):
            self.assertNotEqual(done.status, 0)
            said = [
                line
                for line in (done.out + done.err).splitlines()
                if " error: " in f" {line}"
            ]
            self.assertEqual(len(said), 1, done)
            self.assertIn(str(self.port), said[0])
            self.assertNotIn("Traceback", done.out + done.err)

    def test_listener(self) -> None:
        """
        So does the pairing listener.
        """
        self.set_up_dispatcher()
        self.configure(pairing_port=self.port)
        words = ["-n", "--pidfile=", "ctrl-exec-pairing", "--config", self.settings]
        for done in (
            self.end(self.start("twistd", *words)),
            self.dispatcher("pairing-mode"),
        ):
            self.assertNotEqual(done.status, 0)
            said = [
                line
                for line in (done.out + done.err).splitlines()
                if " error: " in f" {line}"
            ]
            self.assertEqual(len(said), 1, done)
            self.assertIn(str(self.port), said[0])
            self.assertNotIn("Traceback", done.out + done.err)


class TakeOverTests(EndToEndCase):
    def test_authorityOfTheOriginal(self) -> None:
        """
        A CA and an identity that the original made are used as they are.
        """
        for ours, theirs in (
            ("ca.key", "original-ca.key"),
            ("ca.crt", "original-ca.crt"),
            ("ctrl-exec.key", "original-dispatcher.key"),
            ("ctrl-exec.crt", "original-dispatcher.crt"),
        ):
            shutil.copy(DATA / theirs, self.home / ours)
            (self.home / ours).chmod(0o600)
        before = (self.home / "ca.crt").read_bytes()
        self.start_pairing()
        agent = AgentHome.made(self, "agent-one")
        pinned = self.end(agent.request_pairing())
        self.assertIn("carries no role", pinned.err)
        asked = self.end(agent.ask("--background", "--legacy"))
        self.dispatched("approve", asked.out.strip())
        self.await_line(agent.log, "ACTION=pair-complete")
        agent.serve()
        (row,) = self.json("run", "agent-one", "show")["results"]
        self.assertEqual(row["exit"], 3)
        self.assertEqual((self.home / "ca.crt").read_bytes(), before)
