# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.agent.run_records} and L{ctrlexec.agent.run_output}: a record
says the same however its output came, and can be read in parts.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.agent.run_records import (
    HEAD_BYTES,
    UNSEEN,
    OutputText,
    RunRecord,
    digest_of,
    ended_by,
    head_of,
    parse_record,
    running_record,
    whole_bytes,
)
from ctrlexec.agent.run_writing import spelled
from ctrlexec.agent.runs import Ending
from ctrlexec.errors import ProtocolError
from ctrlexec.output import Captured, cut_note
from tests.authority import NOW

RECORD = RunRecord(
    reqid="r-1",
    owner="hq",
    script="hello",
    started="2026-03-05T18:38:09Z",
    peer="192.0.2.1",
    username="ann",
    asynchronous=True,
    digest=digest_of("hello", ["a"]),
)
ENDED = attrs.evolve(
    RECORD, state="done", finished="2026-03-05T18:38:10Z", exit=3, stdout_bytes=0
)
#: What scripts write: text, parts of characters, and what no text is.
OUTPUT = st.lists(
    st.one_of(
        st.text(max_size=20).map(str.encode),
        st.binary(max_size=8),
        st.sampled_from(
            [b"\xe2\x82", b"\xf0\x90\x80", b"\xed\xa0\x80", b"\xff", b"\0"]
        ),
    ),
    max_size=8,
).map(b"".join)
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\ufffd"), max_size=60)


def shown(data: bytes, kept: int, total: int) -> str:
    """
    What is shown of an output of which so much is kept.
    """
    text = data[:kept].decode("utf-8", "replace")
    return text + (cut_note("stdout", kept, total) if total > kept else "")


class DirectoryTestCase(SynchronousTestCase):
    """
    The directory of a run.
    """

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()

    def wrote(self, stdout: bytes = b"", stderr: bytes = b"") -> None:
        """
        A script wrote that, and it is kept.
        """
        (self.directory / "stdout").write_bytes(stdout)
        (self.directory / "stderr").write_bytes(stderr)

    def text(self, record: RunRecord) -> bytes:
        """
        The whole record of a run that has ended.
        """
        with spelled(record, self.directory) as ended:
            return b"".join(ended.pieces)

    def fields(self, record: RunRecord) -> Any:
        """
        What it says.
        """
        return json.loads(self.text(record))


class SpellingTests(DirectoryTestCase):
    """
    The spelling of records
    """

    def test_running(self) -> None:
        """
        The record of a run that lives is that of NEWER-LINE.md section 6.1, and
        what is ours.
        """
        fields = json.loads(running_record(RECORD))
        original = {"reqid": "r-1", "status": "running", "script": "hello"}
        original |= {"owner": "hq", "started": "2026-03-05T18:38:09Z"}
        self.assertEqual({**fields, **original}, fields)
        self.assertEqual((fields["state"], fields["async"]), ("running", True))
        self.assertNotIn("exit", fields)

    def test_ended(self) -> None:
        """
        Likewise that of one that has ended, whatever its state: originals know no
        other status.
        """
        self.wrote(b"out\n", b"err\n")
        for state in ("done", "cancelled", "timed_out", "failed", "lost"):
            fields = self.fields(attrs.evolve(ENDED, state=state))
            self.assertEqual(fields["status"], "done")
            self.assertEqual(fields["state"], state)
            self.assertEqual((fields["exit"], fields["stdout"]), (3, "out\n"))
            self.assertEqual(fields["finished"], "2026-03-05T18:38:10Z")

    @settings(deadline=None)
    @given(OUTPUT, OUTPUT, st.integers(0, 30))
    def test_asOne(self, stdout: bytes, stderr: bytes, more: int) -> None:
        """
        What is spelled in pieces is what json.dumps makes of the whole.
        """
        self.wrote(stdout, stderr)
        total = len(stdout) + more
        kept = whole_bytes(stdout[-3:], len(stdout), total)
        record = attrs.evolve(ENDED, stdout_bytes=total)
        text = self.text(record)
        fields = json.loads(text)
        self.assertEqual(fields["stdout"], shown(stdout, kept, total))
        self.assertEqual(fields["stderr"], stderr.decode("utf-8", "replace"))
        self.assertEqual(json.dumps(fields, separators=(",", ":")).encode(), text)
        self.assertEqual(fields["stdout_kept"], kept)

    @given(TEXT, st.text(), st.text(), st.sampled_from(["", "cancelled"]))
    def test_readAgain(self, script: str, user: str, peer: str, reason: str) -> None:
        """
        What a record says is read from its beginning, whatever is in it.
        """
        record = attrs.evolve(
            ENDED, script=script, username=user, peer=peer, reason=reason
        )
        self.wrote(b'","stdout":"', b'x"}')
        text = self.text(record)
        head = head_of(text[:HEAD_BYTES])
        assert head is not None
        found = attrs.evolve(parse_record(head), stdout_kept=0, stderr_kept=0)
        expected = attrs.evolve(record, stdout_bytes=12, stderr_bytes=3)
        self.assertEqual(found, expected)
        running = attrs.evolve(RECORD, script=script, username=user, peer=peer)
        self.assertEqual(parse_record(running_record(running)), running)

    def test_large(self) -> None:
        """
        Output that is much larger in JSON goes through a bounded memory.
        """
        self.wrote(bytes(2**20))
        with spelled(ENDED, self.directory) as ended:
            sizes = [len(piece) for piece in ended.pieces]
        self.assertLessEqual(max(sizes), 6 * 65_536)
        self.assertGreater(sum(sizes), 6 * 2**20)

    def test_missing(self) -> None:
        """
        A run that did not get as far as to have files wrote nothing.
        """
        fields = self.fields(ENDED)
        self.assertEqual((fields["stdout"], fields["stderr"]), ("", ""))

    def test_lastLine(self) -> None:
        """
        Peers of the original see at the end of stderr why a run did not end by
        itself, on a line of its own.
        """
        for state, exit, reason, stderr, expected in (
            ("timed_out", 126, "timed out after 30s", b"", "[timed out after 30s]\n"),
            ("cancelled", 126, "cancelled", b"a\n", "a\n[cancelled]\n"),
            ("cancelled", 126, "cancelled", b"a", "a\n[cancelled]\n"),
            ("cancelled", 126, "cancelled", b"a\xe2", "a\ufffd\n[cancelled]\n"),
            ("lost", -1, UNSEEN, b"", f"{UNSEEN}\n"),
            ("failed", 127, "No such file", b"cannot\n", "cannot\n"),
            ("failed", -1, "no room", b"", "no room\n"),
            ("done", 0, "", b"a", "a"),
            ("done", 126, "killed by signal 9 (KILL)", b"a", "a"),
        ):
            self.wrote(b"", stderr)
            record = attrs.evolve(ENDED, state=state, exit=exit, reason=reason)
            self.assertEqual(self.fields(record)["stderr"], expected)


