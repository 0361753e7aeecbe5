# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.agent.renewal}: C{POST /renew} and C{/renew-complete}, as a
dispatcher asks for them, and what it must not get through.
"""

from __future__ import annotations

import attrs
from OpenSSL import SSL

from ctrlexec.agent import renewal, staging
from ctrlexec.agent.identity import identity
from ctrlexec.agent.renewal import MOST_KEYS
from ctrlexec.certificates import (
    AgentRole,
    DispatcherRole,
    key_digest,
    parse_private_key,
)
from ctrlexec.pki import issue, make_csr, read_csr
from ctrlexec.protocol import codec_trust
from ctrlexec.protocol.messages import RenewOrder
from ctrlexec.values import openssl_time
from tests.agents import (
    NO_MATCH,
    PEER,
    SHOWN,
    SIBLING,
    STRANGER,
)
from tests.authority import CA, DAY, KEY, NOW, OTHER_KEY, issued
from tests.renewing import REQID, RenewalTestCase
from tests.wired import OTHER_CA, certified_by


class BeginTests(RenewalTestCase):
    """
    C{/renew}
    """

    def test_newKey(self) -> None:
        """
        A dispatcher of ours gets a request for a new key; nothing is on disk.
        """
        before = self.files()
        found = read_csr(self.csr())
        self.assertEqual(found.common_name, "agent-one")
        self.assertNotEqual(key_digest(found.public_key), SHOWN.info.key_digest)
        self.assertEqual(self.files(), before)
        line = f"ACTION=renew DISPATCHER=hq PEER={PEER} REQID={REQID}"
        self.assertEqual(self.log.taken(), [f"{line} STATUS=csr-generated"])

    def test_sameKey(self) -> None:
        """
        One of the original gets a request for the key that there is, whatever
        its body looks like.
        """
        for body in ({"reqid": REQID}, {}, b"", b"{", b"[]", {"new_key": "maybe"}):
            found = read_csr(self.csr(body))
            self.assertEqual(key_digest(found.public_key), SHOWN.info.key_digest)

    def test_ownName(self) -> None:
        """
        The request is for the name in the certificate, even if the host is
        called otherwise by now.
        """
        self.evolve(settings=attrs.evolve(self.settings, name="agent-new"))
        self.assertEqual(read_csr(self.csr()).common_name, "agent-one")

    def test_untrusted(self) -> None:
        """
        Neither a stranger nor another agent of the CA renews anything, as any
        of them can in the original.
        """
        cert = self.signed(self.csr())
        self.log.taken()
        before = self.files()
        for certificate in (STRANGER, SIBLING):
            for answer in (
                self.answer("POST", "/renew", {}, certificate=certificate),
                self.complete(cert, certificate=certificate),
            ):
                self.assertEqual(answer, NO_MATCH)
        self.assertEqual(self.files(), before)
        self.assertIs(self.shown.credentials, SHOWN)
        for line in self.log.taken():
            self.assertTrue(line.startswith("ACTION=serial-reject"), line)


class CompleteTests(RenewalTestCase):
    """
    C{/renew-complete}
    """

    def test_installed(self) -> None:
        """
        Key and certificate are put in their places and shown at once; nothing
        waits, and whom the agent trusts stays.
        """
        cert = self.signed(self.csr())
        self.log.taken()
        answer = self.complete(cert)
        self.assertEqual(
            answer, (200, {"status": "ok", "reqid": REQID, "staged": False})
        )
        held = identity(self.settings).load()
        self.assertEqual(held, self.shown.credentials)
        self.assertEqual(held.cert.decode(), cert)
        self.assertNotEqual(held.key, SHOWN.key)
        self.assertFalse(staging.is_staged(self.settings))
        self.assertFalse(self.settings.trusted_dispatchers_path.exists())
        expiry = openssl_time(held.info.not_after)
        [line] = self.log.taken()
        self.assertEqual(
            line,
            f'ACTION=renew-complete DISPATCHER=hq EXPIRY="{expiry}" PEER={PEER} '
            f"REQID={REQID} STATUS=cert-installed",
        )
        _, fields = self.answer("POST", "/ping", {})
        self.assertEqual(fields["expiry"], expiry)

    def test_staged(self) -> None:
        """
        Where the agent can not write its files, what is renewed waits, and is
        shown all the same: by the next start too, until root has promoted it.
        """
        self.unwritable()
        cert = self.signed(self.csr())
        self.assertEqual(self.complete(cert)[1]["staged"], True)
        self.assertEqual(self.settings.cert.read_bytes(), SHOWN.cert)
        self.assertEqual(
            staging.staged_key(self.settings).stat().st_mode & 0o777, 0o600
        )
        self.assertEqual(staging.held(self.settings, NOW), self.shown.credentials)
        self.assertIn("STATUS=cert-staged", self.log.lines[-1])
        self.assertTrue(staging.promote(self.settings, self.log, self.now))
        self.assertEqual(identity(self.settings).load(), self.shown.credentials)
        self.assertFalse(staging.staged_key(self.settings).exists())

    def test_stagedSameKey(self) -> None:
        """
        So does one for the key that there is.
        """
        self.unwritable()
        self.complete(self.signed(self.csr({})))
        self.assertTrue(staging.promote(self.settings, self.log, self.now))
        held = identity(self.settings).load()
        self.assertEqual((held.key, held), (SHOWN.key, self.shown.credentials))

    def test_sameKey(self) -> None:
        """
        A dispatcher of the original renews the certificate and not the key.
        """
        cert = self.signed(self.csr({"reqid": REQID}))
        self.assertEqual(self.complete(cert)[1]["status"], "ok")
        held = identity(self.settings).load()
        self.assertEqual((held.key, held.cert.decode()), (SHOWN.key, cert))

    def test_round(self) -> None:
        """
        What stands round a certificate is not kept: it could be anything.
        """
        cert = self.signed(self.csr())
        self.assertEqual(self.complete(f"Höllo\n{cert}")[1]["status"], "ok")
        self.assertEqual(self.settings.cert.read_text(), cert)

    def test_twice(self) -> None:
        """
        Two dispatchers that renew at once both get through.
        """
        first, second = self.csr(), self.csr()
        self.assertEqual(self.complete(self.signed(first))[1]["status"], "ok")
        cert = self.signed(second)
        self.assertEqual(self.complete(cert)[1]["status"], "ok")
        self.assertEqual(identity(self.settings).load().cert.decode(), cert)

    def test_fewKeys(self) -> None:
        """
        Keys that nobody has come back for give way.
        """
        first = self.csr()
        for _ in range(MOST_KEYS):
            self.csr()
        error = "renewed cert public key does not match the agent key"
        self.assertEqual(self.complete(self.signed(first))[1]["error"], error)


class RefusedTests(RenewalTestCase):
    """
    What is refused, in the words of the original
    """

    def assertRefused(self, cert: object, error: str) -> None:
        """
        The answer is an error with status 200, it is logged, and neither what
        is on disk nor what is shown has changed.
        """
        before = self.files()
        self.log.taken()
        code, fields = self.complete(cert)
        self.assertEqual((code, fields["status"]), (200, "error"), cert)
        self.assertIn(error, fields["error"])
        self.assertEqual(self.files(), before)
        self.assertIs(self.shown.credentials, SHOWN)
        [line] = self.log.taken()
        self.assertTrue(line.startswith("ACTION=renew-complete DISPATCHER=hq ERROR="))
        self.assertNotIn("PRIVATE", line)

    def test_none(self) -> None:
        """
        Without a certificate there is nothing to look at.
        """
        for cert in ("", None, 7, ["x"]):
            self.assertRefused(cert, "cert required")
        for body in (b"", b"{", b"[]", {"cert": "x", "reqid": 7}):
            _, fields = self.answer("POST", "/renew-complete", body)
            self.assertEqual(fields["error"], "cert required")

    def test_chain(self) -> None:
        """
        The CA that the agent has must have signed it, whatever CA is sent along.
        """
        forged = certified_by(SHOWN.cert, SHOWN.key, "agent-one", is_ca=False)
        foreign = issue(
            read_csr(make_csr(KEY, "agent-one")),
            ca_cert=OTHER_CA,
            ca_key=OTHER_KEY,
            role=AgentRole("agent-one"),
            common_name="agent-one",
            days=1,
            now=NOW,
        )
        for cert in (
            "x",
            SHOWN.key.decode(),
            SHOWN.cert.decode() * 2,
            CA.decode().replace("M", "N"),
            forged.decode(),
            foreign.decode(),
        ):
            self.assertRefused(
                cert, "renewed cert does not verify against the agent CA"
            )

    def test_key(self) -> None:
        """
        It must be for a key of the agent's.
        """
        cert = self.signed(make_csr(OTHER_KEY, "agent-one"))
        self.assertRefused(cert, "renewed cert public key does not match the agent key")

    def test_name(self) -> None:
        """
        It must not make another of the agent, least of all a dispatcher.
        """
        for role in (
            AgentRole("agent-two"),
            AgentRole("Agent-One"),
            DispatcherRole("hq"),
            DispatcherRole("agent-one"),
        ):
            cert = self.signed(self.csr(), role)
            self.assertRefused(cert, "the certificate is not for 'agent-one'")

    def test_date(self) -> None:
        """
        It must be in date, or nobody could reach the agent any more.
        """
        cert = issued(AgentRole("agent-one"), days=20).decode()
        for days, words in ((-5, "not valid before"), (30, "expired")):
            self.time = NOW + days * DAY
            self.assertRefused(cert, words)

    def test_unwritten(self) -> None:
        """
        What can not be put anywhere is not shown either.
        """
        self.unwritable()
        cert = self.signed(self.csr())
        self.settings.cert_staging_path.mkdir(parents=True)
        self.assertRefused(cert, "could not stage cert: ")

    def test_pairedAnew(self) -> None:
        """
        An agent that was paired with somebody else since it was started keeps
        what that pairing has brought.
        """
        cert = self.signed(self.csr())
        self.settings.ca.write_bytes(OTHER_CA)
        self.assertRefused(cert, "another CA by now")
        self.settings.ca.unlink()
        self.assertRefused(cert, "there is no such file any more")
        self.settings.ca.write_bytes(CA)
        self.settings.cert.write_bytes(issued(AgentRole("agent-two")))
        self.assertRefused(cert, "not for 'agent-one'")

    def test_weak(self) -> None:
        """
        What OpenSSL would not show is not taken.
        """
        cert = self.signed(self.csr())

        def refuse(credentials: object) -> object:
            raise SSL.Error([("", "", "ee key too small")])

        self.patch(renewal, "mutual_server", refuse)
        self.assertRefused(cert, "too weak")


class CodecTests(RenewalTestCase):
    """
    L{codec_trust}
    """

    def test_secret(self) -> None:
        """
        Nothing shows the keys that wait.
        """
        self.csr()
        (key,) = self.agent.renewals._keys
        parse_private_key(key)
        self.assertNotIn("PRIVATE", repr(self.agent.renewals))

    def test_order(self) -> None:
        """
        What is sent is what is read.
        """
        order = RenewOrder("cert", "ca", REQID)
        body = codec_trust.encode_renew_order(order)
        self.assertEqual(codec_trust.decode_renew_order(body), order)
