# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of what speaks to agents for as long as the API runs:
L{ctrlexec.api.agents}.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.api.agents import KeptAgents
from ctrlexec.errors import PkiError
from ctrlexec.pki import DispatcherRole
from tests.authority import DAY, KEY, OTHER_KEY, issued
from tests.dispatching import settings_in
from tests.wired import CA, TODAY


class KeptAgentsTests(SynchronousTestCase):
    """
    L{KeptAgents}
    """

    def setUp(self) -> None:
        self.settings = settings_in(Path(self.mktemp()).absolute())
        self.settings.ca_dir.mkdir(parents=True)
        self.put(self.settings.key, KEY)
        self.settings.key.chmod(0o600)
        self.put(self.settings.ca, CA)
        self.put(self.settings.cert, self.certificate())
        self.now = TODAY
        self.reactor = MemoryReactorClock()
        self.kept = KeptAgents(self.settings, lambda: self.now)

    def put(self, path: Path, content: bytes) -> None:
        """
        Write a file as everybody should: whole.
        """
        fresh = path.with_suffix(".new")
        fresh.write_bytes(content)
        fresh.replace(path)

    def certificate(self) -> bytes:
        """
        A certificate of the dispatcher's, for two days.
        """
        return issued(DispatcherRole("hq"), days=2, ca=CA, now=TODAY)

    def test_kept(self) -> None:
        """
        What speaks to agents is made once, and keeps its connections.
        """
        first = self.kept(self.reactor)
        self.assertIs(self.kept(self.reactor), first)
        self.assertIsNotNone(first.pool)

    def test_renewed(self) -> None:
        """
        With other credentials it is made anew, and the connections of the old
        ones are not used any more.
        """
        first = self.kept(self.reactor)
        self.put(self.settings.cert, self.certificate())
        second = self.kept(self.reactor)
        self.assertIsNot(second, first)
        self.assertIsNot(second.pool, first.pool)
        self.assertIs(self.kept(self.reactor), second)

    def test_touched(self) -> None:
        """
        A file that is written to, rather than replaced, is another one, too.
        """
        first = self.kept(self.reactor)
        with self.settings.ca.open("ab") as file:
            file.write(b"\n")
        self.assertIsNot(self.kept(self.reactor), first)

    def test_mixed(self) -> None:
        """
        A key that does not go with its certificate is refused, until it does.
        """
        first = self.kept(self.reactor)
        self.put(self.settings.key, OTHER_KEY)
        self.settings.key.chmod(0o600)
        self.assertRaises(PkiError, self.kept, self.reactor)
        self.put(self.settings.key, KEY)
        self.settings.key.chmod(0o600)
        self.assertIsNot(self.kept(self.reactor), first)

    def test_gone(self) -> None:
        """
        A key that is gone is not used from memory.
        """
        self.kept(self.reactor)
        self.settings.key.unlink()
        self.assertRaises(PkiError, self.kept, self.reactor)

    def test_ended(self) -> None:
        """
        A certificate that ends while the API runs is said to have ended.
        """
        self.kept(self.reactor)
        self.now = TODAY + 2 * DAY - timedelta(hours=1)
        self.kept(self.reactor)
        self.now = TODAY + 2 * DAY
        with self.assertRaises(PkiError) as caught:
            self.kept(self.reactor)
        self.assertIn("ended on", str(caught.exception))

    def test_close(self) -> None:
        """
        What is closed can be used again.
        """
        self.kept.close()
        first = self.kept(self.reactor)
        self.kept.close()
        self.assertIsNot(self.kept(self.reactor), first)
