# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.authority}.
"""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.dispatcher.authority import Authority
from ctrlexec.errors import Conflict, PkiError, StoreError
from ctrlexec.pki import (
    AgentRole,
    DispatcherRole,
    check_issued,
    make_csr,
    read_certificate,
    read_csr,
)
from tests.authority import DATA, DAY, KEY, NOW
from tests.dispatching import settings_in

SOON = NOW + timedelta(minutes=1)


class AuthorityTestCase(SynchronousTestCase):
    """
    A dispatcher with nothing on its disk.
    """

    def setUp(self) -> None:
        """
        Its settings.
        """
        self.settings = settings_in(Path(self.mktemp()))
        self.authority = Authority(self.settings)

    def modes(self) -> dict[str, int]:
        """
        The files that there are, and who may use them.
        """
        return {
            path.name: path.stat().st_mode & 0o777
            for path in sorted(self.settings.ca_dir.iterdir())
        }

    def contents(self) -> dict[str, bytes]:
        """
        The files that there are, and what is in them.
        """
        return {path.name: path.read_bytes() for path in self.settings.ca_dir.iterdir()}


class CreateCaTests(AuthorityTestCase):
    """
    The CA.
    """

    def test_files(self) -> None:
        """
        Key, certificate and serial are there, the key for its owner alone.
        """
        self.authority.create_ca(NOW)
        self.assertEqual(
            self.modes(), {"ca.crt": 0o644, "ca.key": 0o600, "ca.serial": 0o640}
        )

    def test_serialFile(self) -> None:
        """
        An original dispatcher counts on from a number that meets no other:
        upper-case hex of 128 random bits.
        """
        self.authority.create_ca(NOW)
        self.assertRegex(
            self.settings.ca_serial.read_text(), r"\A[1-9A-F][0-9A-F]{31}\n\Z"
        )

    def test_neverOverwritten(self) -> None:
        """
        Where there is a CA, or half of one, everything stays as it is.
        """
        self.authority.create_ca(NOW)
        for missing in ((), ("ca.key",), ("ca.serial",)):
            for name in missing:
                (self.settings.ca_dir / name).unlink()
            before = self.contents()
            self.assertRaises(Conflict, self.authority.create_ca, NOW)
            self.assertEqual(self.contents(), before)

    def test_keyAlone(self) -> None:
        """
        A crash can leave a key alone, which a person must judge.
        """
        self.authority.create_ca(NOW)
        self.settings.ca.unlink()
        before = self.contents()
        error = self.assertRaises(Conflict, self.authority.create_ca, NOW)
        self.assertIn("ca.key", str(error))
        self.assertIn("restore", error.hint)
        self.assertEqual(self.contents(), before)

    def test_nothingHalfDone(self) -> None:
        """
        When the certificate can not be written, the key is not left there.
        """
        settings = settings_in(Path(self.mktemp()), ca=Path("/proc/no/ca.crt"))
        self.assertRaises(StoreError, Authority(settings).create_ca, NOW)
        self.assertFalse(settings.ca_key.exists())


class CreateIdentityTests(AuthorityTestCase):
    """
    The dispatcher's own certificate.
    """

    def test_noCa(self) -> None:
        """
        Without a CA there is none, and the hint says how to get one.
        """
        error = self.assertRaises(Conflict, self.authority.create_identity, NOW)
        self.assertIn("setup-ca", error.hint)
        self.assertFalse(self.authority.has_identity())

    def test_usable(self) -> None:
        """
        It is signed by the CA, for the dispatcher's role.
        """
        self.authority.create_ca(NOW)
        self.authority.create_identity(NOW)
        info = check_issued(
            cert=self.settings.cert.read_bytes(),
            ca=self.settings.ca.read_bytes(),
            key=self.settings.key.read_bytes(),
            now=SOON,
        )
        self.assertEqual(info.role, DispatcherRole("hq"))
        self.assertEqual(info.common_name, "ctrl-exec")
        self.assertEqual(info, self.authority.dispatcher())
        self.assertEqual(info.serial, self.authority.dispatcher_serial())
        self.assertEqual(self.modes()["ctrl-exec.key"], 0o600)
        self.assertEqual(self.modes()["ctrl-exec.crt"], 0o644)

    def test_replacedOnDemandOnly(self) -> None:
        """
        An identity is replaced by who says so, and by nobody else.
        """
        self.authority.create_ca(NOW)
        first = self.authority.create_identity(NOW)
        before = self.contents()
        self.assertRaises(Conflict, self.authority.create_identity, NOW)
        self.assertEqual(self.contents(), before)
        second = self.authority.create_identity(NOW, replace=True)
        self.assertNotEqual(first.serial, second.serial)
        self.assertNotEqual(first.key_digest, second.key_digest)

    def test_nothingHalfDone(self) -> None:
        """
        When the certificate can not be written, the old key is put back.
        """
        self.authority.create_ca(NOW)
        self.authority.create_identity(NOW)
        key = self.settings.key.read_bytes()
        self.settings.cert.unlink()
        self.settings.cert.mkdir()
        with self.assertRaises(StoreError):
            self.authority.create_identity(NOW, replace=True)
        self.assertEqual(self.settings.key.read_bytes(), key)

    def test_nothingLeft(self) -> None:
        """
        Likewise no key is left where there was none.
        """
        self.authority.create_ca(NOW)
        self.settings.cert.mkdir()
        with self.assertRaises(StoreError):
            self.authority.create_identity(NOW, replace=True)
        self.assertFalse(self.settings.key.exists())

    def test_idOfTheCertificate(self) -> None:
        """
        Agents are told the id that they will be shown, even if the setting has
        changed since.
        """
        self.authority.create_ca(NOW)
        self.authority.create_identity(NOW)
        renamed = settings_in(self.settings.directory, dispatcher_id="other")
        self.assertEqual(Authority(renamed).dispatcher_id(), "hq")


class IssueAgentTests(AuthorityTestCase):
    """
    Certificates of agents.
    """

    csr = read_csr(make_csr(KEY, "another-name"))

    def test_role(self) -> None:
        """
        The certificate is for the name that was approved, and no dispatcher's.
        """
        self.authority.create_ca(NOW)
        cert = self.authority.issue_agent(self.csr, "agent-one", NOW)
        info = check_issued(
            cert=cert, ca=self.authority.ca_certificate(), key=KEY, now=SOON
        )
        self.assertEqual(info.role, AgentRole("agent-one"))
        self.assertEqual(info.common_name, "agent-one")
        self.assertEqual(info.not_after, NOW + 825 * DAY)

    def test_openKey(self) -> None:
        """
        A CA whose key everybody can read signs nothing.
        """
        self.authority.create_ca(NOW)
        self.settings.ca_key.chmod(0o604)
        error = self.assertRaises(
            PkiError, self.authority.issue_agent, self.csr, "agent-one", NOW
        )
        self.assertIn("chmod 600", error.hint)

    def test_lostSerialFile(self) -> None:
        """
        A missing serial file is made anew, never left empty: an original
        dispatcher could not count on from that.
        """
        self.authority.create_ca(NOW)
        self.settings.ca_serial.unlink()
        self.authority.issue_agent(self.csr, "agent-one", NOW)
        self.assertRegex(self.settings.ca_serial.read_text(), r"\A[0-9A-F]{32}\n\Z")


class OriginalTests(AuthorityTestCase):
    """
    What the original has made.
    """

    def setUp(self) -> None:
        """
        Its CA and its identity.
        """
        super().setUp()
        ours = self.settings
        ours.ca_dir.mkdir(parents=True)
        for name, path in (
            ("original-ca.key", ours.ca_key),
            ("original-ca.crt", ours.ca),
            ("original-dispatcher.key", ours.key),
            ("original-dispatcher.crt", ours.cert),
        ):
            shutil.copyfile(DATA / name, path)
            path.chmod(0o600)
        ours.ca_serial.write_text("07\n")

    def test_signs(self) -> None:
        """
        Its CA signs for us, and its counter stays where it was.
        """
        csr = read_csr(make_csr(KEY, "agent-one"))
        now = read_certificate(self.settings.ca.read_bytes()).not_before + DAY
        cert = self.authority.issue_agent(csr, "agent-one", now)
        info = check_issued(
            cert=cert, ca=self.settings.ca.read_bytes(), key=KEY, now=now
        )
        self.assertEqual(info.role, AgentRole("agent-one"))
        self.assertEqual(self.settings.ca_serial.read_text(), "07\n")

    def test_identity(self) -> None:
        """
        Its identity carries no role, so agents are told the id of the settings.
        """
        self.assertIsNone(self.authority.dispatcher().role)
        self.assertEqual(self.authority.dispatcher_id(), "hq")

    def test_staysAsItIs(self) -> None:
        """
        Setting up again touches none of it.
        """
        before = self.contents()
        self.assertRaises(Conflict, self.authority.create_ca, NOW)
        self.assertRaises(Conflict, self.authority.create_identity, NOW)
        self.assertEqual(self.contents(), before)
