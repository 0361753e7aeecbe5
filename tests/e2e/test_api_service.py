# SPDX-License-Identifier: AGPL-3.0-only
"""
The API as a service: where it listens, how it starts, how it ends.
"""

from __future__ import annotations

import os
import pwd
import signal
import socket
import ssl
import stat
import subprocess
import sys
from datetime import datetime, timezone
from http.client import HTTPSConnection
from typing import ClassVar

from ctrlexec.certificates import AgentRole
from tests.authority import issued
from tests.e2e.apis import RUN, ApiTestCase, Client, UnixConnection
from tests.e2e.installation import (
    PATIENCE_SECONDS,
    AgentHome,
    EndToEndCase,
    free_port,
    hang_up,
)

#: Who the tests are when they are somebody else; nobody, on every Linux.
STRANGER = 65534
#: What somebody else does, through the unix socket; and how one becomes that.
STRANGE = """\
import os, socket, sys
if len(sys.argv) > 2:
    os.setgroups([int(sys.argv[3])])
    os.setresgid(*[int(sys.argv[2])] * 3)
    os.setresuid(*[int(sys.argv[2])] * 3)
talk = socket.socket(socket.AF_UNIX)
talk.connect(sys.argv[1])
body = b'{"hosts":["agent-one"],"script":"show","username":"root"}'
talk.sendall(b"POST /run HTTP/1.1\\r\\nConnection: close\\r\\n")
talk.sendall(b"Content-Length: %d\\r\\n\\r\\n" % len(body) + body)
sys.stdout.buffer.write(b"".join(iter(lambda: talk.recv(65536), b"")))
"""


class LoadTests(ApiTestCase):
    """
    As many requests as it takes, and its end.
    """

    more: ClassVar = {"api_auth_default": "allow", "api_max_children": 1}

    def test_cap(self) -> None:
        """
        One request too many is told when to come again; probes still pass.
        """
        busy = self.waiting()
        reply = self.client().ask("GET", "/health")
        self.assertEqual((reply.status, reply.fields["retry-after"]), (503, "1"))
        self.assertEqual(
            reply.body,
            b'{"ok":false,"error":"service unavailable",'
            b'"detail":"too many concurrent requests"}',
        )
        self.assertEqual(self.client().ask("GET", "/healthz").status, 200)
        self.assertEqual(self.client().ask("GET", "/readyz").status, 200)
        self.await_line(self.log, "ACTION=api-overload LIVE=1 PEER=127.0.0.1")
        self.let_go()
        self.assertEqual(busy.answer().status, 200)
        self.assertEqual(self.client().ask("GET", "/health").status, 200)

    def test_stop(self) -> None:
        """
        C{SIGTERM} takes no more requests, and ends with the answer to the last.
        """
        idle, busy = self.client(), self.waiting()
        idle.connection.connect()
        self.api.terminate()
        with self.assertRaises(OSError):
            while True:
                socket.create_connection(("127.0.0.1", self.port)).close()
        self.assertEqual(idle.connection.sock.recv(1), b"")
        self.assertIsNone(self.api.poll())
        self.let_go()
        reply = busy.answer()
        self.assertEqual(reply.json()["results"][0]["stdout"], "done\n")
        self.assertEqual(reply.fields["connection"], "close")
        busy.connection.close()
        idle.connection.close()
        done = self.end(self.api)
        # So twistd tells that it was a signal.
        self.assertEqual((done.status, done.err), (-signal.SIGTERM, ""), done)
        self.await_line(self.log, "ACTION=api-stop RUNS=0")

    def test_stopTwice(self) -> None:
        """
        A second C{SIGTERM} is for somebody who does not want to wait.
        """
        self.waiting()
        self.api.terminate()
        with self.assertRaises(OSError):
            while True:
                socket.create_connection(("127.0.0.1", self.port)).close()
        self.api.terminate()
        self.assertEqual(self.end(self.api).status, -signal.SIGTERM)
        self.await_line(self.log, "ACTION=api-stop RUNS=1")
        self.let_go()

    def test_reload(self) -> None:
        """
        C{SIGHUP} brings new settings into force; bad ones do not.
        """
        self.configure(api_auth_default="deny")
        hang_up(self.api)
        self.await_line(self.log, "ACTION=reload STATUS=ok", self.api)
        self.assertEqual(self.client().ask("GET", "/health").status, 403)
        self.configure(api_auth_default="perhaps")
        hang_up(self.api)
        line = self.await_line(self.log, "the old settings stay", self.api)
        self.assertIn("api_auth_default", line)
        self.assertEqual(self.client().ask("GET", "/health").status, 403)


