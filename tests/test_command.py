# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.command}: who gives an order, and who carries it
out.
"""

from __future__ import annotations

import json
import shutil
import socket
import tempfile
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

import attrs

from ctrlexec.dispatcher.command import TOKEN_BYTES, CommandLine
from ctrlexec.dispatcher.local import LocalBackend
from ctrlexec.dispatcher.orders import Caller
from ctrlexec.dispatcher.printers import run_printer
from ctrlexec.dispatcher.remote import RemoteBackend
from ctrlexec.dispatcher.results import Report, RunRow
from ctrlexec.dispatcher.terminal import Terminal
from ctrlexec.dispatcher.viewer import Interrupted, Viewer
from ctrlexec.dispatcher.world import Places
from ctrlexec.errors import SettingsError, TransportError
from tests.command_lines import CommandLineCase
from tests.scripted_apis import RAN
from tests.test_viewer import WORDING


class LineCase(CommandLineCase):
    """
    Makes command lines, and looks at them from inside.
    """

    def setUp(self) -> None:
        super().setUp()
        # A test's own directory is too deep for a socket.
        self.runtime = Path(tempfile.mkdtemp(prefix="ctrl-exec-"))
        self.addCleanup(shutil.rmtree, self.runtime)
        self.places = Places(self.home / "usual.conf", self.runtime / "usual.sock")
        self.out, self.err = StringIO(), StringIO()

    def line(self, **given: Any) -> CommandLine:
        """
        A command line with some options.
        """
        terminal = Terminal(StringIO(), self.out, self.err, {})
        world = attrs.evolve(self.world(terminal), places=self.places)
        line = CommandLine(world, None)
        line.given.update(given)
        return line

    def listen(self, name: str) -> Path:
        """
        Let something listen at a socket.
        """
        listening = socket.socket(socket.AF_UNIX)
        self.addCleanup(listening.close)
        listening.bind(str(self.runtime / name))
        listening.listen()
        return self.runtime / name


class CallerTests(LineCase):
    """
    Who gives the order.
    """

    def token(self, content: bytes, mode: int = 0o600) -> str:
        """
        @return: the token that a file of this content holds.
        """
        path = self.home / "token"
        path.write_bytes(content)
        path.chmod(mode)
        return self.line(token_file=str(path)).caller.token

    def test_order(self) -> None:
        """
        --token goes before --token-file, and that before the environment.
        """
        self.environ["ENVEXEC_TOKEN"] = "c"
        file = self.home / "token"
        file.write_text("b\n")
        file.chmod(0o600)
        for given, token in (
            ({"token": "a", "token_file": str(file)}, "a"),
            ({"token_file": str(file)}, "b"),
            ({}, "c"),
            ({"token": ""}, ""),
        ):
            self.assertEqual(
                self.line(**given).caller, Caller(username="alice", token=token)
            )

    def test_file(self) -> None:
        """
        Its one newline is not part of the token; blanks are.
        """
        self.assertEqual(self.token(b"t0ken"), "t0ken")
        self.assertEqual(self.token(b" t0ken \n"), " t0ken ")
        self.assertEqual(self.token(b""), "")
        self.assertEqual(self.err.getvalue(), "")

    def test_readByAnybody(self) -> None:
        """
        A token that anybody can read is used, and that is said.
        """
        self.assertEqual(self.token(b"t0ken", 0o644), "t0ken")
        self.assertRegex(
            self.err.getvalue(), "^warning: .*token: anybody .*\nhint: chmod 600 "
        )

    def test_noToken(self) -> None:
        """
        What holds no token is refused without being shown.
        """
        for content in (
            b"s3cret\nand more\n",
            b"s3cret\0",
            b"s3cret\xff",
            b"s" * (TOKEN_BYTES + 1),
        ):
            (self.home / "token").write_bytes(content)
            file = str(self.home / "token")
            done = self.command("list-locks", "--token-file", file, "--json")
            self.assertEqual((done.status, done.json["ok"]), (2, False))
            self.assertNotIn("s3cret", done.out + done.err)

    def test_missing(self) -> None:
        """
        A file that is not there is an error in one line.
        """
        done = self.command("list-locks", "--token-file", "/no/such/file")
        self.assertEqual(
            (done.status, done.err),
            (
                1,
                "error: /no/such/file: the token can not be read: No such file or "
                "directory\n",
            ),
        )


class BackendTests(LineCase):
    """
    Who carries it out.
    """

    def assertLocal(self, line: CommandLine) -> None:
        """
        This process does.
        """
        self.assertIsInstance(line.backend, LocalBackend)

    def assertRemote(self, line: CommandLine, path: Path) -> None:
        """
        The API at this socket does.
        """
        backend = line.backend
        assert isinstance(backend, RemoteBackend)
        self.assertEqual(backend.path, path)
        self.assertEqual(backend.caller, line.caller)

    def bind(self, *entries: str) -> None:
        """
        Tell the settings where the API listens.
        """
        self.configure(f"api_bind = {', '.join(entries)}\n")

    def unreadable(self) -> Mapping[str, str]:
        """
        Nobody names the settings, and there are none.
        """
        del self.environ["CTRL_EXEC_CONFIG"]
        return self.environ

    def test_none(self) -> None:
        """
        Where the API has no socket, this process does it.
        """
        self.assertLocal(self.line())

    def test_settings(self) -> None:
        """
        The first socket of the settings that can be used is.
        """
        path = self.listen("api.sock")
        self.bind("127.0.0.1", f"unix:{self.runtime}/other.sock", f"unix:{path}")
        self.assertRemote(self.line(), path)

    def test_notRunning(self) -> None:
        """
        One that nobody listens at is no reason not to work.
        """
        path = self.runtime / "dead.sock"
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
        self.bind(f"unix:{path}")
        self.assertLocal(self.line())

    def test_direct(self) -> None:
        """
        --direct does without it.
        """
        self.bind(f"unix:{self.listen('api.sock')}")
        self.assertLocal(self.line(direct=True))

    def test_named(self) -> None:
        """
        --socket needs no settings, and is not looked at beforehand.
        """
        self.unreadable()
        path = self.runtime / "named.sock"
        self.assertRemote(self.line(socket=str(path)), path)

    def test_namedAndGone(self) -> None:
        """
        If nobody listens there, that is the error: the order goes nowhere
        else.
        """
        self.register("web-1")
        path = f"{self.runtime}/gone.sock"
        done = self.command("run", "web-1", "x", "--socket", path)
        self.assertEqual((done.status, self.agents.asked), (1, []))
        self.assertIn(path, done.err)

    def test_interrupted(self) -> None:
        """
        What the API goes on with can be asked for afterwards; what nobody was
        asked for can not.
        """
        line = self.line(socket="/x")
        printer = run_printer(line.how, line.terminal.look, fold=False)
        for hosts, hint in (
            (("web-1",), "ctrl-exec status r1 knows what became of it"),
            ((), ""),
        ):

            def give_up(
                viewer: Viewer[RunRow], hosts: tuple[str, ...] = hosts
            ) -> Report[RunRow]:
                viewer.planned(2, "r1")
                for host in hosts:
                    viewer.asked(host)
                raise KeyboardInterrupt

            with self.assertRaises(Interrupted) as caught:
                line.watch(printer, WORDING, give_up)
            self.assertEqual(caught.exception.hint, hint)

    def test_cut(self) -> None:
        """
        What had come before the API went away is not lost, for a program
        either.
        """
        line = self.line(output="json")
        printer = run_printer(line.how, line.terminal.look, fold=False)

        def cut(viewer: Viewer[RunRow]) -> Report[RunRow]:
            viewer.planned(2, "r1")
            for host in ("web-1", "web-2"):
                viewer.asked(host)
            viewer.arrived(RAN)
            raise TransportError("the API has gone")

        with self.assertRaises(TransportError) as caught:
            line.watch(printer, WORDING, cut)
        line.report(caught.exception)
        told = json.loads(self.out.getvalue())
        self.assertEqual([row["host"] for row in told["results"]], ["web-1"])
        self.assertEqual(told["unanswered"], ["web-2"])

    def test_operator(self) -> None:
        """
        Who can not read the settings asks the API where it usually is.
        """
        self.unreadable()
        self.assertRaises(SettingsError, lambda: self.line().backend)
        self.assertRemote(self.line(), self.listen("usual.sock"))

    def test_otherSettings(self) -> None:
        """
        Settings that somebody has named belong to another API, if any; wrong
        ones are wrong.
        """
        self.listen("usual.sock")
        line = self.line(config="/no/such.conf")
        self.assertRaises(SettingsError, lambda: line.backend)
        self.unreadable()
        (self.home / "usual.conf").write_text("frob\n")
        self.assertRaises(SettingsError, lambda: self.line().backend)

    def test_both(self) -> None:
        """
        --socket and --direct do not go together; and what the API does not do
        for us does not go through its socket.
        """
        for words in (
            ("--socket", "/x", "--direct", "list-agents"),
            ("--socket", "/x", "list-locks"),
            ("approve", "0123456789abcdef", "--socket=/x"),
        ):
            done = self.command(*words)
            self.assertEqual((done.status, done.out), (2, ""), words)
