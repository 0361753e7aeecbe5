# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.hooks}, on a reactor that starts nothing.
"""

from __future__ import annotations

import errno
import json
import signal
from pathlib import Path

import attrs
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from ctrlexec.hooks import (
    Allowed,
    AuthHook,
    Denied,
    HookContext,
    NoHook,
    Verdict,
    verdict,
)
from ctrlexec.interfaces import IAuthoriser
from ctrlexec.process import DRAIN_SECONDS, Captured, ProgramResult, own_session
from tests.agents import FakeAuthoriser, Recorded
from tests.fakes import STDERR, STDIN, STDOUT, FakeProcess, FakeProcessReactor

NOTHING = Captured("stdout", b"", 0)
RUN = HookContext(
    action="run",
    script="hello",
    args=("a b", "ü", ""),
    username="ann",
    token="s3cret",
    source_ip="192.0.2.1",
    timestamp="2026-03-05T18:38:09Z",
    dispatcher="hq",
    dispatcher_serial="d1",
    reqid="r-1",
)


def ended(code: int, number: int | None = None) -> ProgramResult:
    """
    What becomes of a hook.
    """
    return ProgramResult(code, NOTHING, NOTHING, number)


class ContextTests(SynchronousTestCase):
    """
    L{HookContext}
    """

    def test_agent(self) -> None:
        """
        On an agent the JSON has the caller's identity, and no hosts.
        """
        self.assertEqual(
            list(json.loads(RUN.stdin()).items()),
            [
                ("action", "run"),
                ("script", "hello"),
                ("args", ["a b", "ü", ""]),
                ("username", "ann"),
                ("token", "s3cret"),
                ("source_ip", "192.0.2.1"),
                ("timestamp", "2026-03-05T18:38:09Z"),
                ("dispatcher", "hq"),
                ("dispatcher_serial", "d1"),
                ("reqid", "r-1"),
                ("submitter", None),
            ],
        )

    def test_dispatcher(self) -> None:
        """
        On a dispatcher the JSON has the hosts, even if there are none.
        """
        for hosts in ((), ("one", "two")):
            context = attrs.evolve(RUN, hosts=hosts)
            self.assertEqual(json.loads(context.stdin())["hosts"], list(hosts))

    def test_environment(self) -> None:
        """
        The environment says the same, and every variable is always there.
        """
        expected = {
            "ENVEXEC_ACTION": "run",
            "ENVEXEC_SCRIPT": "hello",
            "ENVEXEC_HOSTS": "one,two",
            "ENVEXEC_ARGS": "a b ü ",
            "ENVEXEC_ARGS_JSON": '["a b","\\u00fc",""]',
            "ENVEXEC_USERNAME": "ann",
            "ENVEXEC_TOKEN": "s3cret",
            "ENVEXEC_SOURCE_IP": "192.0.2.1",
            "ENVEXEC_TIMESTAMP": "2026-03-05T18:38:09Z",
            "ENVEXEC_DISPATCHER": "hq",
            "ENVEXEC_DISPATCHER_SERIAL": "d1",
            "ENVEXEC_REQID": "r-1",
            "ENVEXEC_SUBMITTER": "",
            "ENVEXEC_SUBMITTER_IP": "",
        }
        context = attrs.evolve(RUN, hosts=("one", "two"))
        self.assertEqual(context.environment(), expected)
        bare = HookContext(action="discovery", source_ip="", timestamp="")
        self.assertEqual(list(bare.environment()), list(expected))

    def test_token(self) -> None:
        """
        A context can be shown without its token.
        """
        self.assertNotIn("s3cret", repr(RUN))


class VerdictTests(SynchronousTestCase):
    """
    L{verdict}
    """

    def test_statuses(self) -> None:
        """
        One exit status allows; the others deny, some in words of their own.
        """
        for code, expected in (
            (0, Allowed()),
            (1, Denied("denied", 1)),
            (2, Denied("bad credentials", 2)),
            (3, Denied("insufficient privilege", 3)),
            (4, Denied("hook exited 4", 4)),
            (127, Denied("hook exited 127", 127)),
        ):
            self.assertEqual(verdict(ended(code)), expected)

    @given(st.integers(0, 255), st.none() | st.integers(0, 70))
    def test_onlyOneAllows(self, code: int, number: int | None) -> None:
        """
        Nothing but exit status 0 without any signal allows.
        """
        allows = verdict(ended(code, number)) == Allowed()
        self.assertEqual(allows, code == 0 and number is None)

    def test_signals(self) -> None:
        """
        A hook that a signal ends has denied, whatever its status says.
        """
        for number, name in ((9, "SIGKILL"), (15, "SIGTERM"), (63, "signal 63")):
            denied = Denied(f"hook killed by {name}", 1)
            self.assertEqual(verdict(ended(0, number)), denied)


class NoHookTests(SynchronousTestCase):
    """
    L{NoHook}
    """

    def test_allows(self) -> None:
        """
        Where there is no hook, trust is enough.
        """
        verifyObject(IAuthoriser, NoHook())
        asking = Deferred.fromCoroutine(NoHook().ask(RUN))
        self.assertEqual(self.successResultOf(asking), Allowed())


class HookTests(SynchronousTestCase):
    """
    L{AuthHook}
    """

    def setUp(self) -> None:
        self.reactor, self.log = FakeProcessReactor(), Recorded()
        self.path = Path(self.mktemp()).absolute()
        self.path.write_text("#!/bin/sh\n")
        self.path.chmod(0o755)
        self.hook = AuthHook(self.reactor, self.path, 10.0, {"PATH": "/bin"}, self.log)
        self.addCleanup(lambda: self.assertEqual(self.reactor.getDelayedCalls(), []))

    def ask(self, context: HookContext = RUN) -> Deferred[Verdict]:
        """
        Ask the hook.
        """
        return Deferred.fromCoroutine(self.hook.ask(context))

    def started(
        self, context: HookContext = RUN
    ) -> tuple[Deferred[Verdict], FakeProcess]:
        """
        Ask the hook, which starts.
        """
        asking = self.ask(context)
        return asking, self.reactor.processes[-1]

    def assertDenied(self, asking: Deferred[Verdict], reason: str) -> None:
        """
        The hook has denied, and the log says why, last.
        """
        self.assertEqual(self.successResultOf(asking), Denied(reason))
        spelled = f'"{reason}"' if " " in reason else reason
        line = (
            "ACTION=auth AUTHACTION=run DISPATCHER=hq IP=192.0.2.1 "
            f"REASON={spelled} RESULT=deny USER=ann"
        )
        self.assertEqual(self.log.lines[-1], line)

    def test_interface(self) -> None:
        """
        The hook and what stands for it in tests can be asked in the same way.
        """
        verifyObject(IAuthoriser, self.hook)
        verifyObject(IAuthoriser, FakeAuthoriser())

    def test_call(self) -> None:
        """
        A hook has no arguments, the JSON on stdin, and in its environment the
        question beside what every program has.
        """
        asking, process = self.started()
        process.reads_stdin()
        prefix = [word.encode() for word in own_session()]
        self.assertEqual(process.argv, [*prefix, bytes(self.path)])
        self.assertEqual(process.stdin, RUN.stdin())
        self.assertEqual(process.env, {"PATH": "/bin", **RUN.environment()})
        self.assertEqual(set(process.pipes), {STDOUT, STDERR})
        self.assertNoResult(asking)
        process.exits(0)
        self.assertEqual(self.successResultOf(asking), Allowed())
        self.assertEqual(process.signals, [])
        line = (
            "ACTION=auth AUTHACTION=run DISPATCHER=hq IP=192.0.2.1 RESULT=pass USER=ann"
        )
        self.assertEqual(self.log.taken(), [line])

    def test_denied(self) -> None:
        """
        A hook that says no says why.
        """
        asking, process = self.started()
        process.writes(STDOUT, b"yes! " * 1000)
        process.exits(3)
        denied = Denied("insufficient privilege", 3)
        self.assertEqual(self.successResultOf(asking), denied)
        self.assertIn('REASON="insufficient privilege"', self.log.lines[-1])

    def test_killed(self) -> None:
        """
        A hook that dies from a signal denies.
        """
        asking, process = self.started()
        process.exits(signal=signal.SIGKILL)
        self.assertDenied(asking, "hook killed by SIGKILL")

    def test_late(self) -> None:
        """
        A hook that takes too long is killed and denies; that it exits 0 later
        is of no more interest.
        """
        asking, process = self.started()
        self.reactor.advance(9.9)
        self.assertNoResult(asking)
        self.assertEqual(process.signals, [])
        self.reactor.advance(0.1)
        self.assertDenied(asking, "denied")
        self.assertEqual(process.signals, ["KILL"])
        self.assertEqual(self.log.lines[0], "ACTION=auth-hook-timeout TIMEOUT=10")
        process.exits(0)
        self.assertEqual(len(self.log.lines), 2)

    def test_heldPipes(self) -> None:
        """
        A hook that has exited is never killed: its id can be another's.
        """
        asking, process = self.started()
        self.reactor.advance(9.9)
        process.exits(0, held={STDOUT})
        self.reactor.advance(0.1)
        self.assertDenied(asking, "denied")
        self.assertEqual(process.signals, [])
        self.reactor.advance(DRAIN_SECONDS)

    def test_unread(self) -> None:
        """
        A hook may leave the question unread.
        """
        asking, process = self.started()
        self.assertIn(STDIN, process.pipes)
        process.exits(0)
        self.assertEqual(self.successResultOf(asking), Allowed())

    def test_notWaitedFor(self) -> None:
        """
        A hook whose answer nobody waits for any more does not go on.
        """
        asking, process = self.started()
        asking.cancel()
        self.failureResultOf(asking, CancelledError)
        self.assertEqual(process.signals, ["KILL"])
        process.exits(signal=signal.SIGKILL)

    def test_sideBySide(self) -> None:
        """
        Questions do not wait for each other's answers.
        """
        first, one = self.started()
        second, two = self.started()
        two.exits(0)
        self.assertEqual(self.successResultOf(second), Allowed())
        one.exits(1)
        self.assertDenied(first, "denied")

    def test_gone(self) -> None:
        """
        A hook that is gone, or is no program any more, denies.
        """
        self.path.chmod(0o644)
        self.assertDenied(self.ask(), "hook not started: Not executable")
        self.path.unlink()
        self.assertDenied(self.ask(), "hook not started: No such file or directory")
        self.assertEqual(self.reactor.processes, [])

    def test_refused(self) -> None:
        """
        A hook that the system does not start denies.
        """
        for number, words in (
            (errno.E2BIG, "Argument list too long"),
            (errno.EAGAIN, "Resource temporarily unavailable"),
            (errno.EMFILE, "Too many open files"),
        ):
            self.reactor.refuse(number)
            self.assertDenied(self.ask(), f"hook not started: {words}")

    def test_unspeakable(self) -> None:
        """
        Who says what no environment can hold is denied.
        """
        for text, problem in (
            ("a\0b", "a variable holds a NUL character"),
            ("\ud800", "a variable is not valid Unicode"),
        ):
            for context in (
                attrs.evolve(RUN, username=text),
                attrs.evolve(RUN, token=text),
                attrs.evolve(RUN, reqid=text),
                attrs.evolve(RUN, args=(text,)),
            ):
                answer = self.successResultOf(self.ask(context))
                self.assertEqual(answer, Denied(f"hook not started: {problem}"))
        self.assertEqual(self.reactor.processes, [])

    def test_token(self) -> None:
        """
        The log never holds a token, nor more than a line's worth of a name.
        """
        _, process = self.started(attrs.evolve(RUN, username="x" * 100_000))
        process.exits(9)
        _, process = self.started()
        self.reactor.advance(10)
        process.exits(signal=signal.SIGKILL)
        self.reactor.refuse(errno.E2BIG)
        self.ask()
        text = "".join(self.log.lines)
        self.assertNotIn("s3cret", text)
        self.assertLess(len(text), 1000)