class SecureTests(ApiTestCase):
    """
    HTTPS.
    """

    more: ClassVar = {
        "api_auth_default": "allow",
        "api_cert": "api.crt",
        "api_key": "api.key",
    }

    def paired(self, *names: str) -> list[AgentHome]:
        found = super().paired(*names)
        cert, key = self.credentials(AgentRole("api.example"))
        cert.rename(self.home / "api.crt")
        key.rename(self.home / "api.key")
        (self.home / "api.key").chmod(0o600)
        return found

    def context(self) -> ssl.SSLContext:
        """
        What a client needs.
        """
        context = ssl.create_default_context(cafile=str(self.home / "ca.crt"))
        context.check_hostname = False
        return context

    def secure(self, context: ssl.SSLContext) -> Client:
        """
        A client by HTTPS.
        """
        return self.client(
            HTTPSConnection(
                "127.0.0.1", self.port, timeout=PATIENCE_SECONDS, context=context
            )
        )

    def shown(self, client: Client) -> bytes | None:
        """
        The certificate that a client has seen.
        """
        connected = client.connection.sock
        assert isinstance(connected, ssl.SSLSocket)
        return connected.getpeercert(binary_form=True)

    def test_secure(self) -> None:
        """
        The API speaks TLS 1.2 and 1.3, and neither anything older nor plain
        HTTP.
        """
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = self.context()
            context.minimum_version = context.maximum_version = version
            client = self.secure(context)
            for _ in range(2):
                reply = client.ask("POST", "/run", RUN)
                self.assertEqual(reply.json()["results"][0]["exit"], 3)
        self.await_line(self.log, "ACTION=api-start BIND=127.0.0.1 PORT=")
        self.assertIn(" TLS=on", self.log.read_text())
        old = self.context()
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
        old.set_ciphers("ALL:@SECLEVEL=0")
        self.assertRaises(ssl.SSLError, self.secure(old).ask, "GET", "/health")
        self.assertRaises(OSError, self.client().ask, "GET", "/health")
        self.assertEqual(self.secure(self.context()).ask("GET", "/health").status, 200)

    def test_renewed(self) -> None:
        """
        A certificate that is renewed is shown from the next reload on.
        """
        first = self.secure(self.context())
        self.assertEqual(first.ask("GET", "/health").status, 200)
        before = self.shown(first)
        (self.home / "api.crt").write_bytes(
            issued(
                AgentRole("renewed.example"),
                days=1,
                ca=(self.home / "ca.crt").read_bytes(),
                ca_key=(self.home / "ca.key").read_bytes(),
                now=datetime.now(timezone.utc),
            )
        )
        hang_up(self.api)
        self.await_line(self.log, "ACTION=reload STATUS=ok", self.api)
        second = self.secure(self.context())
        self.assertEqual(second.ask("GET", "/health").status, 200)
        self.assertEqual(first.ask("GET", "/health").status, 200)
        self.assertNotEqual(self.shown(second), before)


