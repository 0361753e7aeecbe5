# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.console}.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.dispatcher.background import PID_FILE
from ctrlexec.dispatcher.console import Console, PairingMode
from ctrlexec.dispatcher.pairing import PairingListener
from ctrlexec.dispatcher.pairing_gate import PairingGate
from ctrlexec.dispatcher.records import AgentRecord
from ctrlexec.dispatcher.reverse_dns import ReverseName
from ctrlexec.dispatcher.service import compose
from ctrlexec.dispatcher.surroundings import Ending, World
from ctrlexec.protocol.messages import REJECTED, PairApproved
from ctrlexec.rates import RateLimits
from ctrlexec.tls import Identity
from tests.authority import NOW
from tests.dispatching import (
    REQID,
    Recorder,
    at_once,
    protected,
    request,
    settings_in,
    trust_in,
)

OTHER = "00c0ffee00c0ffee"


class ConsoleTests(SynchronousTestCase):
    """
    What the operator sees, and what the keys do.
    """

    def setUp(self) -> None:
        """
        A dispatcher, set up, and its operator.
        """
        self.trust = trust_in(settings_in(Path(self.mktemp())), Recorder())
        self.trust.setup_ca()
        self.trust.setup_identity()
        self.shown: list[str] = []
        self.left = 0
        self.console = Console(self.trust, at_once, self.shown.append, self.leave)

    def leave(self) -> None:
        """
        The operator has had enough.
        """
        self.left += 1

    def arrives(self, reqid: str = REQID, **others: Any) -> None:
        """
        An agent asks to be paired.
        """
        asked = protected(self.trust.authority, reqid, **others)
        self.trust.queue.add(asked)
        self.console.arrived(asked)

    def types(self, line: str) -> str:
        """
        @return: what the operator sees after typing this.
        """
        self.shown.clear()
        self.successResultOf(Deferred.fromCoroutine(self.console.obey(line)))
        return "".join(self.shown)

    def test_arrival(self) -> None:
        """
        A person sees all that there is to judge by.
        """
        self.arrives(
            ip="198.51.100.7", reverse_dns="agent-one.example", reverse_confirmed=True
        )
        self.assertEqual(
            "".join(self.shown),
            "[1] agent-one asks to be paired\n"
            f"    request  {REQID}\n"
            "    from     192.0.2.1 (agent-one.example, which resolves back)\n"
            "    reports  198.51.100.7\n"
            f"    code     {protected(self.trust.authority).code}  "
            "(the agent must show the same)\n",
        )

    def test_legacy(self) -> None:
        """
        A request of the original's exchange says what its code does not
        protect; no key approves it, but the word does.
        """
        self.trust.queue.add(request())
        self.console.arrived(request())
        self.assertIn("LEGACY   this code covers", "".join(self.shown))
        for key in ("a", "a1"):
            self.assertIn("type legacy with its number", self.types(key))
        self.assertIsNone(self.trust.queue.decision(REQID))
        self.assertIn("[1] approved agent-one", self.types("legacy"))
        self.assertIsInstance(self.trust.queue.decision(REQID), PairApproved)

    def test_refusedIsNotDecided(self) -> None:
        """
        A request that a key did not approve leaves as a surprise all the same.
        """
        self.trust.queue.add(request())
        self.console.arrived(request())
        self.types("a")
        self.console.departed(request(), Ending.WITHDRAWN)
        self.arrives(OTHER)
        self.assertIn("which one?", self.types("a"))

    def test_abandoned(self) -> None:
        """
        Somebody who may have guessed at a code is seen.
        """
        self.console.abandoned("192.0.2.66")
        (line,) = self.shown
        self.assertIn("somebody at 192.0.2.66 began to ask", line)

    def test_sameName(self) -> None:
        """
        That an agent would take another's place is said.
        """
        self.trust.registry.put(AgentRecord("agent-one"))
        self.arrives()
        self.assertIn("is registered already", "".join(self.shown))

    def test_departure(self) -> None:
        """
        How a request ends is said, under its number.
        """
        for ending in Ending:
            self.arrives()
            self.shown.clear()
            self.console.departed(request(), ending)
            (line,) = self.shown
            self.assertRegex(line, r"\A\[[1-9]\] agent-one .*\n\Z")
            self.trust.queue.remove(REQID)

    def test_approve(self) -> None:
        """
        C{a} approves the one that waits.
        """
        self.arrives()
        self.assertIn("[1] approved agent-one", self.types("a"))
        self.assertIsInstance(self.trust.queue.decision(REQID), PairApproved)
        self.assertTrue(self.trust.is_registered("agent-one"))

    def test_denyByNumber(self) -> None:
        """
        C{d2} denies the second, and the first waits on.
        """
        self.arrives()
        self.arrives(OTHER)
        self.assertIn("[2] denied agent-one", self.types("d2"))
        self.assertEqual(self.trust.queue.decision(OTHER), REJECTED)
        self.assertIsNone(self.trust.queue.decision(REQID))

    def test_ambiguous(self) -> None:
        """
        A key that could mean two means none.
        """
        self.arrives()
        self.arrives(OTHER)
        self.assertIn("which one?", self.types("a"))
        self.assertEqual(len(self.trust.requests()), 2)

    def test_skip(self) -> None:
        """
        What is skipped waits on.
        """
        self.arrives()
        self.assertIn("[1] waits on", self.types("s"))
        self.assertEqual(len(self.trust.requests()), 1)
        self.assertIn("which one?", self.types("a"))

    def test_list(self) -> None:
        """
        What waits can be seen again.
        """
        self.assertEqual(self.types("list"), "nobody waits\n")
        self.arrives()
        self.assertIn("[1] agent-one asks to be paired", self.types("list"))

    def test_failure(self) -> None:
        """
        What can not be done is said, and the session goes on.
        """
        self.arrives()
        self.trust.queue.remove(REQID)
        shown = self.types("a")
        self.assertIn(f"error: no pairing request {REQID} is waiting\n", shown)
        self.assertIn("hint: ", shown)

    def test_unclear(self) -> None:
        """
        What is no command is answered with those that are.
        """
        self.assertIn("quit", self.types("\x1b[2Jhelp"))
        self.assertNotIn("\x1b", "".join(self.shown))
        self.assertEqual(self.types(""), "")

    def test_quit(self) -> None:
        """
        C{quit} leaves.
        """
        self.types("quit")
        self.assertEqual(self.left, 1)


