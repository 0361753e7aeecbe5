# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.agent.service}.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

from twisted.internet.error import CannotListenError, ConnectionLost
from twisted.python.failure import Failure
from twisted.python.usage import UsageError

from ctrlexec.agent import service
from ctrlexec.agent.policy import Overrides
from ctrlexec.agent.service import (
    CONFIGURATION,
    Options,
    makeService,
)
from ctrlexec.errors import (
    CtrlExecError,
    ListenError,
    PkiError,
    SettingsError,
)
from ctrlexec.hooks import NoHook
from ctrlexec.values import openssl_time
from tests.agents import tree, visit
from tests.enrolling import Reactor
from tests.serving import Caller, ServiceTestCase
from tests.wired import AGENT, DISPATCHER


class BusyReactor(Reactor):
    """
    A reactor on a machine where the port is taken.
    """

    def listenTCP(self, port: int, *_: Any, **__: Any) -> NoReturn:
        """
        Refuse.
        """
        raise CannotListenError("127.0.0.1", port, OSError(98, "Address in use"))


class RunningTests(ServiceTestCase):
    """
    L{AgentService}
    """

    def test_answers(self) -> None:
        """
        It listens where the settings say, and answers a dispatcher of its CA.
        """
        self.started()
        port, _, _, interface = self.reactor.tcpServers[0]
        self.assertEqual((port, interface), (7443, "127.0.0.1"))
        self.assertEqual(self.logged(), ["ACTION=start PORT=7443"])
        caller = self.connected(Caller())
        self.assertTrue(caller.received.startswith(b"HTTP/1.1 200 OK\r\n"))
        self.assertIn(b'"host":"agent-one"', caller.received)

    def test_stopped(self) -> None:
        """
        It says that it stops, and what it leaves behind.
        """
        service = self.started()
        self.logged()
        service.stopService()
        self.assertEqual(self.logged(), ["ACTION=stop RUNS=0"])

    def test_busy(self) -> None:
        """
        A port that is taken is an error in words, and nothing runs.
        """
        self.reactor = BusyReactor()
        error = self.assertRaises(ListenError, self.agent().privilegedStartService)
        self.assertEqual(
            str(error), "cannot listen on port 7443 of 127.0.0.1: Address in use"
        )

    def test_hangup(self) -> None:
        """
        C{SIGHUP} reads the settings again, as long as the service runs.
        """
        before = signal.getsignal(signal.SIGHUP)
        service = self.started()
        self.logged()
        os.kill(os.getpid(), signal.SIGHUP)
        self.assertEqual(self.logged(), ["ACTION=reload SCRIPTS=1 STATUS=ok"])
        service.stopService()
        self.assertEqual(signal.getsignal(signal.SIGHUP), before)


