# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.events}.
"""

from __future__ import annotations

import re
import syslog
from collections.abc import Iterator, Mapping
from typing import ClassVar

import attrs
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec import events
from ctrlexec.events import Event, listed

#: What separates fields, undone: C{KEY=plain} or C{KEY="quoted"}.
FIELD = re.compile(r'([A-Z_]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s"\\=]*))(?: |\Z)')


@attrs.frozen
class Sample(Event):
    """
    An event of the tests.
    """

    action: ClassVar[str] = "sample"
    zone: str = "z"
    exit: int | None = None
    from_: str | None = None


def fields_of(line: str) -> list[tuple[str, str]]:
    """
    Read a line as a program would that knows the format.
    """
    found, at = [], 0
    while at < len(line):
        field = FIELD.match(line, at)
        assert field is not None, line[at:]
        found.append((field[1], field[2] if field[3] is None else field[3]))
        at = field.end()
    return found


def catalogue() -> Iterator[type[Event]]:
    """
    Every event there is.
    """
    for value in vars(events).values():
        if isinstance(value, type) and "action" in vars(value):
            yield value


class ListedTests(SynchronousTestCase):
    """
    L{listed}
    """

    def test_plain(self) -> None:
        """
        Ids that are as they should be stand as they are.
        """
        self.assertEqual(listed(["9f21", "a,b", "50%"]), "9f21,a%2Cb,50%25")
        self.assertEqual(listed([]), "")

    @given(st.lists(st.text("a,%2C5"), min_size=1))
    def test_oneReading(self, names: list[str]) -> None:
        """
        Whatever is in a name, it can be told from the others.
        """
        read = [
            name.replace("%2C", ",").replace("%25", "%")
            for name in listed(names).split(",")
        ]
        self.assertEqual(read, names)


class LineTests(SynchronousTestCase):
    """
    L{Event.line}
    """

    def test_order(self) -> None:
        """
        The action comes first, the rest in alphabetical order; what is not
        known is left out.
        """
        self.assertEqual(Sample().line(), "ACTION=sample ZONE=z")
        self.assertEqual(
            Sample(exit=0, from_="a").line(), "ACTION=sample EXIT=0 FROM=a ZONE=z"
        )

    def test_original(self) -> None:
        """
        A run is logged as the original logs it: PROTOCOL.md section 10.
        """
        line = events.RunEnded("check", 0, "10.0.0.1", "9f21", "hq").line()
        self.assertEqual(
            line,
            "ACTION=run DISPATCHER=hq EXIT=0 PEER=10.0.0.1 REQID=9f21 SCRIPT=check",
        )

    def test_values(self) -> None:
        """
        Known answers for values that need quotes, and for those that do not.
        """
        known = {
            "": "",
            "plain-1.2:3/4": "plain-1.2:3/4",
            "zürich": "zürich",
            "two words": '"two words"',
            'say "no"': '"say \\"no\\""',
            "a\\b": '"a\\\\b"',
            "a=b": '"a=b"',
            "a\nACTION=b": '"a\\nACTION=b"',
            "\r\t\0\x1b\x7f": '"\\r\\t\\x00\\x1b\\x7f"',
            "\u2028\x85\xa0": '"\\u2028\\x85\\xa0"',
            "\u202egnp.exe": '"\\u202egnp.exe"',
            "\udc80": '"\\udc80"',
        }
        for value, spelled in known.items():
            self.assertEqual(Sample(value).line(), f"ACTION=sample ZONE={spelled}")

    @given(st.text(st.characters(), max_size=50))
    def test_noForgery(self, value: str) -> None:
        """
        No value adds a line or a field, or leaves something unprintable, and
        every line can be carried by UTF-8.
        """
        line = Sample(value, exit=3).line()
        self.assertTrue(line.isprintable(), line)
        line.encode("utf-8")
        keys = [key for key, _ in fields_of(line)]
        self.assertEqual(keys, ["ACTION", "EXIT", "ZONE"])

    @given(st.text(max_size=20), st.text(max_size=20))
    def test_distinct(self, one: str, other: str) -> None:
        """
        Different values are different lines.
        """
        self.assertEqual(Sample(one).line() == Sample(other).line(), one == other)


LEVELS = (syslog.LOG_INFO, syslog.LOG_WARNING, syslog.LOG_ERR)


class CatalogueTests(SynchronousTestCase):
    """
    All events together.
    """

    def test_shape(self) -> None:
        """
        Every event has a name fit for a log, and a level of syslog.
        """
        found = list(catalogue())
        self.assertGreater(len(found), 20)
        for event in found:
            self.assertRegex(event.action, "^[a-z]+(-[a-z]+)*$")
            self.assertIn(event.level, LEVELS)

    def test_noSecrets(self) -> None:
        """
        No event can carry a token, a key or a nonce.
        """
        secrets = {"token", "key", "nonce", "password", "args"}
        for event in catalogue():
            self.assertEqual(
                secrets & {field.name for field in attrs.fields(event)}, set()
            )

    def test_refusalsAreWarnings(self) -> None:
        """
        Whoever watches warnings, and what is worse, sees every refusal.
        """
        refusals = re.compile("deny|denied|reject|revoked|block|fail|warn")
        for event in catalogue():
            if refusals.search(event.action) and event is not events.PairDenied:
                self.assertLessEqual(event.level, syslog.LOG_WARNING, event)


#: What an agent logs, by PROTOCOL.md section 9 and NEWER-LINE.md section 16: for
#: each action the level, where one is given, and the fields that are always
#: there. Ours may add some.
OF_AN_AGENT: Mapping[type[Event], str] = {
    events.AgentStarted: "start info PORT",
    events.RunEnded: "run info SCRIPT EXIT PEER REQID DISPATCHER",
    events.RunDenied: "deny warning SCRIPT PEER REQID REASON DISPATCHER",
    events.StdinTimedOut: "stdin-timeout any",
    events.PingAnswered: "ping info PEER REQID DISPATCHER",
    events.CapabilitiesAnswered: "capabilities info PEER SCRIPTS DISPATCHER",
    events.CapabilitiesDenied: "capabilities-deny warning REASON DISPATCHER",
    events.SerialRejected: "serial-reject warning PEER REQID PEER_SERIAL",
    events.CertificateRevoked: "revoked-cert any PEER SERIAL",
    events.TlsFailed: "tls-failure any PEER REASON",
    events.AddressBlocked: "ip-block any PEER",
    events.RateBlocked: "rate-block any PEER REASON",
    events.RateEvicted: "rate-evict any COUNT",
    events.Overloaded: "overload warning PEER LIVE",
    events.SettingsWarned: "config-warn warning MSG",
    events.SchemaSkipped: "schema-skip warning SCRIPT REASON",
    events.SchemaVersionDerived: "schema-version-derive warning SCRIPT REASON",
    events.SerialChanged: "rotate info DISPATCHER SERIAL_ACTION SERIAL PEER",
    events.SerialNotChanged: "rotate-deny warning DISPATCHER REASON",
    events.SerialChangeFailed: "rotate-fail err DISPATCHER ERROR",
    events.CertificatePromoted: "cert-promote info STATUS",
    events.CertificateNotPromoted: "cert-promote warning ERROR",
    events.PairingCompleted: "pair-complete info STATUS DISPATCHER DISPATCHER_HOST",
    events.PairingDenied: "pair-denied any",
    events.PairingTimedOut: "pair-timeout any REQID",
    events.Reloaded: "reload any",
    events.ReloadFailed: "reload any",
    events.Authorised: "auth any RESULT AUTHACTION USER IP DISPATCHER",
    events.NotAuthorised: "auth any RESULT AUTHACTION USER IP REASON DISPATCHER",
    events.AuthHookTimedOut: "auth-hook-timeout warning TIMEOUT",
}


class ContractTests(SynchronousTestCase):
    def test_agent(self) -> None:
        """
        Whoever reads the logs of a mixed fleet finds each action of an agent
        with its level and its fields.
        """
        names = dict(zip(LEVELS, ("info", "warning", "err"), strict=True))
        for event, text in OF_AN_AGENT.items():
            action, level, *fields = text.split()
            self.assertEqual(event.action, action)
            self.assertIn(level, ("any", names[event.level]), action)
            has = {field.name.upper() for field in attrs.fields(event)}
            self.assertEqual(set(fields) - has, set(), action)