class SocketTests(ApiTestCase):
    """
    The unix socket.
    """

    more: ClassVar = {
        "api_auth_default": "allow",
        "api_bind": "127.0.0.1, unix:/somewhere",
    }

    def configure(self, **more: object) -> None:
        if hasattr(self, "socket"):
            more["api_bind"] = f"127.0.0.1, unix:{self.socket}"
        super().configure(**more)

    def test_user(self) -> None:
        """
        Who comes through the socket is known by it: what they claim to be is
        not what is logged, nor what is kept.
        """
        about = self.socket.stat()
        self.assertTrue(stat.S_ISSOCK(about.st_mode))
        self.assertEqual(stat.S_IMODE(about.st_mode), 0o660)
        # Nobody else than root can be somebody else.
        others = [str(STRANGER), str(os.getegid())] if os.geteuid() == 0 else []
        name = pwd.getpwuid(STRANGER if others else os.geteuid()).pw_name
        done = subprocess.run(
            [sys.executable, "-c", STRANGE, str(self.socket), *others],
            capture_output=True,
            timeout=PATIENCE_SECONDS,
            check=True,
        )
        self.assertIn(b'"exit":3', done.stdout)
        line = self.await_line(self.log, "ACTION=api-request ")
        self.assertTrue(
            line.endswith(f"PATH=/run PEER=127.0.0.1 STATUS=200 USER={name}"), line
        )
        # We ourselves may claim to be root, who could be us.
        known = name if others else "root"
        line = self.await_line(self.log, "ACTION=dispatch ")
        self.assertTrue(line.endswith(f"USER={known}"), line)

    def test_http(self) -> None:
        """
        Otherwise it is like any other way in; and it is gone with the API.
        """
        client = self.client(UnixConnection(self.socket))
        for _ in range(2):
            self.assertEqual(client.ask("POST", "/run", RUN).status, 200)
        self.assertEqual(client.ask("GET", "/operator/run").status, 405)
        self.assertEqual(self.client().ask("GET", "/operator/run").status, 404)
        self.api.terminate()
        self.end(self.api)
        self.assertFalse(self.socket.exists())

    def test_stale(self) -> None:
        """
        What a killed API has left behind is in nobody's way; a living one is.
        """
        self.api.kill()
        self.end(self.api)
        self.assertTrue(self.socket.exists())
        self.api = self.serve()
        self.assertEqual(
            self.client(UnixConnection(self.socket)).ask("GET", "/health").status, 200
        )
        port = free_port()
        words = ["--config", self.settings, "--port", port]
        done = self.end(self.start("ctrl-exec-api", *words))
        self.assertEqual(done.status, 1)
        self.assertIn("somebody listens there", done.err)
        self.assertEqual(
            self.client(UnixConnection(self.socket)).ask("GET", "/health").status, 200
        )


class StartTests(EndToEndCase):
    """
    An API that can not start says why in a line, and leaves with a status that
    tells whether to try again is of any use.
    """

    def refused(self, *words: object) -> str:
        """
        What the API says that does not start.
        """
        done = self.end(self.start("ctrl-exec-api", *words))
        self.assertEqual((done.status, done.out), (78, ""), done)
        daemon = ["-n", "--pidfile=", "ctrl-exec-api", *words]
        again = self.end(self.start("twistd", *daemon))
        self.assertEqual((again.status, again.err), (78, done.err))
        return done.err

    def test_settings(self) -> None:
        """
        Settings that can not be used, or a dispatcher without an identity.
        """
        config = ("--config", self.settings)
        self.assertIn("no such file", self.refused("--config", self.root / "x").lower())
        self.assertIn("ctrl-exec.key", self.refused(*config))
        self.set_up_dispatcher()
        self.configure(api_cert="api.crt")
        self.assertIn("api_key: must be given", self.refused(*config))
        self.configure(api_auth_default="perhaps")
        self.assertIn("api_auth_default", self.refused(*config))

    def test_port(self) -> None:
        """
        A port that somebody else has may be free the next time.
        """
        self.set_up_dispatcher()
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            words = ["--config", self.settings, "--port", port]
            done = self.end(self.start("ctrl-exec-api", *words))
        self.assertEqual(done.status, 1)
        self.assertIn(f"cannot listen on port {port} of 127.0.0.1", done.err)
