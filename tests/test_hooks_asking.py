# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.hooks.AuthHook}, on a reactor that starts nothing.
"""

from __future__ import annotations

import errno
import signal
from pathlib import Path

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from ctrlexec.hooks import (
    Allowed,
    AuthHook,
    Denied,
    HookContext,
    Verdict,
)
from ctrlexec.interfaces import IAuthoriser
from ctrlexec.process import own_session
from tests.agents import FakeAuthoriser, Recorded
from tests.fakes import STDERR, STDIN, STDOUT, FakeProcess, FakeProcessReactor
from tests.test_hooks import RUN


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
        self.assertEqual(process.pipes, {})
        self.assertEqual(process.nowhere, {STDOUT, STDERR})
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
        A hook has answered once it has exited, whoever holds its stdin; and is
        never killed then: its id can be another's.
        """
        asking, process = self.started()
        self.reactor.advance(9.9)
        process.exits(0, held={STDIN})
        self.assertEqual(self.successResultOf(asking), Allowed())
        self.assertEqual((process.signals, process.pipes), ([], {}))

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

    def test_exposed(self) -> None:
        """
        A hook that anybody can change by now is not asked; the caller does not
        learn where.
        """
        denied = "hook not started: Anybody may change it"
        self.path.chmod(0o757)
        self.assertDenied(self.ask(), denied)
        self.path.chmod(0o755)
        self.path.parent.chmod(0o777)
        self.addCleanup(self.path.parent.chmod, 0o755)
        self.assertDenied(self.ask(), denied)
        self.assertEqual(self.reactor.processes, [])

    def test_tooLong(self) -> None:
        """
        Nobody is asked half a question: what is too long for a variable is
        denied, and the reason says which and how long it is.
        """
        hosts = tuple(f"host-{number}.example.net" for number in range(10_000))
        for changes, words in (
            ({"hosts": hosts}, "ENVEXEC_HOSTS has 218904 bytes"),
            ({"args": ("x",) * 70_000}, "ENVEXEC_ARGS has 140013 bytes"),
            ({"args": ("\n" * 65_536,)}, "ENVEXEC_ARGS_JSON has 131095 bytes"),
            ({"token": "x" * 200_000}, "ENVEXEC_TOKEN has 200015 bytes"),
        ):
            reason = f"{words} of at most 131072"
            asked = attrs.evolve(RUN, **changes)
            self.assertDenied(
                self.ask(asked), f"too much for the environment of the hook: {reason}"
            )
        self.assertEqual(self.reactor.processes, [])

    def test_listsOnStdin(self) -> None:
        """
        A hook that reads stdin can have hosts and arguments there alone. They
        are then never in its environment, few as they may be.
        """
        self.hook = attrs.evolve(self.hook, lists_on_stdin=True)
        for hosts in (("one",), ("x" * 20,) * 10_000):
            context = attrs.evolve(RUN, hosts=hosts)
            asking, process = self.started(context)
            process.reads_stdin()
            self.assertEqual(process.stdin, context.stdin())
            assert isinstance(process.env, dict)
            missing = RUN.environment().keys() - process.env.keys()
            self.assertEqual(
                missing, {"ENVEXEC_HOSTS", "ENVEXEC_ARGS", "ENVEXEC_ARGS_JSON"}
            )
            process.exits(0)
            self.assertEqual(self.successResultOf(asking), Allowed())

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
