# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.agent.enrolment} and L{ctrlexec.agent.applicant}.
"""

from __future__ import annotations

import json

from twisted.internet.error import (
    ConnectionRefusedError,
    DNSLookupError,
    TimeoutError,
)
from twisted.python.failure import Failure
from twisted.test.iosim import ConnectionCompleter

from ctrlexec import pki
from ctrlexec.agent.applicant import ANSWER_SECONDS
from ctrlexec.agent.enrolment import (
    NoDecision,
    Paired,
    Refused,
)
from ctrlexec.agent.identity import identity
from ctrlexec.errors import CtrlExecError, PkiError, StoreError, TransportError
from ctrlexec.protocol import codec_pairing
from ctrlexec.protocol.messages import (
    REJECTED,
    PairFailed,
)
from tests.authority import OTHER_KEY
from tests.enrolling import REQID, EnrolmentTestCase, decided, http, pending
from tests.wired import OTHER_CA


class DecidedTests(EnrolmentTestCase):
    """
    A person decides, or nobody does.
    """

    def test_asked(self) -> None:
        """
        The request holds what the dispatcher needs to know, the agent's own
        address included; its code is the one of the CSR.
        """
        self.ask().addErrback(lambda _: None)
        self.assertTrue(self.listener.received.startswith(b"POST /pair HTTP/1.0\r\n"))
        request = self.listener.request
        self.assertEqual(
            {name: request[name] for name in ("hostname", "port")},
            {"hostname": "agent-one", "port": 7999},
        )
        self.assertEqual(len(request["nonce"]), 32)
        self.assertNotIn("lookup_by", request)
        code = pki.confirmation_code(request["csr"].encode())
        self.assertEqual(self.person.shown, [])
        self.says(pending())
        self.assertEqual([each.code for each in self.person.shown], [code])
        self.leaves()

    def test_approved(self) -> None:
        """
        An approval is stored, and becomes an identity.
        """
        result = self.ask()
        self.says(pending())
        self.assertEqual([each.reqid for each in self.person.shown], [REQID])
        self.assertNoResult(result)
        self.assertNothingStored()
        self.reactor.advance(599)
        self.says(decided(self.approval()))
        paired = self.successResultOf(result)
        assert isinstance(paired, Paired)
        self.assertEqual(paired.dispatcher, "hq")
        loaded = identity(self.settings).load()
        self.assertEqual(loaded.info, paired.certificate)
        self.assertEqual(loaded.key, self.application.key)
        line = (
            "ACTION=pair-complete DISPATCHER=hq "
            "DISPATCHER_HOST=hq.example.net STATUS=stored"
        )
        self.assertEqual(self.log.taken(), [line])
        self.assertTrue(self.listener.gone)

    def test_inPieces(self) -> None:
        """
        Nor does it matter in which pieces the answers arrive.
        """
        result = self.ask()
        for byte in pending() + decided(self.approval(dispatcher_id="")):
            self.says(bytes([byte]))
        paired = self.successResultOf(result)
        assert isinstance(paired, Paired)
        self.assertEqual(paired.dispatcher, "d1")

    def test_atOnce(self) -> None:
        """
        Or in one.
        """
        result = self.ask()
        self.says(pending() + decided(self.approval()) + b"more")
        self.assertIsInstance(self.successResultOf(result), Paired)

    def test_denied(self) -> None:
        """
        A denial is an outcome; nothing is stored.
        """
        result = self.ask()
        self.says(pending())
        self.says(decided(REJECTED))
        refused = Refused("rejected by operator")
        self.assertEqual(self.successResultOf(result), refused)
        line = f'ACTION=pair-denied REASON="rejected by operator" REQID={REQID}'
        self.assertEqual(self.log.taken(), [line])
        self.assertNothingStored()

    def test_nobodyDecided(self) -> None:
        """
        After its time the agent goes, and an approval that is too late changes
        nothing.
        """
        result = self.ask(seconds=30)
        self.says(pending())
        self.reactor.advance(29.9)
        self.assertNoResult(result)
        self.reactor.advance(0.1)
        self.assertEqual(self.successResultOf(result), NoDecision(30))
        self.assertEqual(self.log.taken(), [f"ACTION=pair-timeout REQID={REQID}"])
        self.says(decided(self.approval()))
        self.assertTrue(self.listener.gone)
        self.assertNothingStored()

    def test_cancelled(self) -> None:
        """
        Who is stopped leaves at once, without a word.
        """
        result = self.ask()
        self.says(pending())
        result.cancel()
        self.flush()
        self.failureResultOf(result)
        self.assertTrue(self.listener.gone)
        self.assertNothingStored()


class RefusedTests(EnrolmentTestCase):
    """
    What is no pairing, and what is no approval.
    """

    def test_notTaken(self) -> None:
        """
        The listener's own reasons, with what to do about them where that is
        known.
        """
        result = self.ask()
        self.says(
            http(codec_pairing.encode_pair_first(PairFailed("pairing queue full")))
        )
        error = self.assertFailed(result, CtrlExecError, "pairing queue full")
        self.assertIn("approve or deny", error.hint)

    def test_wrongNonce(self) -> None:
        """
        An approval of somebody else, or an old one.
        """
        result = self.ask()
        self.says(pending())
        self.says(decided(self.approval(nonce="0" * 32)))
        self.assertFailed(
            result, TransportError, "nonce mismatch", "nothing was stored"
        )

    def test_wrongIdentity(self) -> None:
        """
        An approval that does not belong together.
        """
        result = self.ask()
        self.says(pending())
        self.says(decided(self.approval(ca=OTHER_CA.decode())))
        self.assertFailed(result, PkiError, "not signed", "nothing was stored")

    def test_otherKey(self) -> None:
        """
        A certificate for another key than ours.
        """
        result = self.ask()
        self.says(pending())
        other = pki.make_csr(OTHER_KEY, "agent-one").decode()
        csr = self.listener.request["csr"]
        self.listener.received = self.listener.received.replace(
            json.dumps(csr).encode(), json.dumps(other).encode()
        )
        self.says(decided(self.approval()))
        self.assertFailed(result, PkiError, "another key")

    def test_decidedFirst(self) -> None:
        """
        An approval that no request's id came before is none.
        """
        result = self.ask()
        self.says(decided(self.approval()))
        self.assertFailed(result, TransportError, "makes no sense")

    def test_badId(self) -> None:
        """
        Nobody has vouched for the dispatcher yet: an id that would do harm in a
        terminal or in a shell is never shown.
        """
        result = self.ask()
        self.says(pending("x; rm -rf /\n  code  123456\x1b[2J"))
        error = self.assertFailed(result, TransportError, "makes no sense")
        self.assertTrue(str(error).isprintable())
        self.assertEqual(self.person.shown, [])

    def test_badIdThenApproved(self) -> None:
        """
        And what follows it in the same breath is not looked at.
        """
        result = self.ask()
        self.says(pending("a b") + decided(self.approval()))
        self.assertFailed(result, TransportError, "makes no sense")

    def test_rubbish(self) -> None:
        """
        What no listener sends.
        """
        for said in (
            b"\0" * 40 + b"\r\n",
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n[]",
            b"HTTP/1.0 200 OK\r\nContent-Length: 99999999\r\n\r\n",
            b"HTTP/1.0 200 OK\r\n" + b"X: y\r\n" * 40,
            b"HTTP/1.0 200 " + b"x" * 70_000,
            http(b"{}"),
            pending() + http(b'{"status":"approved"}'),
            pending() + http(b'{"status":"perhaps"}'),
            pending() + pending(),
        ):
            self.setUp()
            result = self.ask()
            self.says(said)
            self.assertFailed(result, CtrlExecError)

    def test_notStored(self) -> None:
        """
        That an identity could not be stored is an error, with a way out.
        """
        result = self.ask()
        self.says(pending())
        (self.directory / "agent.crt").mkdir()
        self.says(decided(self.approval()))
        error = self.failureResultOf(result, StoreError).value
        self.assertIn("pairing-status", error.hint)
        [line] = self.log.taken()
        self.assertIn("ACTION=pair-fail", line)


class LostTests(EnrolmentTestCase):
    """
    The dispatcher is not there, or goes away.
    """

    def refused(self, why: Exception) -> CtrlExecError:
        """
        The connection is not made, for this reason.
        """
        result = self.ask(connect=False)
        ConnectionCompleter(self.reactor).failOnce(Failure(why))
        return self.assertFailed(result, TransportError)

    def test_notListening(self) -> None:
        """
        Where nothing listens, the operator is told what to start.
        """
        error = self.refused(ConnectionRefusedError())
        self.assertIn("nothing listens at hq.example.net, port 7444", str(error))
        self.assertIn("pairing-mode", error.hint)

    def test_unreachable(self) -> None:
        """
        No answer at all, or no such name.
        """
        self.assertIn("within 10s", str(self.refused(TimeoutError())))
        self.assertIn("did not resolve", str(self.refused(DNSLookupError())))

    def test_closedAtOnce(self) -> None:
        """
        A port that is open, but takes no request.
        """
        result = self.ask()
        self.leaves()
        self.assertFailed(result, TransportError, "no pairing listener answers")

    def test_silent(self) -> None:
        """
        A port that is open, and says nothing: that is found out long before
        the time of a decision is over.
        """
        result = self.ask()
        self.reactor.advance(ANSWER_SECONDS)
        self.assertFailed(result, TransportError, "no pairing listener answers")

    def test_half(self) -> None:
        """
        A dispatcher that dies anywhere in its second answer leaves the agent
        as it was.
        """
        for length in (0, 1, 20, -800, -1):
            self.setUp()
            result = self.ask()
            self.says(pending())
            self.says(decided(self.approval())[:length])
            self.leaves()
            error = self.assertFailed(result, TransportError, "closed the connection")
            self.assertIn("request-pairing again", error.hint)


class PlainTests(EnrolmentTestCase):
    """
    The port is one that speaks no TLS.
    """

    tls = False

    def test_speaks(self) -> None:
        """
        It says something else.
        """
        result = self.ask()
        self.says(b"SSH-2.0-OpenSSH_9.2\r\n")
        self.assertFailed(result, TransportError, "no pairing listener answers")

    def test_silent(self) -> None:
        """
        It says nothing.
        """
        result = self.ask()
        self.reactor.advance(ANSWER_SECONDS)
        self.assertFailed(result, TransportError, "no pairing listener answers")
