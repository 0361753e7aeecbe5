# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.render}: byte for byte what people and programs
read, which takes many lines.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path

import attrs
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.certificates import CertificateInfo
from ctrlexec.dispatcher import render
from ctrlexec.dispatcher.locks import LockState
from ctrlexec.dispatcher.records import AgentRecord, QueuedRequest
from ctrlexec.dispatcher.render import Look
from ctrlexec.dispatcher.results import (
    DiscoveryRow,
    Outcome,
    PingRow,
    RunRow,
    ping_fields,
)
from ctrlexec.errors import CtrlExecError, Locked, NotAuthorised
from ctrlexec.protocol.messages import Capabilities, ScriptInfo
from ctrlexec.values import HostPort, openssl_time

PIPE = Look()
TERMINAL = Look(terminal=True)
COLOURS = Look(terminal=True, colour=True)
NOW = datetime(2026, 11, 20, 22, 32, 4, tzinfo=timezone.utc)

REFUSED = RunRow(
    host="agent-one",
    script="args-echo",
    reqid="9f21f7eabc06ba23",
    outcome=Outcome.UNREACHABLE,
    rtt_ms=41,
    error="500 Can't connect to agent-one:7443 (Connection refused)",
)
RAN = RunRow(
    host="web-1",
    script="backup",
    reqid="9f21f7eabc06ba23",
    outcome=Outcome.OK,
    rtt_ms=12,
    exit=0,
    stdout="one\ntwo",
    stderr="a warning\nand another\n",
)
PINGED = PingRow(
    host="agent-one",
    reqid="fa179627a1f4a138",
    rtt_ms=84,
    version="0.8.4",
    expiry="Feb 22 22:32:05 2029 GMT",
)
LOST = PingRow(
    host="no-such-host.invalid", reqid="x", rtt_ms=62, error="did not resolve"
)
AGENT = AgentRecord(
    hostname="agent-one",
    ip="10.0.0.1",
    paired="2026-11-20T22:32:04Z",
    expiry="Feb 22 22:32:05 2029 GMT",
    reqid="a8e5d95be720fcc8",
)
REQUEST = QueuedRequest(
    id="a8e5d95be720fcc8",
    hostname="agent-one",
    ip="127.0.0.1",
    csr="secret-free but long",
    nonce="00" * 16,
    received="2026-11-20T22:32:04Z",
    code="227406",
)


class PingTests(SynchronousTestCase):
    """
    What became of a ping.
    """

    def test_recorded(self) -> None:
        """
        To the byte what the original printed: PROTOCOL.md section 10.
        """
        table = render.ping_table(["agent-one", "no-such-host.invalid"])
        rows = [render.ping_row(row, PIPE) for row in (LOST, PINGED)]
        self.assertEqual(
            table.head() + "".join(map(table.line, rows)),
            "HOST                            STATUS    RTT       "
            "CERT EXPIRY                   VERSION\n"
            "---------------------------------------------------"
            "----------------------------------\n"
            "no-such-host.invalid            error     62ms      "
            "?                             ?\n"
            "agent-one                       ok        84ms      "
            "Feb 22 22:32:05 2029 GMT      0.8.4\n",
        )

    def test_longName(self) -> None:
        """
        A long name makes its column wider, and the rule longer.
        """
        head, rule, _ = render.ping_table(["x" * 40]).head().split("\n")
        self.assertEqual(head.index("STATUS"), 42)
        self.assertEqual(rule, "-" * 95)

    def test_anotherName(self) -> None:
        """
        What an agent calls itself stands in brackets, in JSON in a field of
        its own.
        """
        row = attrs.evolve(PINGED, reported_hostname="web.example.org")
        self.assertEqual(render.ping_row(row, PIPE)[0], "agent-one (web.example.org)")
        self.assertEqual(ping_fields(row)["reported_hostname"], "web.example.org")


