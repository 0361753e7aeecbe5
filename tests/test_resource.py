# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.agent.resource}; runs are in C{test_resource_run}.
"""

from __future__ import annotations

import attrs
from OpenSSL import SSL
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from ctrlexec import __version__
from ctrlexec.agent.trust import TrustedMap
from ctrlexec.interfaces import IEventSink, IScriptRunner
from ctrlexec.protocol.messages import REVOKED
from ctrlexec.protocol.server import Peer
from ctrlexec.values import openssl_time
from tests.agents import (
    HQ,
    NO_MATCH,
    PEER,
    SHOWN,
    SIBLING,
    STRANGER,
    ResourceTestCase,
    visit,
)
from tests.authority import DAY


class AnyRequestTests(ResourceTestCase):
    """
    What holds for each request.
    """

    def test_interfaces(self) -> None:
        """
        The fakes are what they stand for.
        """
        verifyObject(IEventSink, self.log)
        verifyObject(IScriptRunner, self.runner)

    def test_notFound(self) -> None:
        """
        Method and path are matched to the letter.
        """
        for method, path in (
            ("GET", "/"),
            ("GET", "/run"),
            ("GET", "/ping"),
            ("POST", "/capabilities"),
            ("POST", "/run/"),
            ("POST", "/run?x=1"),
            ("POST", "//run"),
            ("POST", "/RUN"),
            ("HEAD", "/capabilities"),
            ("GET", "/renew"),
        ):
            answer = self.answer(method, path, {"script": "hello"})
            self.assertEqual(answer, (404, {"error": "not found"}), path)
        self.assertEqual(self.runner.started, [])

    def test_revoked(self) -> None:
        """
        A revoked certificate gets no further than its handshake, trusted or
        not.
        """
        self.assertIsNone(self.agent.admit(Peer(PEER, HQ), visit()))
        self.evolve(revoked=frozenset({"d1"}))
        self.assertEqual(self.agent.admit(Peer(PEER, HQ), visit()), REVOKED)
        line = f"ACTION=revoked-cert PEER={PEER} SERIAL=d1"
        self.assertEqual(self.log.taken(), [line])

    def test_revokedLater(self) -> None:
        """
        A connection that was open before its certificate was revoked is of no
        more use.
        """
        self.assertEqual(self.answer("POST", "/ping")[0], 200)
        self.evolve(revoked=frozenset({"d1"}))
        self.log.taken()
        for request in (("POST", "/ping"), ("POST", "/run"), ("GET", "/capabilities")):
            answer = self.answer(*request)
            self.assertEqual(answer, (403, {"error": "certificate revoked"}))
        line = f"ACTION=revoked-cert PEER={PEER} SERIAL=d1"
        self.assertEqual(self.log.taken(), [line] * 3)

    def test_expiredLater(self) -> None:
        """
        Nor is one whose certificate has expired meanwhile.
        """
        self.time = HQ.not_after
        self.assertEqual(self.answer("POST", "/ping")[0], 200)
        self.time += DAY
        self.log.taken()
        answer = self.answer("POST", "/run", {"script": "hello"})
        self.assertEqual(answer, (403, {"error": "certificate expired"}))
        self.assertEqual(self.runner.started, [])
        line = f'ACTION=tls-failure PEER={PEER} REASON="certificate expired"'
        self.assertEqual(self.log.taken(), [line])

    def test_noCertificate(self) -> None:
        """
        Without a certificate, nothing: mutual TLS lets nobody in like that,
        but were it so.
        """
        self.assertEqual(self.agent.admit(Peer(PEER, None), visit()), REVOKED)
        self.assertEqual(self.answer("POST", "/ping", certificate=None)[0], 403)

    def test_address(self) -> None:
        """
        Who may connect is asked of the policy, and who may not is logged.
        """
        self.assertTrue(self.agent.admits(PEER))
        settings = attrs.evolve(self.agent.policy.settings, allowed_ips=())
        self.evolve(settings=settings)
        self.assertFalse(self.agent.admits(PEER))
        self.assertEqual(self.log.taken(), [f"ACTION=ip-block PEER={PEER}"])

    def test_handshakeFailed(self) -> None:
        """
        The log has OpenSSL's own words for a handshake that failed, and
        Twisted's for a connection that ended before.
        """
        for value, reason in (
            (SSL.Error([("SSL routines", "", "no shared cipher")]), "no shared cipher"),
            (SSL.Error([("", "", "a"), ("", "", "b")]), "a; b"),
            (SSL.Error([]), "[]"),
            (SSL.SysCallError(-1, "Unexpected EOF"), "(-1, 'Unexpected EOF')"),
            (ConnectionDone(), "Connection was closed cleanly."),
            (ValueError(), "ValueError"),
        ):
            self.in_force.gate.forget()
            self.assertTrue(self.agent.admits(PEER))
            failing = visit()
            self.agent.arrived(failing)
            self.agent.handshake_failed(failing, Failure(value))
            [line] = self.log.taken()
            self.assertEqual(
                line.replace('"', ""),
                f"ACTION=tls-failure PEER={PEER} REASON={reason}",
            )

    def test_failure(self) -> None:
        """
        A fault of ours is a 500 that tells the caller nothing.
        """
        self.evolve(allowlist=None)
        answer = self.answer("POST", "/run", {"script": "hello", "token": "s3cret"})
        self.assertEqual(answer, (500, {"error": "internal error"}))
        self.assertEqual(len(self.flushLoggedErrors(AttributeError)), 1)
        self.assertEqual(self.agent.live, 0)


class PingTests(ResourceTestCase):
    """
    C{POST /ping}
    """

    def test_answered(self) -> None:
        """
        An agent says who it is, and until when.
        """
        self.assertEqual(
            self.answer("POST", "/ping", {"reqid": "r-1"}),
            (
                200,
                {
                    "status": "ok",
                    "host": "agent-one",
                    "version": __version__,
                    "expiry": openssl_time(SHOWN.info.not_after),
                    "staged": False,
                    "reqid": "r-1",
                },
            ),
        )
        line = f"ACTION=ping DISPATCHER=hq PEER={PEER} REQID=r-1"
        self.assertEqual(self.log.taken(), [line])

    def test_staged(self) -> None:
        """
        An agent says whether a renewed certificate waits, as it is then.
        """
        path = self.directory / "waits"
        settings = attrs.evolve(self.agent.policy.settings, cert_staging_path=path)
        self.evolve(settings=settings)
        for there in (False, True):
            if there:
                path.write_text("a certificate")
            _, answer = self.answer("POST", "/ping")
            self.assertIs(answer["staged"], there)

    def test_badBody(self) -> None:
        """
        A body that is no request counts as an empty one.
        """
        bodies: list[object] = [b"", b"{", b"\xff", [], 7, {"reqid": 7}]
        for body in bodies:
            code, answer = self.answer("POST", "/ping", body)
            self.assertEqual((code, answer["reqid"]), (200, ""), body)

    def test_notTrusted(self) -> None:
        """
        Only a trusted dispatcher is answered.
        """
        for certificate in (STRANGER, SIBLING):
            answer = self.answer(
                "POST", "/ping", {"reqid": "r-1"}, certificate=certificate
            )
            self.assertEqual(answer, NO_MATCH)
            line = (
                f"ACTION=serial-reject PEER={PEER} "
                f"PEER_SERIAL={certificate.serial} REQID=r-1"
            )
            self.assertEqual(self.log.taken(), [line])

    def test_nobodyTrusted(self) -> None:
        """
        Without stored dispatchers nobody is.
        """
        self.evolve(trusted=TrustedMap())
        self.assertEqual(self.answer("POST", "/ping"), NO_MATCH)

    def test_longId(self) -> None:
        """
        A caller's id comes back whole, and does not fill the log.
        """
        reqid = "x" * 100_000
        _, answer = self.answer("POST", "/ping", {"reqid": reqid})
        self.assertEqual(answer["reqid"], reqid)
        self.answer("POST", "/ping", {"reqid": reqid}, certificate=STRANGER)
        for line in self.log.taken():
            self.assertLess(len(line), 300)


class CapabilitiesTests(ResourceTestCase):
    """
    C{GET /capabilities}
    """

    def test_answered(self) -> None:
        """
        An agent says what may run, and its tags.
        """
        path = str(self.directory / "bin" / "hello")
        self.assertEqual(
            self.answer("GET", "/capabilities"),
            (
                200,
                {
                    "status": "ok",
                    "host": "agent-one",
                    "version": __version__,
                    "scripts": [
                        {
                            "name": "hello",
                            "path": path,
                            "executable": True,
                            "profile": "default",
                        }
                    ],
                    "tags": {"site": "lab"},
                },
            ),
        )
        line = f"ACTION=capabilities DISPATCHER=hq PEER={PEER} SCRIPTS=1"
        self.assertEqual(self.log.taken(), [line])

    def test_notTrusted(self) -> None:
        """
        A stranger learns nothing; the log says why.
        """
        for certificate, reason in (
            (STRANGER, '"serial mismatch"'),
            (SIBLING, '"an agent\'s certificate"'),
        ):
            answer = self.answer("GET", "/capabilities", certificate=certificate)
            self.assertEqual(answer, (403, {"error": "forbidden"}))
            line = (
                f"ACTION=capabilities-deny PEER={PEER} "
                f"PEER_SERIAL={certificate.serial} REASON={reason}"
            )
            self.assertEqual(self.log.taken(), [line])

    def test_nobodyTrusted(self) -> None:
        """
        Without stored dispatchers it is refused too: the older line answered.
        """
        self.evolve(trusted=TrustedMap())
        answer = self.answer("GET", "/capabilities")
        self.assertEqual(answer, (403, {"error": "forbidden"}))
        self.assertIn('"no trusted dispatchers stored"', self.log.taken()[0])
