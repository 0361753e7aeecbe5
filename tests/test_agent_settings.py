# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.agent.settings}.
"""

from __future__ import annotations

import contextlib
from ipaddress import ip_network
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.agent.settings import DEFAULT_FILE, AgentSettings, name_from_host
from ctrlexec.errors import InvalidValue, SettingsError
from ctrlexec.rates import Rate
from ctrlexec.settings import SettingsWarning, read_settings

# As an installation of the original has it.
ORIGINAL = """\
# ctrl-exec agent
port = 7443
cert = /etc/ctrl-exec-agent/agent.crt
key  = /etc/ctrl-exec-agent/agent.key
ca   = /etc/ctrl-exec-agent/ca.crt
revoked_serials = /etc/ctrl-exec-agent/revoked-serials
script_dirs = /opt/ctrl-exec-scripts:/usr/local/lib/scripts
allowed_ips = 10.0.0.0/8, 192.0.2.7
rate_limit_volume = 12/60/300
executor_socket = /run/ctrl-exec-agent/exec.sock

[tags]
env = prod
role = db

[profile default]
run_as = nobody
"""


def read(text: str) -> tuple[AgentSettings, tuple[SettingsWarning, ...]]:
    return read_settings(
        AgentSettings, text, file="agent.conf", base=DEFAULT_FILE.parent
    )


class AgentSettingsTests(SynchronousTestCase):
    """
    L{AgentSettings}
    """

    def refused(self, line: str) -> str:
        """
        The message on a bad line, and a check that it names the line.
        """
        with self.assertRaises(SettingsError) as caught:
            read(line)
        where = f"agent.conf:1: {line.partition('=')[0].strip()}: "
        message = str(caught.exception)
        self.assertEqual(message[: len(where)], where)
        return message.removeprefix(where)

    def test_defaults(self) -> None:
        """
        An empty file is a whole configuration, with every file where an
        installation of the original has it.
        """
        settings, warnings = read("name = web-1")
        etc, var = Path("/etc/ctrl-exec-agent"), Path("/var/lib/ctrl-exec-agent")
        self.assertEqual(
            settings,
            AgentSettings(
                directory=etc,
                name="web-1",
                port=7443,
                bind="",
                key=etc / "agent.key",
                cert=etc / "agent.crt",
                ca=etc / "ca.crt",
                state_dir=var,
                trusted_dispatchers_path=var / "ctrl-exec-dispatchers",
                dispatcher_serial_path=etc / "ctrl-exec-serial",
                revoked_serials=etc / "revoked-serials",
                allowlist=etc / "scripts.conf",
                script_dirs=None,
                stdin_timeout=10,
                max_output=8_388_608,
                async_runs_dir=var / "runs",
                run_store_size=2**30,
                run_grace=10,
                pairing_port=7444,
                log="auto",
                allowed_ips=None,
                rate_limit_volume=Rate(10, 60, 300),
                rate_limit_probe=Rate(3, 600, 3600),
                rate_limit_disable=False,
                rate_limit_trusted=False,
                max_connections=256,
                max_runs=64,
                auth_hook=None,
                auth_hook_timeout=10,
                tags={},
            ),
        )
        self.assertEqual(warnings, ())

    def test_original(self) -> None:
        """
        A file of the original is taken over, and what of it we do not use is
        said.
        """
        settings, warnings = read(ORIGINAL)
        self.assertEqual(
            settings.script_dirs,
            (Path("/opt/ctrl-exec-scripts"), Path("/usr/local/lib/scripts")),
        )
        self.assertEqual(settings.tags, {"env": "prod", "role": "db"})
        self.assertEqual(settings.rate_limit_volume, Rate(12, 60, 300))
        self.assertEqual(
            [str(warning) for warning in warnings],
            [
                f"agent.conf:{line}: {what} is not used by this implementation"
                for line, what in (
                    (10, "key 'executor_socket'"),
                    (16, "section 'profile default'"),
                )
            ],
        )

    def test_stateDirectory(self) -> None:
        """
        The trusted map and the runs move with the state directory, so an agent
        can live in any directory, without root.
        """
        settings, _ = read_settings(
            AgentSettings, "state_dir = state", file="a", base=Path("/home/me/agent")
        )
        self.assertEqual(
            settings.trusted_dispatchers_path,
            Path("/home/me/agent/state/ctrl-exec-dispatchers"),
        )
        self.assertEqual(settings.async_runs_dir, Path("/home/me/agent/state/runs"))
        self.assertEqual(settings.allowlist, Path("/home/me/agent/scripts.conf"))

    def test_name(self) -> None:
        """
        A name that is a path, empty or too long is none.
        """
        for name in ("../etc", "", "-x", "a b", "a" * 254):
            self.assertIn("a letter or digit, then", self.refused(f"name = {name}"))

    def test_nameFromHost(self) -> None:
        """
        A host whose own name can not be an agent's is told how to give one.
        """
        self.assertEqual(name_from_host("web-1.example.net"), "web-1.example.net")
        error = self.assertRaises(InvalidValue, name_from_host, "web_1:eth0")
        self.assertIn("invalid name of this host 'web_1:eth0'", str(error))
        self.assertIn("give a name with 'name = …'", str(error))

    def test_refused(self) -> None:
        """
        Each key says what it expects.
        """
        expected = {
            "port = 65536": "a number from 0 to 65535",
            "bind = localhost": "an IPv4 or IPv6 address, or nothing for all",
            "pairing_port = 0": "a number from 1 to 65535",
            "stdin_timeout = 0": "a number of seconds above 0 and up to 3600",
            "auth_hook_timeout = ten": "a number of seconds above 0",
            "max_output = 2G": "a number of bytes up to 1G",
            "async_runs_dir =": "a path, not nothing",
            "run_store_size = 0": "a number of bytes up to 1024G",
            "run_grace = 2h": "a number of seconds above 0 and up to 3600",
            "log = agent.log": "auto, stderr, syslog, or a path that starts with /",
            "auth_hook =": "a path, not nothing",
            "max_connections = 0": "a number from 1 to 65536",
            "max_runs = many": "a number from 1 to 65536",
            "rate_limit_disable = perhaps": "yes or no",
        }
        for line, words in expected.items():
            self.assertIn(f"expected {words}", self.refused(line))

    def test_scriptDirs(self) -> None:
        """
        Directories are separated by colons or commas; an entry that is not
        absolute is refused by name, since without it the rest would mean
        something else. So is an empty list: it would mean everywhere.
        """
        settings, _ = read("script_dirs = /opt/a:/opt/b, /opt/c")
        self.assertEqual(
            settings.script_dirs, (Path("/opt/a"), Path("/opt/b"), Path("/opt/c"))
        )
        self.assertIn("start with /", self.refused("script_dirs = /opt/a:scripts"))
        self.assertIn("not 'scripts'", self.refused("script_dirs = /opt/a:scripts"))
        self.assertIn("not ':'", self.refused("script_dirs = :"))
        self.assertIn("not nothing", self.refused("script_dirs ="))

    def test_rates(self) -> None:
        """
        A rate is three numbers; none of them is nothing, and none so big that
        what is kept of it has no bound.
        """
        settings, _ = read("rate_limit_probe = 5 / 10/ 86400")
        self.assertEqual(settings.rate_limit_probe, Rate(5, 10, 86_400))
        for rate in (
            *("", "10", "10/60", "10/60/300/1", "0/60/300", "10/0/300", "10/60/0"),
            *("1001/60/300", "10/86401/300", "10/60/604801", "-1/60/300", "1_0/60/300"),
            *("a/b/c", "10/6.5/300", "٣/60/300"),
        ):
            message = self.refused(f"rate_limit_volume = {rate}")
            self.assertIn("expected COUNT/SECONDS/BLOCK", message)

    def test_allowedIps(self) -> None:
        """
        Any prefix of either family counts; host bits after it do not.
        """
        settings, warnings = read("allowed_ips = 10.1.2.3/12, ::1,192.0.2.7")
        self.assertEqual(
            settings.allowed_ips,
            tuple(map(ip_network, ("10.0.0.0/12", "::1/128", "192.0.2.7/32"))),
        )
        self.assertEqual(warnings, ())

    def test_allowedIpsPartlyBad(self) -> None:
        """
        A bad entry is skipped with a warning that shows it.
        """
        settings, warnings = read("allowed_ips = 10.0.0.0/33, 192.0.2.7, host")
        self.assertEqual(settings.allowed_ips, (ip_network("192.0.2.7/32"),))
        self.assertEqual(
            [str(warning) for warning in warnings],
            [
                f"agent.conf:1: allowed_ips: {entry} is no address or prefix; skipped"
                for entry in ("'10.0.0.0/33'", "'host'")
            ],
        )

    def test_allowedIpsAllBad(self) -> None:
        """
        A list with nothing good in it is refused: everybody would get in.
        """
        for entries in ("host", "10.0.0.0/33, 300.0.0.1", "10.0.0.1 10.0.0.2", ",", ""):
            self.assertIn(
                "expected addresses and prefixes",
                self.refused(f"allowed_ips = {entries}"),
            )

    def test_misspeltLimit(self) -> None:
        """
        A limit that is misspelt limits nothing, so the nearest key is shown.
        """
        _, warnings = read("allowed_ip = 10.0.0.0/8")
        self.assertIn("did you mean 'allowed_ips'?", str(warnings[0]))

    @given(
        st.lists(
            st.ip_addresses().map(str)
            | st.ip_addresses(v=4).map(lambda address: f"{address}/20")
            | st.text(st.characters(exclude_categories=["C"], exclude_characters=",")),
            max_size=5,
        )
    )
    def test_allowedIpsNeverOpen(self, entries: list[str]) -> None:
        """
        Whatever is in the list, it never comes to allow everybody.
        """
        with contextlib.suppress(SettingsError):
            settings, _ = read("allowed_ips = " + ", ".join(entries))
            self.assertTrue(settings.allowed_ips)