class DiscoveryTests(SynchronousTestCase):
    """
    What hosts offer.
    """

    def test_text(self) -> None:
        """
        One line a host, with its scripts; those that can not be run say so.
        """
        scripts = (
            ScriptInfo("backup", "/opt/backup", True),
            ScriptInfo("old", "/opt/old", False),
        )
        rows = [
            DiscoveryRow(
                host="web-1",
                rtt_ms=7,
                capabilities=Capabilities("web-1", "0.12.3", scripts, {}),
            ),
            DiscoveryRow(
                host="web-2",
                reported_hostname="db",
                capabilities=Capabilities("db", "", (), {}),
            ),
            DiscoveryRow(host="web-3", error="forbidden: no"),
        ]
        table = render.discovery_table(row.host for row in rows)
        lines = [table.line(render.discovery_row(row, PIPE)) for row in rows]
        self.assertEqual(
            "".join([table.head(), *lines]),
            "HOST                            STATUS    RTT       VERSION     SCRIPTS\n"
            + "-" * 71
            + "\n"
            "web-1                           ok        7ms       0.12.3      "
            "backup, old (not executable)\n"
            "web-2 (db)                      ok        0ms       ?           none\n"
            "web-3                           error     0ms       ?           ?\n",
        )


class LocksTests(SynchronousTestCase):
    """
    What is locked.
    """

    def test_text(self) -> None:
        """
        Who holds each lock, as far as that is known.
        """
        since = "2026-11-20T22:32:04Z"
        locks = [
            LockState("web-1", "backup", 4711, "alice", "9f21f7eabc06ba23", since),
            LockState("web-2", "backup", None),
        ]
        self.assertEqual(
            render.locks_text(locks),
            "HOST                            SCRIPT                PID       "
            "USER          SINCE                 REQID\n" + "-" * 105 + "\n"
            "web-1                           backup                4711      "
            "alice         2026-11-20T22:32:04Z  9f21f7eabc06ba23\n"
            "web-2                           backup                ?         "
            "?             ?                     ?\n",
        )


class HostTests(SynchronousTestCase):
    """
    Hosts as they can be typed.
    """

    def test_text(self) -> None:
        """
        The port stands behind the name, and an address of colons in brackets.
        """
        for asked, shown in (
            (HostPort("web-1"), "web-1"),
            (HostPort("web-1", 9000), "web-1:9000"),
            (HostPort("::1"), "::1"),
            (HostPort("::1", 9000), "[::1]:9000"),
        ):
            self.assertEqual(render.host_text(asked), shown)
            self.assertEqual(HostPort.parse(shown), asked)


class AgentsTests(SynchronousTestCase):
    """
    The registry.
    """

    def days_left(self, expiry: str, look: Look = PIPE) -> str:
        """
        @return: the last column of an agent's row.
        """
        agent = attrs.evolve(AGENT, expiry=expiry)
        row = render.agents_text([agent], NOW, look).splitlines()[2]
        return row.rpartition("  ")[2]

    def test_text(self) -> None:
        """
        The columns of NEWER-LINE.md section 12.2.
        """
        other = AgentRecord(hostname="web-2", lookup_by="ip", port=8443)
        self.assertEqual(
            render.agents_text([AGENT, other], NOW, PIPE),
            "HOSTNAME                        IP                PORT   LOOKUP    "
            "PAIRED                CERT EXPIRY               DAYS LEFT\n"
            + "-"
            * 124
            + "\n"
            "agent-one                       10.0.0.1          7443   hostname  "
            "2026-11-20T22:32:04Z  Feb 22 22:32:05 2029 GMT  825\n"
            "web-2                           ?                 8443   ip        "
            "?                     ?                         ?\n",
        )

    def test_daysLeft(self) -> None:
        """
        Whole days; an end that is past is said so; rubbish is not guessed at.
        """
        for left, shown in (
            (timedelta(days=40, hours=23), "40"),
            (timedelta(hours=1), "0"),
            (timedelta(0), "expired"),
            (timedelta(days=-3), "expired"),
        ):
            self.assertEqual(self.days_left(openssl_time(NOW + left)), shown)
        self.assertEqual(self.days_left("soon"), "?")

    def test_warning(self) -> None:
        """
        An end that is near is yellow, one that is past is red.
        """
        for days, shown in (
            (31, "31"),
            (29, "\x1b[33m29\x1b[0m"),
            (-1, "\x1b[1;31mexpired\x1b[0m"),
        ):
            expiry = openssl_time(NOW + timedelta(days=days))
            self.assertEqual(self.days_left(expiry, COLOURS), shown)

    def test_reach(self) -> None:
        """
        Where an agent is reached from now on.
        """
        self.assertEqual(
            render.reach_text(AGENT, "is changed"),
            "agent-one is changed\n    reached at  agent-one port 7443\n",
        )