class Machine(MemoryReactorClock):
    """
    A reactor in memory, whose signals a test sends.
    """

    def __init__(self) -> None:
        super().__init__()
        self.before_shutdown: list[Callable[[], Any]] = []

    def addSystemEventTrigger(  # type: ignore[override]
        self, phase: str, event: str, call: Callable[..., Any], *args: Any
    ) -> Callable[[], Any]:
        """
        Remember it.
        """
        trigger = partial(call, *args)
        self.before_shutdown.append(trigger)
        return trigger

    def removeSystemEventTrigger(self, triggerID: Any) -> None:
        """
        Forget it.
        """
        self.before_shutdown.remove(triggerID)


class PairingModeTests(SynchronousTestCase):
    """
    A session at the pairing port.
    """

    def setUp(self) -> None:
        """
        A session whose operator types into a pipe.
        """
        self.settings = settings_in(Path(self.mktemp()), pairing_bind="127.0.0.1")
        self.log, self.reactor = Recorder(), Machine()
        self.trust = trust_in(self.settings, self.log)
        self.trust.setup_ca()
        self.trust.setup_identity()
        self.log.events.clear()
        self.stdin, self.keyboard = os.pipe()
        self.addCleanup(os.close, self.stdin)
        self.shown: list[str] = []

    def begin(self, **others: Any) -> Deferred[None]:
        """
        Open the session.
        """
        self.mode = PairingMode(
            reactor=self.reactor,
            settings=self.settings,
            trust=self.trust,
            write=self.shown.append,
            stdin=self.stdin,
            **{"attended": True, **others},
        )
        console = Console(self.trust, at_once, self.shown.append, self.mode.leave)
        ours = self.settings
        listener = PairingListener(
            World(self.reactor, lambda: NOW, at_once, lambda _: succeed(ReverseName())),
            self.trust.queue,
            self.log,
            Identity(ours.key, ours.cert, ours.ca).load(),
            console,
        )
        gate = PairingGate(ours, self.log, RateLimits(self.log, self.reactor.seconds))
        service = compose(self.reactor, ours, listener, gate)
        return Deferred.fromCoroutine(self.mode.serve(service, console))

    def types(self, text: bytes, *, last: bool = False) -> None:
        """
        The operator types, and maybe never again.
        """
        os.write(self.keyboard, text)
        if last:
            os.close(self.keyboard)
        (reader,) = self.reactor.getReaders()
        reader.doRead()

    def ends_input(self) -> None:
        """
        The operator's end is closed.
        """
        os.close(self.keyboard)
        (reader,) = self.reactor.getReaders()
        reader.doRead()

    def assertOver(self, session: Deferred[None]) -> None:
        """
        The session has ended, and nothing of it is left.
        """
        self.successResultOf(session)
        self.assertFalse((self.settings.state_dir / PID_FILE).exists())
        self.assertEqual(self.reactor.getReaders(), [])
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertEqual(self.log.actions[-1], "pairing-mode-stop")

    def test_open(self) -> None:
        """
        While it is open, its process can be found, and the operator is told.
        """
        session = self.begin()
        self.assertNoResult(session)
        pid = (self.settings.state_dir / PID_FILE).read_text()
        self.assertEqual(pid, f"{os.getpid()}\n")
        self.assertIn("is open", self.shown[0])
        self.ends_input()

    def test_quit(self) -> None:
        """
        C{quit} ends it.
        """
        session = self.begin()
        self.types(b"list\nqu")
        self.assertNoResult(session)
        self.types(b"it\n", last=True)
        self.assertOver(session)
        self.assertEqual(self.reactor.before_shutdown, [])

    def test_endOfTerminal(self) -> None:
        """
        So does the end of a terminal.
        """
        session = self.begin()
        self.ends_input()
        self.assertOver(session)

    def test_endOfOtherInput(self) -> None:
        """
        The end of what is no terminal does not: nobody sits there anyway.
        """
        session = self.begin(attended=False)
        self.ends_input()
        self.assertNoResult(session)
        self.assertEqual(self.reactor.getReaders(), [])
        self.mode.leave()
        self.assertOver(session)

    def test_timeout(self) -> None:
        """
        When time is up the port closes, and that is an event of its own.
        """
        session = self.begin(timeout_seconds=60)
        self.reactor.advance(59)
        self.assertNoResult(session)
        self.reactor.advance(1)
        self.ends_input_quietly()
        self.assertOver(session)
        self.assertEqual(
            self.log.actions[-2:], ["pairing-mode-timeout", "pairing-mode-stop"]
        )

    def ends_input_quietly(self) -> None:
        """
        The operator's end is closed, and nobody reads any more.
        """
        os.close(self.keyboard)

    def test_signal(self) -> None:
        """
        A signal waits until all is tidied up.
        """
        session = self.begin()
        (interrupt,) = self.reactor.before_shutdown
        self.successResultOf(interrupt())
        self.ends_input_quietly()
        self.assertOver(session)
