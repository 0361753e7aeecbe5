# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.tls}: credentials as they lie on a disk.
"""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.errors import PkiError
from ctrlexec.tls import (
    Identity,
)
from tests.authority import KEY, OTHER_KEY
from tests.wired import (
    AGENT,
    CA,
    OTHER_CA,
)


class IdentityTests(SynchronousTestCase):
    """
    L{Identity}: what is on the disk.
    """

    def setUp(self) -> None:
        """
        The three files of an agent.
        """
        folder = Path(self.mktemp())
        folder.mkdir()
        self.identity = Identity(
            key=folder / "agent.key", cert=folder / "agent.crt", ca=folder / "ca.crt"
        )
        self.identity.key.touch(mode=0o640)
        self.identity.key.write_bytes(KEY)
        self.identity.cert.write_bytes(AGENT.cert)
        self.identity.ca.write_bytes(CA)

    def assertProblem(self, path: Path, problem: str) -> PkiError:
        """
        The identity can not be loaded; the error names this file and says what
        is wrong with it.
        """
        with self.assertRaises(PkiError) as caught:
            self.identity.load()
        self.assertEqual(str(caught.exception), f"{path}: {problem}")
        error: PkiError = caught.exception
        return error

    def test_load(self) -> None:
        """
        What is there is loaded, and who it is can be read.
        """
        self.assertEqual(self.identity.load(), AGENT)

    def test_missing(self) -> None:
        """
        A file that is missing is named.
        """
        for path in (self.identity.ca, self.identity.cert, self.identity.key):
            path.unlink()
            self.assertProblem(path, "No such file or directory")

    def test_unreadable(self) -> None:
        """
        A file that can not be read is named.
        """
        for path in (self.identity.ca, self.identity.cert, self.identity.key):
            path.unlink()
            path.mkdir()
            self.assertProblem(path, "Is a directory")

    def test_junk(self) -> None:
        """
        A file that holds something else is named.
        """
        self.identity.cert.write_bytes(b"junk")
        self.assertProblem(self.identity.cert, "not a PEM certificate")
        self.identity.ca.write_bytes(b"junk")
        self.assertProblem(self.identity.ca, "not a PEM certificate")
        self.identity.key.write_bytes(b"junk")
        self.assertProblem(self.identity.key, "not a PEM private key")

    def test_otherKey(self) -> None:
        """
        A key that is not the certificate's is refused.
        """
        self.identity.key.write_bytes(OTHER_KEY)
        self.assertProblem(self.identity.cert, "the certificate is for another key")

    def test_otherCa(self) -> None:
        """
        A certificate that the CA beside it did not sign is refused.
        """
        self.identity.ca.write_bytes(OTHER_CA)
        self.assertProblem(
            self.identity.cert, "the certificate was not signed by this CA"
        )

    def test_notACa(self) -> None:
        """
        A host's certificate in the place of the CA's is refused.
        """
        self.identity.ca.write_bytes(AGENT.cert)
        self.assertProblem(self.identity.ca, "the CA certificate is not self-signed")

    def test_openKey(self) -> None:
        """
        A key that everybody on the host can use is refused, with a way out.
        """
        for mode in (0o644, 0o602, 0o666):
            self.identity.key.chmod(mode)
            error = self.assertProblem(
                self.identity.key, "every user of this host has access to this key"
            )
            self.assertIn("chmod o=", error.hint)

    def test_secret(self) -> None:
        """
        The key does not show in the text form of the credentials.
        """
        shown = repr(self.identity.load())
        self.assertIn("agent-one", shown)
        self.assertNotIn("PRIVATE KEY", shown)
