# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.agent.policy}.
"""

from __future__ import annotations

from ipaddress import IPv4Address, ip_address, ip_network
from pathlib import Path

import attrs
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.agent.allowlist import Allowlist, NotPermitted, Permitted
from ctrlexec.agent.policy import Overrides, Policy, load_policy
from ctrlexec.agent.runs import RunLimits
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
                ScriptInfo("ant", str(directory / "ant"), False, "default"),
                ScriptInfo("bee", str(directory / "bee"), False, "default"),
                ScriptInfo("zebra", str(directory / "zebra"), True, "default"),
            ),
        )

    def test_exposed(self) -> None:
        """
        A script that anybody may write does not run and is not offered: that is
        said when the files are read, and found out again at each request.
        """
        file = agent_directory(self.directory)
        path = self.directory / "bin" / "hello"
        path.chmod(0o777)
        policy, warnings = load_policy(file, Overrides())
        reason = f"{path} is world-writable"
        self.assertEqual(
            [str(each) for each in warnings],
            [f"{self.directory}/scripts.conf: hello does not run: {reason}"],
        )
        path.chmod(0o755)
        self.assertEqual(len(policy.scripts()), 1)
        path.parent.chmod(0o777)
        refused = NotPermitted(f"the directory {path.parent} is world-writable")
        self.assertEqual((policy.decide("hello"), policy.scripts()), (refused, ()))

    def test_annotations(self) -> None:
        """
        What the line of a script says of it comes with the permission, and its
        profile is offered. A line with something else on it permits nothing;
        when the files are read again it may be mended.
        """
        file = agent_directory(self.directory)
        allowlist = self.directory / "scripts.conf"
        line = allowlist.read_text().rstrip()
        allowlist.write_text(f"{line} timout=5\n")
        policy, warnings = load_policy(file, Overrides())
        self.assertEqual(policy.decide("hello"), NotPermitted("not in the allowlist"))
        self.assertEqual(policy.scripts(), ())
        self.assertIn("scripts.conf:1: skipped: invalid annotation", str(warnings[0]))
        allowlist.write_text(f"{line} timeout=5 nproc=9 profile=web\n")
        policy, warnings = load_policy(file, Overrides())
        decision = policy.decide("hello")
        assert isinstance(decision, Permitted)
        self.assertEqual(decision.script.timeout, 5)
        self.assertEqual(decision.script.limits, RunLimits(nproc=9))
        self.assertEqual([info.profile for info in policy.scripts()], ["web"])
        self.assertEqual(warnings, ())

    def test_notOffered(self) -> None:
        """
        What may not start is not offered.
        """
        self.assertEqual(self.policy("script_dirs = /opt/none\n").scripts(), ())


class SchemaTests(PolicyTestCase):
    """
    Schemas beside scripts.
    """

    def with_sidecar(self, text: str, conf: str = "") -> Policy:
        """
        The policy of an agent with a sidecar beside C{hello}.
        """
        file = agent_directory(self.directory, conf=conf)
        (self.directory / "bin" / "hello.schema.json").write_text(text)
        policy, warnings = load_policy(file, Overrides())
        self.assertEqual(
            len(warnings), int(isinstance(policy.decide("hello"), NotPermitted))
        )
        return policy

    def test_shown(self) -> None:
        """
        A schema is offered with its script, whether it is enforced or not.
        """
        for conf in ("", "enforce_schema = no\n"):
            self.directory = Path(self.mktemp()).absolute()
            policy = self.with_sidecar('{"version": "1", "argv": ["-a"]}', conf)
            [info] = policy.scripts()
            self.assertEqual(info.schema, {"version": "1", "argv": ["-a"]})
            self.assertEqual(info.schema_version, "1")
            self.assertEqual(list(policy.remarks()), [])

    def test_enforced(self) -> None:
        """
        Arguments must fit, unless that is not wanted.
        """
        policy = self.with_sidecar('{"argv": ["-a"]}')
        self.assertIsNone(policy.why_unfit("hello", ["-a"]))
        reason = "argument '-a' is missing"
        self.assertEqual(policy.why_unfit("hello", []), reason)
        self.assertIsNone(policy.why_unfit("other", ["x"]))
        settings = attrs.evolve(policy.settings, enforce_schema=False)
        policy = attrs.evolve(policy, settings=settings)
        self.assertIsNone(policy.why_unfit("hello", []))

    def test_unusable(self) -> None:
        """
        A schema that can not be used disables its script, not its check; where
        none is enforced it is only said.
        """
        line = 'ACTION=schema-skip REASON="it is not JSON that can be read"'
        policy = self.with_sidecar("{")
        self.assertEqual(policy.scripts(), ())
        self.assertIsInstance(policy.decide("hello"), NotPermitted)
        [event] = policy.remarks()
        self.assertEqual(event.line(), f"{line} SCRIPT=hello")
        settings = attrs.evolve(policy.settings, enforce_schema=False)
        policy = attrs.evolve(policy, settings=settings)
        self.assertIsInstance(policy.decide("hello"), Permitted)
        self.assertEqual(len(list(policy.remarks())), 1)

    def test_version(self) -> None:
        """
        A version that is none is said.
        """
        [event] = self.with_sidecar('{"version": 1}').remarks()
        expected = "ACTION=schema-version-derive REASON="
        self.assertTrue(event.line().startswith(expected))

    def test_formats(self) -> None:
        """
        So are formats that nobody here knows, however many; the script runs.
        """
        text = '{"arguments": {"properties": {"n": {"type": "integer", %s}}}}'
        policy = self.with_sidecar(text % '"format": "int32", "not": {"format": "x,y"}')
        [event] = policy.remarks()
        expected = "ACTION=schema-format FORMATS=int32,x%2Cy SCRIPT=hello"
        self.assertEqual(event.line(), expected)
        self.assertIsInstance(policy.decide("hello"), Permitted)
        many = ",".join(f'{{"format": "unknown-{number}"}}' for number in range(900))
        self.directory = Path(self.mktemp()).absolute()
        [event] = self.with_sidecar(text % f'"anyOf": [{many}]').remarks()
        self.assertLess(len(event.line()), 250)


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
        A hook that can not be executed is never passed over.
        """
        for hook, obstacle in (
            ("/no/such/hook", "No such file or directory"),
            ("/etc", "Is a directory"),
            ("/etc/passwd", "Not executable"),
            ("/dev/null", "Not a regular file"),
        ):
            self.directory = Path(self.mktemp()).absolute()
            error = self.assertRaises(
                SettingsError, self.policy, f"auth_hook = {hook}\n"
            )
            self.assertEqual(error.key, "auth_hook")
            self.assertIn(f"{hook} can not be asked: {obstacle}", str(error))

    def test_exposedHook(self) -> None:
        """
        A hook that anybody may change is not asked.
        """
        hook = Path(self.mktemp()).absolute()
        hook.write_text("#!/bin/sh\nexit 1\n")
        hook.chmod(0o777)
        error = self.assertRaises(SettingsError, self.policy, f"auth_hook = {hook}\n")
        self.assertEqual(error.key, "auth_hook")

    def test_goodHook(self) -> None:
        """
        A hook that can be executed is asked from now on.
        """
        policy = self.policy("auth_hook = /bin/true\n")
        self.assertEqual(policy.settings.auth_hook, Path("/bin/true"))

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
