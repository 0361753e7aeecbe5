# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.dispatcher.settings}.
"""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.dispatcher.settings import DEFAULT_FILE, DispatcherSettings
from ctrlexec.errors import SettingsError
from ctrlexec.rates import Rate
from ctrlexec.settings import SettingsWarning, read_settings
from ctrlexec.values import dispatcher_id

# As an installation of the original has it.
ORIGINAL = """\
cert = /etc/ctrl-exec/dispatcher.crt
key = /etc/ctrl-exec/dispatcher.key
ca = /etc/ctrl-exec/ca.crt
timeout = 30
api_port = 7445
api_auth_default = deny
cert_renewal_days = 90
cert_overlap_days = 30
pairing_rate_limit_volume = 20/60/300
rotation_file = /var/lib/ctrl-exec/rotation.json
"""


def read(text: str) -> tuple[DispatcherSettings, tuple[SettingsWarning, ...]]:
    return read_settings(
        DispatcherSettings, text, file="ctrl-exec.conf", base=DEFAULT_FILE.parent
    )


class DispatcherSettingsTests(SynchronousTestCase):
    """
    L{DispatcherSettings}
    """

    def refused(self, line: str) -> str:
        """
        The message on a bad line, and a check that it names the line.
        """
        with self.assertRaises(SettingsError) as caught:
            read(line)
        where = f"ctrl-exec.conf:1: {line.partition('=')[0].strip()}: "
        message = str(caught.exception)
        self.assertEqual(message[: len(where)], where)
        return message.removeprefix(where)

    def test_defaults(self) -> None:
        """
        An empty file is a whole configuration, with every file where an
        installation of the original has it.
        """
        settings, warnings = read("dispatcher_id = main")
        etc, var = Path("/etc/ctrl-exec"), Path("/var/lib/ctrl-exec")
        self.assertEqual(
            settings,
            DispatcherSettings(
                directory=etc,
                ca_dir=etc,
                key=etc / "ctrl-exec.key",
                cert=etc / "ctrl-exec.crt",
                ca=etc / "ca.crt",
                state_dir=var,
                registry_dir=var / "agents",
                dispatcher_id="main",
                pairing_port=7444,
                pairing_bind="",
                pairing_timeout=600,
                pairing_max_queue=10,
                pairing_rate_limit_volume=Rate(10, 60, 300),
                pairing_rate_limit_disable=False,
                read_timeout=60,
                connect_timeout=10,
                max_parallel=64,
                max_answer=67_108_864,
                unregistered_hosts="refuse",
                cert_days=825,
                cert_renewal_days=90,
                cert_overlap_days=30,
                rotation_file=var / "rotation.json",
                key_type="ec",
                log="auto",
                auth_hook=None,
                auth_hook_timeout=10,
            ),
        )
        self.assertEqual(warnings, ())

    def test_original(self) -> None:
        """
        A file of the original is taken over; the keys of the API and of
        rotation raise no noise.
        """
        settings, warnings = read(ORIGINAL)
        self.assertEqual(settings.cert, Path("/etc/ctrl-exec/dispatcher.crt"))
        self.assertEqual(settings.read_timeout, 30)
        self.assertEqual(settings.pairing_rate_limit_volume, Rate(20, 60, 300))
        self.assertEqual(warnings, ())
        self.assertEqual(
            settings.rotation_file, Path("/var/lib/ctrl-exec/rotation.json")
        )

    def test_directories(self) -> None:
        """
        Everything moves with two directories, so a dispatcher can live
        anywhere, without root.
        """
        settings, _ = read_settings(
            DispatcherSettings,
            "ca_dir = ca\nstate_dir = state",
            file="ctrl-exec.conf",
            base=Path("/home/me"),
        )
        ca, state = Path("/home/me/ca"), Path("/home/me/state")
        self.assertEqual(settings.key, ca / "ctrl-exec.key")
        self.assertEqual(settings.ca_key, ca / "ca.key")
        self.assertEqual(settings.ca_serial, ca / "ca.serial")
        self.assertEqual(settings.pairing_dir, state / "pairing")
        self.assertEqual(settings.agents_dir, state / "agents")

    def test_registryDirectory(self) -> None:
        """
        The registry can be elsewhere.
        """
        settings, _ = read("registry_dir = /srv/agents")
        self.assertEqual(settings.agents_dir, Path("/srv/agents"))

    def test_idFromHost(self) -> None:
        """
        Without an id the host's name makes one that agents accept.
        """
        settings, _ = read("")
        self.assertEqual(settings.dispatcher_id, dispatcher_id(settings.dispatcher_id))

    @given(st.text(st.characters(exclude_categories=("C", "Z")), min_size=1))
    def test_id(self, text: str) -> None:
        """
        Any id becomes one that agents accept, and a change of it is said.
        """
        settings, warnings = read(f"dispatcher_id = {text}")
        used = settings.dispatcher_id
        self.assertEqual(dispatcher_id(used), used)
        self.assertEqual(len(warnings), 0 if used == text else 1)
        for warning in warnings:
            self.assertIn(f"{used!r} is used instead", str(warning))

    def test_timeoutTwice(self) -> None:
        """
        A key and its alias are one key.
        """
        with self.assertRaises(SettingsError) as caught:
            read("read_timeout = 60\ntimeout = 30")
        self.assertEqual(
            str(caught.exception),
            "ctrl-exec.conf:2: timeout: expected once, but line 1 gives it too",
        )

    def test_refused(self) -> None:
        """
        Each key says what it expects.
        """
        expected = {
            "dispatcher_id =": "an id for this dispatcher",
            "pairing_port = -1": "a number from 0 to 65535",
            "pairing_bind = eth0": "an IPv4 or IPv6 address",
            "pairing_timeout = 601": "a number from 1 to 600",
            "pairing_max_queue = 0": "a number from 1 to 10000",
            "pairing_rate_limit_volume = 10": "COUNT/SECONDS/BLOCK",
            "pairing_rate_limit_disable = perhaps": "yes or no",
            "timeout = 0": "a number of seconds above 0 and up to 86400",
            "connect_timeout = soon": "a number of seconds above 0 and up to 3600",
            "max_parallel = 1025": "a number from 1 to 1024",
            "max_answer = 64MB": "a number of bytes up to 1G",
            "unregistered_hosts = ask": "refuse or connect",
            "cert_days = 0": "a number from 1 to 36500",
            "key_type = dsa": "ec or rsa",
            "log = ctrl-exec.log": "auto, stderr, syslog, or a path",
            "ca_dir =": "a path, not nothing",
        }
        for line, words in expected.items():
            self.assertIn(f"expected {words}", self.refused(line))