class ParsedTests(SynchronousTestCase):
    """
    L{parse_record}
    """

    def test_original(self) -> None:
        """
        A record of the original is read too, and is known for one.
        """
        text = b'{"stdout":"","exit":"3","status":"done","reqid":"r-1","owner":"hq"}'
        record = parse_record(text)
        self.assertEqual((record.state, record.exit, record.digest), ("done", 3, ""))
        record = parse_record(b'{"status":"running","reqid":"r-1","script":"x"}')
        self.assertEqual((record.state, record.ended), ("running", False))

    def test_none(self) -> None:
        """
        What makes no sense is no record.
        """
        for text in (
            b"",
            b"[]",
            b'{"status":"done","state":"running"}',
            b'{"status":"running","state":"done"}',
            b'{"status":"done","state":"odd"}',
            b'{"status":"done","exit":"x"}',
            b'{"status":"done","exit":true}',
            b'{"status":"done","reqid":"../x"}',
            b'{"status":"done","on_disconnect":"x"}',
        ):
            self.assertRaises(ProtocolError, parse_record, text)

    def test_userName(self) -> None:
        """
        However long the name of a user is, the beginning of a record is enough.
        """
        record = attrs.evolve(ENDED, username="\U0001f600" * 100_000)
        self.assertLess(len(running_record(record)), HEAD_BYTES)


class EndedByTests(SynchronousTestCase):
    """
    L{ended_by}
    """

    def test_seen(self) -> None:
        """
        How it ended is what was written down.
        """
        ending = Ending(
            exit=126, state="cancelled", reason="cancelled", stdout_bytes=7, finished=60
        )
        record = ended_by(RECORD, ending, NOW)
        self.assertEqual((record.state, record.exit), ("cancelled", 126))
        self.assertEqual(record.finished, "1970-01-01T00:01:00Z")
        self.assertEqual(record.stdout_bytes, 7)

    def test_noTime(self) -> None:
        """
        A time that is none is the time at which it was noticed.
        """
        for finished in (0.0, -1e300, float("inf"), float("nan")):
            record = ended_by(RECORD, Ending(exit=0, finished=finished), NOW)
            self.assertEqual(record.finished, "2026-03-05T18:38:09Z")

    def test_unseen(self) -> None:
        """
        Nobody has seen it.
        """
        record = ended_by(RECORD, None, NOW)
        self.assertEqual((record.state, record.exit), ("lost", -1))
        self.assertTrue(record.reason.startswith("lost: "))


class TextTests(SynchronousTestCase):
    """
    L{OutputText}
    """

    @given(OUTPUT, st.lists(st.integers(0, 100), max_size=6), st.integers(0, 9))
    def test_anyPieces(self, data: bytes, cuts: list[int], more: int) -> None:
        """
        However it comes in pieces, it is the same text; and whoever comes again
        goes on where the text ended.
        """
        text, said, at = OutputText("stdout"), "", 0
        for end in [*sorted(min(cut, len(data)) for cut in cuts), len(data)]:
            said += text.more(data[at:end])
            at = end
            again = OutputText("stdout", text.end)
            rest = again.more(data[text.end :]) + again.rest(len(data))
            self.assertEqual(said + rest, data.decode("utf-8", "replace"))
        total = len(data) + more
        kept = whole_bytes(data[-3:], len(data), total)
        said += text.rest(total) + text.cut(total)
        self.assertEqual(said, shown(data, kept, total))
        self.assertEqual(text.end, kept)

    @given(st.text(), st.integers(0, 9))
    def test_asElsewhere(self, text: str, cut: int) -> None:
        """
        Of a text that was cut the same is said as of what any other program
        wrote.
        """
        data = text.encode()
        kept = data[: max(len(data) - cut, 0)]
        output = OutputText("stdout")
        said = output.more(kept) + output.rest(len(data)) + output.cut(len(data))
        whole = kept[: output.end]
        self.assertEqual(said, Captured("stdout", whole, len(data)).text())

    def test_exact(self) -> None:
        """
        It is known whether something was replaced.
        """
        text = OutputText("stdout")
        text.more("ü".encode())
        self.assertTrue(text.exact)
        text.more(b"\xe2")
        self.assertTrue(text.exact)
        text.rest(3)
        self.assertFalse(text.exact)