class ReloadTests(ServiceTestCase):
    """
    L{AgentService.reload}
    """

    def setUp(self) -> None:
        super().setUp()
        self.service = self.started()
        self.logged()

    def reloaded(self) -> str:
        """
        Reload, which takes one line to say how it went, whatever was warned of
        before.
        """
        self.service.reload()
        *_, line = self.logged()
        self.assertTrue(line.startswith("ACTION=reload"))
        return line

    def test_all(self) -> None:
        """
        All that takes no restart is in force at once.
        """
        path = self.directory / "bin" / "hello"
        (self.directory / "scripts.conf").write_text(f"a = {path}\nb = {path}\n")
        (self.directory / "revoked-serials").write_text("0xAA\n")
        (self.directory / "state" / "ctrl-exec-dispatchers").write_text("d2 lab\n")
        with self.file.open("a") as conf:
            conf.write("allowed_ips = 192.0.2.0/24\nmax_output = 1k\n[tags]\na = b\n")
        self.assertEqual(self.reloaded(), "ACTION=reload SCRIPTS=2 STATUS=ok")
        policy = self.service.resource.policy
        self.assertEqual(list(policy.allowlist.scripts), ["a", "b"])
        self.assertEqual(policy.revoked, {"aa"})
        self.assertEqual(policy.trusted.entries, {"d2": "lab"})
        self.assertEqual(policy.settings.tags, {"a": "b"})
        self.assertFalse(self.service.resource.admits("127.0.0.1"))
        self.assertEqual(policy.settings.max_output, 1024)

    def test_hook(self) -> None:
        """
        A hook is asked from the moment on at which it is set, and stays when
        the next one can not be used.
        """
        self.assertEqual(self.service.resource.in_force.authoriser, NoHook())
        good = self.file.read_text()
        self.file.write_text(f"auth_hook = /bin/true\nauth_hook_timeout = 3\n{good}")
        self.reloaded()
        hook: Any = self.service.resource.in_force.authoriser
        self.assertEqual((hook.path, hook.timeout), (Path("/bin/true"), 3))
        self.file.write_text(f"auth_hook = /no/such/hook\n{good}")
        self.assertIn("auth_hook", self.reloaded())
        self.assertIs(self.service.resource.in_force.authoriser, hook)

    def test_refused(self) -> None:
        """
        One bad file, and all of the old stays in force.
        """
        old = tree(self.directory)
        for name, text in (
            ("agent.conf", "name agent-two\n"),
            ("agent.conf", "port = many\n"),
            ("agent.conf", "allowed_ips = nowhere\n"),
            ("agent.conf", "auth_hook = /no/such/hook\n"),
            ("agent.conf", "\xff"),
            ("agent.conf", None),
            ("scripts.conf", None),
            ("revoked-serials", "my laptop\n"),
        ):
            with self.subTest(name=name, text=text):
                before = self.service.resource.policy
                path = self.directory / name
                if text is None:
                    path.unlink()
                else:
                    path.write_bytes(text.encode("latin-1"))
                line = self.reloaded()
                self.assertIn('STATUS="failed, the old settings stay"', line)
                self.assertIn(name, line)
                self.assertIs(self.service.resource.policy, before)
                path.write_bytes(old.get(name, b""))

    def test_ownFault(self) -> None:
        """
        So does it where the fault is ours, and the log says that, too.
        """
        before = self.service.resource.policy

        def faulty(*_: object) -> None:
            raise ZeroDivisionError

        self.patch(service, "load_policy", faulty)
        self.assertIn("internal error: ZeroDivisionError()", self.reloaded())
        self.assertIs(self.service.resource.policy, before)

    def test_forgets(self) -> None:
        """
        C{SIGHUP} ends the block of an address, even where a bad file keeps the
        old settings in force.
        """
        resource = self.service.resource
        for text in ("name = agent-two\n", "port = many\n"):
            while resource.admits("127.0.0.1"):
                failing = visit("127.0.0.1")
                resource.arrived(failing)
                resource.handshake_failed(failing, Failure(ConnectionLost()))
            self.file.write_text(text)
            self.service.reload()
            self.assertTrue(resource.admits("127.0.0.1"))

    def test_restart(self) -> None:
        """
        What takes a restart is said, and the rest is in force.
        """
        with self.file.open("a") as conf:
            conf.write("port = 7999\n")
        self.service.reload()
        warned, done = self.logged()
        message = '"port has changed; that needs a restart"'
        self.assertEqual(warned, f"ACTION=config-warn MSG={message}")
        self.assertEqual(done, "ACTION=reload SCRIPTS=1 STATUS=ok")
        # It still does after another reload, and no more once it is taken back.
        self.service.reload()
        self.assertEqual(self.logged(), [warned, done])
        self.file.write_text(self.file.read_text().replace("port = 7999\n", ""))
        self.service.reload()
        self.assertEqual(self.logged(), [done])

    def test_warned(self) -> None:
        """
        A line of the allowlist that is skipped is said, each time.
        """
        (self.directory / "scripts.conf").write_text("bad\n")
        for _ in range(2):
            self.service.reload()
            warned, done = self.logged()
            self.assertIn("scripts.conf:1: skipped", warned)
            self.assertEqual(done, "ACTION=reload SCRIPTS=0 STATUS=ok")


