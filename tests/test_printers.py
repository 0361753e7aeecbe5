# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.printers}: byte for byte what programs read.
"""

from __future__ import annotations

import json

import attrs
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.dispatcher.printers import (
    Format,
    Printer,
    discovery_printer,
    ping_printer,
    run_printer,
)
from ctrlexec.dispatcher.render import Look
from ctrlexec.dispatcher.results import DiscoveryRow, PingRow, RunRow
from ctrlexec.protocol.messages import Capabilities
from tests.test_render import LOST, PINGED, RAN, REFUSED

PIPE = Look()
OFFERED = DiscoveryRow(
    host="web-1",
    rtt_ms=7,
    capabilities=Capabilities("web-1", "0.1.0", (), {"role": "web"}),
)
SILENT = DiscoveryRow(host="web-2", rtt_ms=9, error="gone")


def run(how: Format, *, fold: bool = False) -> Printer[RunRow]:
    """
    What prints runs.
    """
    return run_printer(how, PIPE, fold=fold)


class DocumentTests(SynchronousTestCase):
    """
    C{--json}: one line, when all is known.
    """

    def test_run(self) -> None:
        """
        The fields of PROTOCOL.md section 7, in its order.
        """
        printer = run(Format.JSON)
        self.assertEqual(printer.row(RAN, ["web-1"]), "")
        self.assertEqual(
            printer.end([RAN, REFUSED]),
            '{"ok":true,"results":[{"host":"web-1","script":"backup","exit":0,'
            '"stdout":"one\\ntwo","stderr":"a warning\\nand another\\n",'
            '"rtt":"12ms","reqid":"9f21f7eabc06ba23","state":"ok"},'
            '{"host":"agent-one","script":"args-echo","exit":-1,'
            '"error":"500 Can\'t connect to agent-one:7443 (Connection refused)",'
            '"rtt":"41ms","reqid":"9f21f7eabc06ba23","state":"unreachable"}]}\n',
        )

    def test_ping(self) -> None:
        """
        The same for pings.
        """
        self.assertEqual(
            ping_printer(Format.JSON, PIPE).end([PINGED, LOST]),
            '{"ok":true,"results":[{"host":"agent-one","status":"ok",'
            '"version":"0.8.4","expiry":"Feb 22 22:32:05 2029 GMT","rtt":"84ms",'
            '"reqid":"fa179627a1f4a138"},{"host":"no-such-host.invalid",'
            '"status":"error","error":"did not resolve","rtt":"62ms"}]}\n',
        )

    def test_discovery(self) -> None:
        """
        What hosts offer, by their names: PROTOCOL.md section 8.
        """
        self.assertEqual(
            discovery_printer(Format.JSON, PIPE).end([OFFERED, SILENT]),
            '{"ok":true,"hosts":{"web-1":{"status":"ok","host":"web-1",'
            '"version":"0.1.0","scripts":[],"tags":{"role":"web"},"rtt":"7ms"},'
            '"web-2":{"status":"error","error":"gone","rtt":"9ms"}}}\n',
        )

    def test_brokenOff(self) -> None:
        """
        What has come goes with the failure: there is one document, not two.
        """
        text, told = run(Format.JSON).broken_off([RAN])
        self.assertEqual(text, "")
        self.assertEqual([row["host"] for row in told["results"]], ["web-1"])

    @given(st.text(), st.text())
    def test_survives(self, stdout: str, stderr: str) -> None:
        """
        Any output comes out of the JSON as it went in, which is one line of
        ASCII.
        """
        row = attrs.evolve(RAN, stdout=stdout, stderr=stderr)
        text = run(Format.JSON).end([row]).removesuffix("\n")
        self.assertTrue(text.isascii() and text.isprintable())
        (result,) = json.loads(text)["results"]
        self.assertEqual((result["stdout"], result["stderr"]), (stdout, stderr))


class LinesTests(SynchronousTestCase):
    """
    C{--output jsonl}: a line for each result, as it comes.
    """

    def test_results(self) -> None:
        """
        Each is what it is in the document; nothing follows the last.
        """
        for printer, row in (
            (run(Format.JSONL), RAN),
            (ping_printer(Format.JSONL, PIPE), PINGED),
        ):
            line = printer.row(row, [])  # type: ignore[arg-type]
            self.assertTrue(line.startswith('{"host":"') and line.endswith("}\n"))
            self.assertEqual(line.count("\n"), 1)
            self.assertEqual(printer.end([row]), "")  # type: ignore[list-item]
            self.assertEqual(printer.broken_off([row]), ("", {}))  # type: ignore[list-item]

    def test_discovery(self) -> None:
        """
        Each says which host it is about.
        """
        printer = discovery_printer(Format.JSONL, PIPE)
        self.assertEqual(
            printer.row(SILENT, []),
            '{"host":"web-2","status":"error","error":"gone","rtt":"9ms"}\n',
        )
        self.assertEqual(json.loads(printer.row(OFFERED, []))["host"], "web-1")


class TextTests(SynchronousTestCase):
    """
    What people read.
    """

    def test_asTheyCome(self) -> None:
        """
        A run is shown when it is known.
        """
        printer = run(Format.TEXT)
        self.assertTrue(printer.row(RAN, ["web-1"]).startswith("==> web-1  [OK"))
        self.assertEqual(printer.end([RAN]), "")

    def test_tables(self) -> None:
        """
        The head comes with the first row, as wide as the hosts need that are
        being asked by then.
        """
        for printer, row in (
            (ping_printer(Format.TEXT, PIPE), attrs.evolve(PINGED, host="a" * 35)),
            (discovery_printer(Format.TEXT, PIPE), attrs.evolve(SILENT, host="a" * 35)),
        ):
            first = printer.row(row, ["b" * 40, "a" * 35])  # type: ignore[arg-type]
            head, rule, line = first.splitlines()
            self.assertEqual(head.index("STATUS"), 42)
            self.assertEqual(set(rule), {"-"})
            self.assertEqual(line[42:].split()[0], "ok" if row.ok else "error")
            again = printer.row(row, [])  # type: ignore[arg-type]
            self.assertEqual(again, f"{line}\n")

    def test_folded(self) -> None:
        """
        Folded runs are shown when all are there, or will not come any more.
        """
        rows = [RAN, attrs.evolve(RAN, host="web-2"), REFUSED]
        printer = run(Format.TEXT, fold=True)
        self.assertEqual(printer.row(RAN, ["web-1"]), "")
        text = printer.end(rows)
        self.assertTrue(text.startswith("==> web-[1-2]  [OK  exit:0  2 hosts  req:"))
        self.assertEqual(printer.broken_off(rows), (text, {}))


class KindsTests(SynchronousTestCase):
    """
    Every kind of order in every format.
    """

    def test_all(self) -> None:
        """
        None is left out, and an order that went to nobody prints what a
        program can read.
        """
        rows: list[PingRow] = []
        for how in Format:
            self.assertEqual(ping_printer(how, PIPE).broken_off(rows)[0], "")
        self.assertEqual(
            discovery_printer(Format.JSON, PIPE).end([]), '{"ok":true,"hosts":{}}\n'
        )