class RequestsTests(SynchronousTestCase):
    """
    The pairing queue.
    """

    def test_text(self) -> None:
        """
        First the columns that the original printed, then what tells a stranger
        from a friend.
        """
        confirmed = attrs.evolve(
            REQUEST,
            source_ip="10.0.0.7",
            reverse_dns="web.example.org",
            reverse_confirmed=True,
        )
        unconfirmed = attrs.evolve(confirmed, reverse_confirmed=False)
        self.assertEqual(
            render.requests_text([REQUEST, confirmed, unconfirmed]),
            "ID                HOSTNAME                        IP                "
            "CODE      RECEIVED              SOURCE IP         KIND    REVERSE DNS\n"
            + "-"
            * 137
            + "\n"
            "a8e5d95be720fcc8  agent-one                       127.0.0.1         "
            "227406    2026-11-20T22:32:04Z  ?                 legacy  ?\n"
            "a8e5d95be720fcc8  agent-one                       127.0.0.1         "
            "227406    2026-11-20T22:32:04Z  10.0.0.7          legacy  "
            "web.example.org (ok)\n"
            "a8e5d95be720fcc8  agent-one                       127.0.0.1         "
            "227406    2026-11-20T22:32:04Z  10.0.0.7          legacy  "
            "web.example.org (?)\n",
        )

    def test_json(self) -> None:
        """
        What people decide by, and not what only machines compare.
        """
        fields = render.request_fields(REQUEST)
        self.assertEqual((fields["id"], fields["code"]), (REQUEST.id, "227406"))
        self.assertFalse({"csr", "nonce"} & {*fields})


class TrustTests(SynchronousTestCase):
    """
    Changes of trust.
    """

    def test_approval(self) -> None:
        """
        Who was let in, with which certificate, and where it is reached.
        """
        agent = attrs.evolve(AGENT, lookup_by="ip")
        self.assertEqual(
            render.approval_text(agent, "af01"),
            "agent-one is approved\n"
            "    certificate  af01, until Feb 22 22:32:05 2029 GMT\n"
            "    reached at   10.0.0.1 port 7443\n",
        )
        fields = json.loads(render.approval_json(agent, "af01", delivered=False))
        self.assertEqual((fields["ok"], fields["delivered"]), (True, False))

    def test_created(self) -> None:
        """
        Where a new key is, and until when it can be used.
        """
        info = CertificateInfo(
            common_name="x",
            serial="af01",
            not_before=NOW,
            not_after=NOW,
            role=None,
            key_digest="",
        )
        text = render.created_text("the CA", Path("/c/k"), Path("/c/c"), info)
        self.assertEqual(
            text,
            "the CA is made\n"
            "    key          /c/k  (keep it secret, and a copy safe)\n"
            "    certificate  /c/c\n"
            "    serial       af01\n"
            "    until        Nov 20 22:32:04 2026 GMT\n",
        )
        self.assertEqual(
            render.created_json(info),
            '{"ok":true,"serial":"af01","expiry":"Nov 20 22:32:04 2026 GMT"}',
        )


class FailureTests(SynchronousTestCase):
    """
    What there is to say instead of results.
    """

    def test_error(self) -> None:
        """
        An error, and its hint if there is one.
        """
        self.assertEqual(
            render.failure(CtrlExecError("no")), ("error", {"ok": False, "error": "no"})
        )
        self.assertEqual(
            render.failure(CtrlExecError("no", hint="try"))[1],
            {"ok": False, "error": "no", "hint": "try"},
        )

    def test_denied(self) -> None:
        """
        What PROTOCOL.md section 7 has a program be told, and no more.
        """
        error = NotAuthorised("bad credentials", 2, hint="the hook was asked")
        self.assertEqual(
            render.failure(error),
            ("Denied", {"ok": False, "error": "bad credentials", "code": 2}),
        )

    def test_locked(self) -> None:
        """
        The same for what runs already.
        """
        kind, fields = render.failure(Locked(["a:x", "b:x"]))
        self.assertEqual(kind, "Locked")
        self.assertEqual(
            render.to_json(fields),
            '{"ok":false,"error":"locked","code":4,"conflicts":["a:x","b:x"]}',
        )


class TallyTests(SynchronousTestCase):
    """
    How it went, in one line.
    """

    def test_counts(self) -> None:
        """
        Only the sorts that there are.
        """
        self.assertEqual(render.tally([PINGED, LOST], "no answer"), "1 ok, 1 no answer")
        self.assertEqual(render.tally([PINGED], "no answer"), "1 ok")
        self.assertEqual(render.tally([], "no answer"), "")
