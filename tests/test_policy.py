# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.agent.policy}.
"""

from __future__ import annotations

from ipaddress import IPv4Address, ip_address, ip_network
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.agent.allowlist import Allowlist, NotPermitted, Permitted
from ctrlexec.agent.policy import Overrides, Policy, load_policy
from ctrlexec.agent.settings import AgentSettings, Network
from ctrlexec.agent.trust import TrustedMap
from ctrlexec.errors import CtrlExecError, SettingsError, StoreError
from ctrlexec.protocol.messages import ScriptInfo
from tests.agents import SCRIPT, agent_directory


class PolicyTestCase(SynchronousTestCase):
    """
    What tests of policies need.
    """

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()

    def policy(self, conf: str = "", **scripts: str) -> Policy:
        """
        The policy of an agent with these settings and scripts.
        """
        file = agent_directory(self.directory, conf=conf, scripts=scripts or None)
        return load_policy(file, Overrides())[0]


class DecideTests(PolicyTestCase):
    """
    L{Policy.decide} and L{Policy.scripts}
    """

    def test_permitted(self) -> None:
        """
        What is in the allowlist may run; a name that is none may not.
        """
        policy = self.policy()
        self.assertIsInstance(policy.decide("hello"), Permitted)
        for name in ("", "bye", "HELLO", "hello ", "../hello", "hello\n", "/bin/sh"):
            refused = NotPermitted("not in the allowlist")
            self.assertEqual(policy.decide(name), refused, name)

    def test_scriptDirs(self) -> None:
        """
        Where C{script_dirs} is set, a link out of it is no way out, not even
        one that was made after the settings were read.
        """
        policy = self.policy(f"script_dirs = {self.directory}/bin\n")
        self.assertIsInstance(policy.decide("hello"), Permitted)
        path = self.directory / "bin" / "hello"
        path.unlink()
        path.symlink_to("/bin/sh")
        self.assertIsInstance(policy.decide("hello"), NotPermitted)

    def test_scripts(self) -> None:
        """
        What an agent offers: by name, and whether it could be started now.
        """
        policy = self.policy(zebra=SCRIPT, ant="", bee=SCRIPT)
        directory = self.directory / "bin"
        (directory / "bee").chmod(0o644)
        self.assertEqual(
            policy.scripts(),
            (
                ScriptInfo("ant", str(directory / "ant"), False),
                ScriptInfo("bee", str(directory / "bee"), False),
                ScriptInfo("zebra", str(directory / "zebra"), True),
            ),
        )

    def test_notOffered(self) -> None:
        """
        What may not start is not offered.
        """
        self.assertEqual(self.policy("script_dirs = /opt/none\n").scripts(), ())


class AdmitsTests(PolicyTestCase):
    """
    L{Policy.admits}
    """

    def test_anybody(self) -> None:
        """
        Without C{allowed_ips} anybody may connect.
        """
        self.assertTrue(self.policy().admits("203.0.113.9"))

    def test_listed(self) -> None:
        """
        With it, only who is listed; an IPv4 address is one on a socket of both
        families too, and what is no address is nobody.
        """
        policy = self.policy("allowed_ips = 192.0.2.7, 10.0.0.0/9, fe80::/10\n")
        good = ("192.0.2.7", "10.127.0.1", "::ffff:192.0.2.7", "fe80::1", "fe80::1%e0")
        bad = ("192.0.2.8", "10.128.0.1", "::ffff:192.0.2.8", "2001:db8::1", "", "x")
        for address in good:
            self.assertTrue(policy.admits(address), address)
        for address in bad:
            self.assertFalse(policy.admits(address), address)

    @given(st.ip_addresses(v=4), st.integers(0, 32))
    def test_prefixes(self, address: IPv4Address, bits: int) -> None:
        """
        Any prefix works as the standard library reads it.
        """
        network: Network = ip_network(f"10.20.30.40/{bits}", strict=False)
        settings = AgentSettings(
            directory=Path("/"), name="agent-one", allowed_ips=(network,)
        )
        policy = Policy(settings, Allowlist(), TrustedMap(), frozenset())
        expected = ip_address(address) in network
        self.assertEqual(policy.admits(str(address)), expected)


class LoadTests(PolicyTestCase):
    """
    L{load_policy}
    """

    def test_overrides(self) -> None:
        """
        The command line stands over the file.
        """
        other = self.directory / "other.conf"
        file = agent_directory(self.directory)
        other.write_text("bye = /bin/bye\n")
        policy, _ = load_policy(file, Overrides(port=9, allowlist=other))
        self.assertEqual(policy.settings.port, 9)
        self.assertEqual(list(policy.allowlist.scripts), ["bye"])

    def test_warnings(self) -> None:
        """
        What is skipped in any of the files is said.
        """
        file = agent_directory(self.directory, conf="prot = 1\n", scripts={"a": ""})
        (self.directory / "scripts.conf").write_text("bad\n")
        warnings = [str(each) for each in load_policy(file, Overrides())[1]]
        self.assertEqual(len(warnings), 2)
        self.assertIn("agent.conf:5", warnings[0])
        self.assertIn("scripts.conf:1", warnings[1])

    def test_hook(self) -> None:
        """
        A hook that can not be asked yet is never passed over.
        """
        error = self.assertRaises(SettingsError, self.policy, "auth_hook = /bin/true\n")
        self.assertEqual(error.key, "auth_hook")

    def refused(self, name: str, text: str | None) -> CtrlExecError:
        """
        Why there is no policy when one of the files holds this; C{None} makes
        a directory of it.
        """
        conf = "revoked_serials = revoked\n"
        file = agent_directory(Path(self.mktemp()).absolute(), conf=conf)
        path = file.parent / name
        path.parent.mkdir(exist_ok=True)
        if text is None:
            path.unlink(missing_ok=True)
            path.mkdir()
        else:
            path.write_text(text)
        error: CtrlExecError = self.assertRaises(
            CtrlExecError, load_policy, file, Overrides()
        )
        return error

    def test_bad(self) -> None:
        """
        One file that can not be used is enough to have no policy at all.
        """
        self.assertIsInstance(self.refused("agent.conf", "port\n"), SettingsError)
        self.assertIsInstance(self.refused("agent.conf", None), SettingsError)
        self.assertIsInstance(self.refused("scripts.conf", None), SettingsError)
        self.assertIsInstance(self.refused("revoked", "my laptop\n"), SettingsError)
        self.assertIsInstance(self.refused("revoked", None), StoreError)
        trusted = "state/ctrl-exec-dispatchers"
        self.assertIsInstance(self.refused(trusted, None), StoreError)