class StartTests(ServiceTestCase):
    """
    L{agent_service} and L{makeService}
    """

    def refused(self) -> CtrlExecError:
        """
        Why there is no service.
        """
        error: CtrlExecError = self.assertRaises(CtrlExecError, self.agent)
        self.assertEqual(self.reactor.tcpServers, [])
        return error

    def test_notPaired(self) -> None:
        """
        An agent without an identity is told how to get one.
        """
        for name in ("agent.key", "agent.crt", "ca.crt"):
            path = self.directory / name
            content = path.read_bytes()
            path.unlink()
            error = self.refused()
            self.assertIn("not paired", str(error))
            self.assertIn("request-pairing", error.hint)
            path.write_bytes(content)

    def test_badIdentity(self) -> None:
        """
        An identity that does not belong together, or that everybody can read,
        is none.
        """
        (self.directory / "agent.key").chmod(0o644)
        self.assertIn("every user", str(self.refused()))
        self.put(DISPATCHER.key, AGENT.ca, AGENT.ca)
        self.assertIsInstance(self.refused(), PkiError)

    def test_badSettings(self) -> None:
        """
        Nor does it start with settings that can not be used.
        """
        self.file.write_text("allowed_ips = nowhere\n")
        self.assertIsInstance(self.refused(), SettingsError)
        self.file.write_text("auth_hook = /no/such/hook\n")
        self.assertIsInstance(self.refused(), SettingsError)

    def test_unfinished(self) -> None:
        """
        A pairing that a crash interrupted is finished first; one that can not
        be is said.
        """
        (self.directory / ".agent.crt.unfinished").write_text("{}")
        self.assertIn("unfinished", str(self.refused()))

    def test_makeService(self) -> None:
        """
        Under C{twistd} that is a line and the status that stops a supervisor
        from trying again.
        """
        hook = sys.excepthook
        self.addCleanup(setattr, sys, "excepthook", hook)
        options = Options()
        options.parseOptions(["--config", str(self.directory / "none.conf")])
        with contextlib.redirect_stderr(io.StringIO()) as stderr:
            error = self.assertRaises(SystemExit, makeService, options)
        self.assertEqual(error.code, CONFIGURATION)
        expected = f"error: {self.directory}/none.conf: there is no such file\n"
        self.assertEqual(stderr.getvalue(), expected)

    def test_words(self) -> None:
        """
        What C{twistd} meets later, a port that is taken, is a line too; a fault
        of ours is still a traceback.
        """
        self.test_makeService()
        with contextlib.redirect_stderr(io.StringIO()) as stderr:
            sys.excepthook(ListenError, ListenError("no"), None)
        self.assertEqual(stderr.getvalue(), "error: no\n")
        with contextlib.redirect_stderr(io.StringIO()) as stderr:
            sys.excepthook(KeyError, KeyError("x"), None)
        self.assertEqual(stderr.getvalue(), "KeyError: 'x'\n")

    def test_options(self) -> None:
        """
        Options are looked at before anything else.
        """
        options = Options()
        options.parseOptions(["-p", "7999", "-a", "/x/scripts.conf"])
        self.assertEqual(options.overrides, Overrides(7999, Path("/x/scripts.conf")))
        for bad in (["--port", "0"], ["--port", "many"], ["--nonsense"], ["more"]):
            self.assertRaises(UsageError, Options().parseOptions, bad)


class SidecarTests(ServiceTestCase):
    """
    Schemas that can not be used
    """

    def test_said(self) -> None:
        """
        The log has what is wrong with one, when the agent starts and each time
        that it reads its files again.
        """
        sidecar = self.directory / "bin" / "hello.schema.json"
        sidecar.write_text("[]")
        service = self.started()
        begins = "ACTION=schema-skip REASON="
        (said,) = (line for line in self.logged() if line.startswith(begins))
        service.reload()
        self.assertIn(said, self.logged())
        sidecar.write_text("{}")
        service.reload()
        self.assertEqual(self.logged(), ["ACTION=reload SCRIPTS=1 STATUS=ok"])


class WiringTests(ServiceTestCase):
    """
    What the parts of an agent are handed
    """

    def test_environment(self) -> None:
        """
        What the agent has in its own environment is for neither scripts nor
        hooks, not even after a reload.
        """
        self.patch(os, "environ", {**os.environ, "SECRET": "x", "LANG": "C"})
        with self.file.open("a") as conf:
            conf.write("auth_hook = /bin/true\n")
        service = self.started()
        for _ in range(2):
            resource: Any = service.resource
            for part in (resource.runs, resource.in_force.authoriser):
                self.assertEqual(part.env["LANG"], "C")
                self.assertNotIn("SECRET", part.env)
            service.reload()

    def test_expiry(self) -> None:
        """
        A ping is told when the certificate ends that the agent shows.
        """
        self.started()
        expiry = openssl_time(AGENT.info.not_after).encode()
        self.assertIn(b'"expiry":"%s"' % expiry, self.connected(Caller()).received)
