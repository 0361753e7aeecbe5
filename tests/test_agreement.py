# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.protocol.agreement} and for what it stands on: who is a
dispatcher of a CA.
"""

from __future__ import annotations

from datetime import datetime

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.certificates import (
    AgentRole,
    DispatcherRole,
    ca_fingerprint,
    check_dispatcher,
)
from ctrlexec.errors import PkiError
from ctrlexec.protocol.agreement import check_authority, check_pinned
from tests.authority import CA, DAY, NOW, OTHER_KEY, data, handmade, issued
from tests.wired import OTHER_CA

DISPATCHER = issued(DispatcherRole("hq"), common_name="ctrl-exec")
ORIGINAL = data("original-ca.crt")


class DispatcherTests(SynchronousTestCase):
    """
    L{check_dispatcher}
    """

    def assertNone(self, cert: bytes, words: str, now: datetime = NOW) -> None:
        """
        It is no dispatcher, and the sentence says why.
        """
        with self.assertRaisesRegex(PkiError, words):
            check_dispatcher(cert=cert, ca=CA, now=now)

    def test_role(self) -> None:
        """
        The role makes a dispatcher.
        """
        info = check_dispatcher(cert=DISPATCHER, ca=CA, now=NOW)
        self.assertEqual(info.role, DispatcherRole("hq"))

    def test_original(self) -> None:
        """
        One of the original has no role but its name, which is enough only where
        something else vouches for it; its agents have other names.
        """
        cert, agent = data("original-dispatcher.crt"), data("original-agent.crt")
        with self.assertRaisesRegex(PkiError, "carries no role"):
            check_dispatcher(cert=cert, ca=ORIGINAL, now=LATER)
        info = check_dispatcher(cert=cert, ca=ORIGINAL, now=LATER, original=True)
        self.assertIsNone(info.role)
        for original in (False, True):
            with self.assertRaisesRegex(PkiError, "not a dispatcher's"):
                check_dispatcher(cert=agent, ca=ORIGINAL, now=LATER, original=original)

    def test_agent(self) -> None:
        """
        An agent is none, whatever name it has.
        """
        for name in ("agent-one", "ctrl-exec", "ctrl-exec-dispatcher"):
            agent = issued(AgentRole(name), common_name=name)
            self.assertNone(agent, "not a dispatcher's")

    def test_otherCa(self) -> None:
        """
        Nor is one of another CA, or of none.
        """
        other = issued(DispatcherRole("hq"), ca=OTHER_CA, ca_key=OTHER_KEY, now=LATER)
        self.assertNone(other, "was not signed by its CA")
        own = handmade("ctrl-exec", uris=("urn:ctrl-exec:dispatcher:hq",))
        self.assertNone(own, "was not signed by its CA")

    def test_date(self) -> None:
        """
        Nor one before or after its time.
        """
        self.assertNone(DISPATCHER, "not in date", NOW + 11 * DAY)
        self.assertNone(DISPATCHER, "not in date", NOW - DAY)


LATER = datetime.now(tz=NOW.tzinfo)


class PinTests(SynchronousTestCase):
    """
    L{check_pinned}
    """

    pin = ca_fingerprint(CA)

    def test_chain(self) -> None:
        """
        The CA is somewhere behind the dispatcher's own certificate.
        """
        check_pinned([DISPATCHER, CA], self.pin, NOW)
        check_pinned([DISPATCHER, OTHER_CA, b"rubbish", CA], self.pin, NOW)

    def test_missing(self) -> None:
        """
        Where it is not shown, as no dispatcher of the original has to, nothing
        is believed.
        """
        chains: tuple[list[bytes], ...] = (
            [],
            [DISPATCHER],
            [DISPATCHER, OTHER_CA],
            [DISPATCHER, b""],
            [CA],
        )
        for chain in chains:
            with self.assertRaisesRegex(PkiError, f"shows no CA .* {self.pin}"):
                check_pinned(chain, self.pin, NOW)

    def test_original(self) -> None:
        """
        A pin is all that such an agent goes by, so a name is not enough.
        """
        chain = [data("original-dispatcher.crt"), ORIGINAL]
        with self.assertRaisesRegex(PkiError, "carries no role"):
            check_pinned(chain, ca_fingerprint(ORIGINAL), LATER)

    def test_notItsOwn(self) -> None:
        """
        That the CA is shown proves nothing.
        """
        other = issued(DispatcherRole("hq"), ca=OTHER_CA, ca_key=OTHER_KEY, now=LATER)
        for cert in (other, issued(AgentRole("agent-one")), CA):
            self.assertRaises(PkiError, check_pinned, [cert, CA], self.pin, NOW)

    @given(st.lists(st.binary()))
    def test_anything(self, chain: list[bytes]) -> None:
        """
        Whatever is shown, it is refused in words.
        """
        self.assertRaises(PkiError, check_pinned, chain, self.pin, NOW)

    def test_authority(self) -> None:
        """
        An empty fingerprint is no pin, and still wants a CA.
        """
        check_authority(OTHER_CA, "")
        self.assertRaises(PkiError, check_authority, DISPATCHER, "")
        self.assertRaises(PkiError, check_authority, OTHER_CA, self.pin)
