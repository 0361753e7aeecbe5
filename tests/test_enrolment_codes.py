# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.agent.enrolment}: the exchange of ours, and the person at
the agent.
"""

from __future__ import annotations

from ctrlexec.agent.enrolment import Declined, NoDecision, Paired, Refused
from ctrlexec.certificates import AgentRole, ca_fingerprint
from ctrlexec.codes import is_committed
from ctrlexec.errors import CtrlExecError, PkiError, TransportError
from ctrlexec.protocol.agreement import Terms
from ctrlexec.protocol.messages import REJECTED
from tests.enrolling import REQID, EnrolmentTestCase, decided, opened, pending
from tests.wired import AGENT, CA, OTHER_CA, credentials


class CodeTests(EnrolmentTestCase):
    """
    Both ends have to say yes.
    """

    terms = Terms()

    def setUp(self) -> None:
        super().setUp()
        self.person.at_once = None

    def test_revealed(self) -> None:
        """
        The agent commits, and shows its nonce to a dispatcher that has shown
        its own.
        """
        self.ask().addErrback(lambda _: None)
        self.assertEqual(len(self.listener.requests), 1)
        self.says(opened())
        asked, revealed = self.listener.requests
        self.assertEqual(revealed["reqid"], REQID)
        self.assertTrue(is_committed(revealed["nonce_a"], asked["commitment"]))
        self.assertEqual(self.person.shown, [])
        self.says(pending())
        (awaited,) = self.person.shown
        self.assertRegex(awaited.code, r"\A[0-9]{3} [0-9]{3}\Z")
        self.assertEqual((awaited.reqid, awaited.legacy), (REQID, False))
        self.leaves()

    def test_answerFirst(self) -> None:
        """
        An answer waits for the approval.
        """
        result = self.ask()
        self.says(opened() + pending())
        self.person.answers[0].callback(True)
        self.assertNoResult(result)
        self.assertNothingStored()
        self.says(decided(self.approval()))
        self.assertIsInstance(self.successResultOf(result), Paired)

    def test_approvalFirst(self) -> None:
        """
        An approval waits for the answer, even when the dispatcher has closed
        the connection by then; until then nothing is stored.
        """
        result = self.ask()
        self.says(opened() + pending())
        self.says(decided(self.approval()))
        self.leaves()
        self.assertNoResult(result)
        self.assertNothingStored()
        self.person.answers[0].callback(True)
        self.assertIsInstance(self.successResultOf(result), Paired)

    def test_no(self) -> None:
        """
        A no ends it at once, and the dispatcher's yes that follows is heard by
        nobody.
        """
        result = self.ask()
        self.says(opened() + pending())
        self.person.answers[0].callback(False)
        self.assertEqual(self.successResultOf(result), Declined(approved=False))
        self.flush()
        self.assertTrue(self.listener.gone)
        self.assertNothingStored()
        line = f'ACTION=pair-denied REASON="declined at the agent" REQID={REQID}'
        self.assertEqual(self.log.taken(), [line])

    def test_noAfterApproval(self) -> None:
        """
        A no stands, whoever else has said yes.
        """
        result = self.ask()
        self.says(opened() + pending())
        self.says(decided(self.approval()))
        self.person.answers[0].callback(False)
        self.assertEqual(self.successResultOf(result), Declined(approved=True))
        self.assertNothingStored()

    def test_noAnswer(self) -> None:
        """
        Who says nothing in time has not said yes.
        """
        result = self.ask(seconds=30)
        self.says(opened() + pending())
        self.says(decided(self.approval()))
        self.reactor.advance(30)
        self.assertEqual(self.successResultOf(result), Declined(approved=True))
        self.assertNothingStored()

    def test_nobody(self) -> None:
        """
        Where neither end has said anything, time is up for both.
        """
        result = self.ask(seconds=30)
        self.says(opened() + pending())
        self.reactor.advance(30)
        self.assertEqual(self.successResultOf(result), NoDecision(30))
        self.assertTrue(self.person.answers[0].called)

    def test_denied(self) -> None:
        """
        A denial takes the question back.
        """
        result = self.ask()
        self.says(opened() + pending())
        self.says(decided(REJECTED))
        refused = Refused("rejected by operator")
        self.assertEqual(self.successResultOf(result), refused)
        self.assertTrue(self.person.answers[0].called)

    def test_leavesUnasked(self) -> None:
        """
        So does a dispatcher that goes away, whatever the person says then.
        """
        result = self.ask()
        self.says(opened() + pending())
        self.leaves()
        self.assertFailed(result, TransportError, "nothing was stored")
        self.assertTrue(self.person.answers[0].called)

    def test_oldExchange(self) -> None:
        """
        A dispatcher that knows only the old exchange is not enough; the agent
        says why, and what would let it pass.
        """
        result = self.ask()
        self.says(pending())
        error = self.assertFailed(result, CtrlExecError, "swap the CA")
        self.assertIn("--legacy", error.hint)
        self.assertEqual(self.person.shown, [])

    def test_anotherCertificate(self) -> None:
        """
        A dispatcher that names another certificate than that of the connection
        never sees the nonce.
        """
        result = self.ask()
        self.says(opened(shown=AGENT))
        error = self.assertFailed(result, PkiError, "another certificate")
        self.assertIn("in between", error.hint)
        self.assertEqual(len(self.listener.requests), 1)

    def test_anotherCa(self) -> None:
        """
        An approval with another CA than the code covers is not stored, even if
        the person says yes.
        """
        result = self.ask()
        self.says(opened() + pending())
        self.person.answers[0].callback(True)
        self.says(decided(self.approval(ca=OTHER_CA.decode())))
        self.assertFailed(result, PkiError, "nothing was stored")


class PinnedTests(EnrolmentTestCase):
    """
    The CA is known before.
    """

    terms = Terms(authority=ca_fingerprint(CA))

    def test_paired(self) -> None:
        """
        A dispatcher of that CA is asked, and nothing more is needed here.
        """
        result = self.ask()
        self.says(opened() + pending())
        self.says(decided(self.approval()))
        self.assertIsInstance(self.successResultOf(result), Paired)


class OtherPinTests(EnrolmentTestCase):
    """
    It is another CA.
    """

    terms = Terms(authority=ca_fingerprint(OTHER_CA))

    def test_silent(self) -> None:
        """
        Not a byte of a request is sent to a dispatcher of another CA.
        """
        result = self.ask()
        self.assertEqual(self.listener.received, b"")
        self.assertFailed(result, PkiError, ca_fingerprint(OTHER_CA))


class AgentAsDispatcherTests(EnrolmentTestCase):
    """
    An agent of the CA plays its dispatcher.
    """

    terms = Terms(authority=ca_fingerprint(CA))
    shows = credentials(AgentRole("agent-two"))

    def test_silent(self) -> None:
        """
        It is told nothing either.
        """
        result = self.ask()
        self.assertEqual(self.listener.received, b"")
        self.assertFailed(result, PkiError, "not a dispatcher's")
