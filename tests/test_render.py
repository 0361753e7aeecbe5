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
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.certificates import CertificateInfo
from ctrlexec.dispatcher import render
from ctrlexec.dispatcher.records import AgentRecord, QueuedRequest
from ctrlexec.dispatcher.render import Look
from ctrlexec.dispatcher.results import PingRow, RunRow
from ctrlexec.values import openssl_time

PIPE = Look()
TERMINAL = Look(terminal=True)
COLOURS = Look(terminal=True, colour=True)
NOW = datetime(2026, 11, 20, 22, 32, 4, tzinfo=timezone.utc)

REFUSED = RunRow(
    host="agent-one",
    script="args-echo",
    reqid="9f21f7eabc06ba23",
    rtt_ms=41,
    error="500 Can't connect to agent-one:7443 (Connection refused)",
)
RAN = RunRow(
    host="web-1",
    script="backup",
    reqid="9f21f7eabc06ba23",
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


class RunTests(SynchronousTestCase):
    """
    What became of a run.
    """

    def test_error(self) -> None:
        """
        What the original printed for an agent that did not answer.
        """
        self.assertEqual(
            render.run_text(REFUSED, PIPE),
            "==> agent-one  [FAIL  exit:-1  41ms  req:9f21f7eabc06ba23]\n"
            "    ERROR: 500 Can't connect to agent-one:7443 (Connection refused)\n",
        )

    def test_output(self) -> None:
        """
        Standard output as it is; each line of stderr says what it is; the last
        line ends even if the script did not end it.
        """
        self.assertEqual(
            render.run_text(RAN, PIPE),
            "==> web-1  [OK  exit:0  12ms  req:9f21f7eabc06ba23]\n"
            "one\n"
            "two\n"
            "    STDERR: a warning\n"
            "    STDERR: and another\n",
        )

    def test_failed(self) -> None:
        """
        An exit status is a failure, and no error.
        """
        text = render.run_text(attrs.evolve(RAN, exit=3, stdout="", stderr=""), PIPE)
        self.assertEqual(
            text, "==> web-1  [FAIL  exit:3  12ms  req:9f21f7eabc06ba23]\n"
        )

    def test_emptyLines(self) -> None:
        """
        Empty lines of a script are kept.
        """
        text = render.run_text(attrs.evolve(RAN, stdout="\n\na\n\n", stderr=""), PIPE)
        self.assertEqual(text.partition("\n")[2], "\n\na\n\n")

    def test_terminal(self) -> None:
        """
        A hostile agent does not drive the terminal, nor print a line that
        looks like another host's.
        """
        row = RunRow(
            host="web-1",
            script="x",
            reqid="r\n==> web-2  [OK",
            stdout="\x1b]0;owned\x07\x1b[2J\n",
            stderr="\r==> web-2",
            error="bad\n==> web-2",
        )
        self.assertEqual(
            render.run_text(row, TERMINAL),
            "==> web-1  [FAIL  exit:-1  0ms  req:r\\n==> web-2  [OK]\n"
            "    ERROR: bad\\n==> web-2\n"
            "\\x1b]0;owned\\x07\\x1b[2J\n"
            "    STDERR: \\r==> web-2\n",
        )

    def test_pipe(self) -> None:
        """
        A file or a pipe gets the output of a script as it is.
        """
        row = attrs.evolve(RAN, stdout="\x1b[31mred\r\n", stderr="")
        self.assertIn("\n\x1b[31mred\r\n", render.run_text(row, PIPE))

    def test_colour(self) -> None:
        """
        Good is green and bad is red.
        """
        self.assertIn("[\x1b[32mOK\x1b[0m  exit", render.run_text(RAN, COLOURS))
        self.assertIn("[\x1b[1;31mFAIL\x1b[0m  exit", render.run_text(REFUSED, COLOURS))

    def test_json(self) -> None:
        """
        The fields of PROTOCOL.md section 7, in its order.
        """
        self.assertEqual(
            render.results_json(map(render.run_fields, [RAN, REFUSED])),
            '{"ok":true,"results":[{"host":"web-1","script":"backup","exit":0,'
            '"stdout":"one\\ntwo","stderr":"a warning\\nand another\\n",'
            '"rtt":"12ms","reqid":"9f21f7eabc06ba23"},'
            '{"host":"agent-one","script":"args-echo","exit":-1,'
            '"error":"500 Can\'t connect to agent-one:7443 (Connection refused)",'
            '"rtt":"41ms","reqid":"9f21f7eabc06ba23"}]}',
        )

    @given(st.text(), st.text())
    def test_jsonSurvives(self, stdout: str, stderr: str) -> None:
        """
        Any output comes out of the JSON as it went in, which is one line of
        ASCII.
        """
        row = attrs.evolve(RAN, stdout=stdout, stderr=stderr)
        text = render.results_json([render.run_fields(row)])
        self.assertTrue(text.isascii() and text.isprintable())
        (result,) = json.loads(text)["results"]
        self.assertEqual((result["stdout"], result["stderr"]), (stdout, stderr))


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
        self.assertEqual(
            render.ping_fields(row)["reported_hostname"], "web.example.org"
        )

    def test_json(self) -> None:
        """
        The fields of PROTOCOL.md section 7, in its order.
        """
        self.assertEqual(
            render.results_json(map(render.ping_fields, [PINGED, LOST])),
            '{"ok":true,"results":[{"host":"agent-one","status":"ok",'
            '"version":"0.8.4","expiry":"Feb 22 22:32:05 2029 GMT","rtt":"84ms",'
            '"reqid":"fa179627a1f4a138"},{"host":"no-such-host.invalid",'
            '"status":"error","error":"did not resolve","rtt":"62ms"}]}',
        )


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

    def test_json(self) -> None:
        """
        The records as they are, with fields that we do not know.
        """
        agent = attrs.evolve(AGENT, tags={"role": "web"}, extra={"note": "x"})
        (record,) = json.loads(render.agents_json([agent]))
        self.assertEqual(
            [record["hostname"], record["port"], record["tags"], record["note"]],
            ["agent-one", 7443, {"role": "web"}, "x"],
        )
        self.assertNotIn("extra", record)
        self.assertEqual(render.agents_json([]), "[]")


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
            "CODE      RECEIVED              SOURCE IP         REVERSE DNS\n"
            + "-"
            * 129
            + "\n"
            "a8e5d95be720fcc8  agent-one                       127.0.0.1         "
            "227406    2026-11-20T22:32:04Z  ?                 ?\n"
            "a8e5d95be720fcc8  agent-one                       127.0.0.1         "
            "227406    2026-11-20T22:32:04Z  10.0.0.7          "
            "web.example.org (ok)\n"
            "a8e5d95be720fcc8  agent-one                       127.0.0.1         "
            "227406    2026-11-20T22:32:04Z  10.0.0.7          "
            "web.example.org (?)\n",
        )

    def test_json(self) -> None:
        """
        What people decide by, and not what only machines compare.
        """
        (request,) = json.loads(render.requests_json([REQUEST]))
        self.assertEqual((request["id"], request["code"]), (REQUEST.id, "227406"))
        self.assertFalse({"csr", "nonce"} & {*request})


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

    def test_failure(self) -> None:
        """
        An error, its hint if there is one, and whatever else there is to say.
        """
        self.assertEqual(render.failure_json("no"), '{"ok":false,"error":"no"}')
        self.assertEqual(
            render.failure_json("no", "try", results=[]),
            '{"ok":false,"error":"no","hint":"try","results":[]}',
        )
