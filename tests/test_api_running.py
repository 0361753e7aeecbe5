# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of the API while it runs: L{ctrlexec.api.running}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, wrapClientTLS
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory, Protocol
from twisted.test.iosim import ConnectionCompleter

from ctrlexec.errors import ListenError, PkiError, SettingsError
from ctrlexec.pki import AgentRole
from ctrlexec.protocol.messages import RunAnswer, RunRefused
from ctrlexec.tls import pairing_client
from tests.api_services import RunningCase
from tests.apis import asking
from tests.authority import OTHER_KEY
from tests.enrolling import Reactor
from tests.unix_sockets import UnixReactor


class StartTests(RunningCase):
    """
    Where the API listens, and what it needs for that.
    """

    def test_ports(self) -> None:
        """
        Each address has its port; the log tells where, and whether by HTTPS.
        """
        self.configure(api_bind="127.0.0.1, ::1")
        self.started()
        self.assertEqual(
            [(port, where) for port, _, _, where in self.reactor.tcpServers],
            [(7445, "127.0.0.1"), (7445, "::1")],
        )
        self.assertEqual(
            [line.partition(" PORT")[0] for line in self.logged("api-start")],
            ["ACTION=api-start BIND=127.0.0.1", "ACTION=api-start BIND=::1"],
        )
        self.assertEqual(self.ask("/health"), 200)

    def test_overrides(self) -> None:
        """
        The command line has the last word.
        """
        self.started(api_port=9, api_bind=("127.0.0.9",))
        ((port, _, _, where),) = self.reactor.tcpServers
        self.assertEqual((port, where), (9, "127.0.0.9"))

    def test_socket(self) -> None:
        """
        A unix socket beside them has no port, and is never encrypted.
        """
        path = self.directory / "api.sock"
        self.secure()
        self.configure(
            api_bind=f"127.0.0.1, unix:{path}", api_cert="api.crt", api_key="api.key"
        )

        class Both(UnixReactor, Reactor):
            pass

        self.reactor = Both()
        self.started()
        self.assertTrue(path.is_socket())
        self.assertTrue(self.logged("api-start")[0].endswith(" TLS=on"))
        self.assertEqual(
            self.logged("api-start")[1],
            f"ACTION=api-start BIND=unix:{path} PORT=0 TLS=off",
        )

    def test_inTheClear(self) -> None:
        """
        Whoever offers it to a network without HTTPS is warned.
        """
        self.configure(api_bind="127.0.0.1, ::1, 192.0.2.1")
        self.made()
        (line,) = self.logged("config-warn")
        self.assertIn("192.0.2.1", line)
        self.log.unlink()
        self.secure()
        self.configure(api_bind="", api_cert="api.crt", api_key="api.key")
        self.made()
        self.assertEqual(self.logged("config-warn"), [])
        self.configure(api_bind="")
        self.made()
        self.assertEqual(len(self.logged("config-warn")), 1)

    def test_refused(self) -> None:
        """
        Without good settings, an identity, or a certificate that goes with its
        key, there is no service.
        """
        self.configure(api_cert="api.crt")
        with self.assertRaises(SettingsError) as caught:
            self.made()
        self.assertEqual(caught.exception.key, "api_key")
        self.configure(api_key="api.key")
        self.assertRaises(SettingsError, self.made)
        self.secure()
        (self.directory / "api.key").write_bytes(OTHER_KEY)
        self.configure(api_cert="api.crt", api_key="api.key")
        self.assertRaises(PkiError, self.made)
        self.configure()
        (self.directory / "ctrl-exec.key").unlink()
        self.assertRaises(PkiError, self.made)

    def test_noAuthorityKey(self) -> None:
        """
        The key of the CA is not even looked for.
        """
        self.assertFalse((self.directory / "ca.key").exists())
        self.started()

    def test_busy(self) -> None:
        """
        A port that somebody else has ends the start; none stays open.
        """

        class Busy(Reactor):
            def listenTCP(self, port: int, *rest: Any, **how: Any) -> Any:
                if how.get("interface") == "::1":
                    error = OSError(98, "Address already in use")
                    raise CannotListenError("::1", port, error)
                return super().listenTCP(port, *rest, **how)

        self.configure(api_bind="127.0.0.1, ::1")
        self.reactor = Busy()
        service = self.made()
        with self.assertRaises(ListenError) as caught:
            service.privilegedStartService()
        self.assertEqual(
            str(caught.exception),
            "cannot listen on port 7445 of ::1: Address already in use",
        )

    def test_ready(self) -> None:
        """
        It is ready while it can read its key and its settings, and its state
        is there.
        """
        service = self.started()
        settings = service.api.dispatcher.settings
        self.assertTrue(service.source.is_ready(settings))
        for path in (self.file, settings.key, settings.cert, settings.state_dir):
            away = path.rename(path.with_suffix(".away"))
            self.assertFalse(service.source.is_ready(settings), path)
            self.assertEqual(self.ask("/readyz"), 503)
            away.rename(path)
        self.assertEqual(self.ask("/readyz"), 200)


