# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.agent.renewal} and L{ctrlexec.agent.staging}: when an agent
asks for its renewal, and what waits to be put in its place.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ctrlexec.agent import identity as identity_module
from ctrlexec.agent import staging
from ctrlexec.agent.identity import identity
from ctrlexec.pki import make_csr
from tests.agents import SHOWN
from tests.authority import DAY, NOW, OTHER_KEY
from tests.renewing import RenewalTestCase


class DueTests(RenewalTestCase):
    """
    An agent asks for its renewal itself.
    """

    def told(self) -> tuple[object, object]:
        """
        What it says when it is pinged, and asked what it offers.
        """
        asked: tuple[tuple[Any, ...], ...] = (
            ("POST", "/ping", {}),
            ("GET", "/capabilities"),
        )
        ping, offer = (self.answer(*each)[1].get("renewal_due") for each in asked)
        return ping, offer

    def test_due(self) -> None:
        """
        It does so when less than half of its certificate's life is left, and
        a peer of the original sees no new field before.
        """
        self.assertEqual(self.told(), (None, None))
        self.time = NOW + 5 * DAY
        self.assertEqual(self.told(), (True, True))

    def test_renewed(self) -> None:
        """
        Not any more once it is renewed.
        """
        self.time = NOW + 6 * DAY
        self.complete(self.signed(self.csr(), days=30))
        self.assertEqual(self.told(), (None, None))

    def test_waiting(self) -> None:
        """
        And again when what waits for a restart is past its half, too: nobody
        need restart an agent for years.
        """
        self.unwritable()
        self.complete(self.signed(self.csr(), days=20))
        self.time = NOW + 15 * DAY
        self.assertTrue(staging.is_staged(self.settings))
        self.assertEqual(self.told(), (True, True))


class StagedTests(RenewalTestCase):
    """
    L{staging.held}
    """

    def setUp(self) -> None:
        super().setUp()
        self.unwritable()
        self.complete(self.signed(self.csr()))
        self.renewed = self.shown.credentials

    def test_key(self) -> None:
        """
        A certificate without its key is not used, and root removes it.
        """
        staging.staged_key(self.settings).write_bytes(OTHER_KEY)
        self.assertEqual(staging.held(self.settings, NOW), SHOWN)
        staging.staged_key(self.settings).unlink()
        self.assertEqual(staging.held(self.settings, NOW), SHOWN)
        self.assertFalse(staging.promote(self.settings, self.log, self.now))
        self.assertFalse(staging.is_staged(self.settings))

    def test_crash(self) -> None:
        """
        A promotion that broke off is finished by the next.
        """
        blocked = self.settings.cert.with_name("blocked")
        self.settings.cert.rename(blocked)
        self.settings.cert.symlink_to(blocked)
        saved = identity(self.settings)
        self.assertEqual(saved.load(), SHOWN)
        _fail_once(self, identity_module, "remove")
        self.assertRaises(OSError, staging.promote, self.settings, self.log, self.now)
        staging.promote(self.settings, self.log, self.now)
        self.assertEqual(saved.load(), self.renewed)

    def test_older(self) -> None:
        """
        What waits is of no use any more once something better is in its place.
        """
        cert = self.signed(make_csr(OTHER_KEY, "agent-one"), days=90)
        self.settings.key.write_bytes(OTHER_KEY)
        self.settings.cert.write_text(cert)
        self.assertEqual(staging.held(self.settings, NOW).cert.decode(), cert)

    def test_late(self) -> None:
        """
        Nor once it has expired.
        """
        self.assertEqual(staging.held(self.settings, NOW + 50 * DAY), SHOWN)


def _fail_once(case: RenewalTestCase, module: Any, name: str) -> None:
    real = getattr(module, name)
    calls: list[Path] = []

    def failing(path: Path) -> Any:
        calls.append(path)
        if len(calls) == 1:
            raise OSError(28, "No space left on device")
        return real(path)

    case.patch(module, name, failing)