class HttpsTests(RunningCase):
    """
    The API over real TLS in memory.
    """

    def test_https(self) -> None:
        """
        A client without a certificate is answered.
        """
        self.secure()
        self.configure(api_cert="api.crt", api_key="api.key")
        self.started()
        received: list[bytes] = []

        class Asking(Protocol):
            def connectionMade(self) -> None:
                assert self.transport is not None
                self.transport.write(asking("GET", "/health"))

            def dataReceived(self, data: bytes) -> None:
                received.append(data)

        bare = TCP4ClientEndpoint(self.reactor, "127.0.0.1", 7445)
        endpoint = wrapClientTLS(pairing_client(), bare, clock=self.reactor)
        endpoint.connect(Factory.forProtocol(Asking))
        pump = ConnectionCompleter(self.reactor).succeedOnce()
        assert pump is not None
        pump.flush()
        self.assertTrue(b"".join(received).startswith(b"HTTP/1.1 200 OK\r\n"))


class ReloadTests(RunningCase):
    """
    C{SIGHUP}
    """

    def test_settings(self) -> None:
        """
        New settings are in force for the next request.
        """
        service = self.started()
        self.assertEqual(self.ask("/health"), 200)
        self.configure(api_auth_default="deny", api_max_children=3)
        self.hang_up()
        self.assertEqual(self.logged("reload"), ["ACTION=reload STATUS=ok"])
        self.assertEqual(self.ask("/health"), 403)
        operators = service.operators
        self.assertEqual((service.api.work.most, operators.work.most), (3, 3))
        self.assertEqual((service.api.streams.most, operators.streams.most), (1, 1))

    def test_bad(self) -> None:
        """
        Settings that can not be used leave the old ones in force.
        """
        service = self.started()
        before = service.api.dispatcher
        self.configure(api_auth_default="perhaps")
        self.hang_up()
        self.configure(api_cert="api.crt")
        self.hang_up()
        self.configure()
        (self.directory / "ctrl-exec.crt").write_text("nonsense")
        self.hang_up()
        lines = self.logged("reload")
        self.assertEqual(len(lines), 3)
        for line, what in zip(
            lines, ("api_auth_default", "api_key", "ctrl-exec.crt"), strict=True
        ):
            self.assertIn('STATUS="failed, the old settings stay"', line)
            self.assertIn(what, line)
        self.assertIs(service.api.dispatcher, before)

    def test_sockets(self) -> None:
        """
        What needs another socket is said to need a restart.
        """
        self.started()
        self.secure()
        self.configure(
            api_port=1, api_bind="::1", api_cert="api.crt", api_key="api.key"
        )
        self.hang_up()
        warned = " ".join(self.logged("config-warn"))
        for key in ("api_port", "api_bind", "api_cert"):
            self.assertIn(f"{key} has changed; that needs a restart", warned)

    def test_certificate(self) -> None:
        """
        A renewed certificate is shown from then on.
        """
        self.secure()
        self.configure(api_cert="api.crt", api_key="api.key")
        service = self.started()
        assert service.sockets.tls is not None
        before = service.sockets.tls.current
        self.secure(AgentRole("renewed"))
        self.hang_up()
        self.assertIsNot(service.sockets.tls.current, before)

    def test_underWay(self) -> None:
        """
        What was begun ends as it was begun.
        """
        self.started()
        waiting: Deferred[RunAnswer] = Deferred()
        self.agents.answers = {"web-1": waiting}
        order = {"hosts": ["web-1"], "script": "a"}
        wire = self.wire().send(asking("POST", "/run", order))
        self.configure(api_auth_default="deny")
        self.hang_up()
        # Whoever wants to end it has to find it.
        self.assertEqual(len(self.service.api.dispatcher.process.live), 1)
        waiting.callback(RunRefused("enough"))
        self.assertEqual(wire.reply().status, 200)
