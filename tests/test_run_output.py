# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.agent.run_output}: what a script wrote is read again, from its
files or from a record.
"""

from __future__ import annotations

import os
from pathlib import Path

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st

from ctrlexec.agent.run_output import FileOutput, RecordOutput, open_files, open_record
from ctrlexec.agent.run_records import HEAD_BYTES, RunRecord, head_of, parse_record
from ctrlexec.errors import StoreError
from tests.test_run_records import ENDED, TEXT, DirectoryTestCase


class ReadingTests(DirectoryTestCase):
    """
    L{RecordOutput} and L{FileOutput}
    """

    def recorded(self, record: RunRecord) -> tuple[Path, RunRecord]:
        """
        A record in a file, as it says itself.
        """
        path, text = self.directory / "record.json", self.text(record)
        path.write_bytes(text)
        head = head_of(text[:HEAD_BYTES])
        assert head is not None
        return path, parse_record(head)

    @settings(deadline=None)
    @given(TEXT, TEXT, st.integers(0, 90), st.integers(0, 9), st.integers(1, 99))
    def test_record(
        self, stdout: str, stderr: str, at: int, more: int, most: int
    ) -> None:
        """
        What was written is read from the record as from the files, from any
        place on; neither notes nor reasons are a part of it.
        """
        self.wrote(stdout.encode(), stderr.encode())
        total = len(stdout.encode()) + more
        record = attrs.evolve(
            ENDED, stdout_bytes=total, state="cancelled", reason="cancelled"
        )
        path, record = self.recorded(record)
        found = []
        for reader in open_record(path, record, (at, at)):
            data = b""
            while piece := reader.read(most):
                self.assertLessEqual(len(piece), most)
                data += piece
            reader.close()
            found.append(data)
        self.assertEqual(found, [text.encode()[at:] for text in (stdout, stderr)])

    def test_long(self) -> None:
        """
        A record that is read in several pieces is, too; each is good alone.
        """
        text = 'a"\\\n\U0001f600ü\x00' * 20_000
        self.wrote(text.encode())
        path, record = self.recorded(ENDED)
        reader, _ = open_record(path, record, (5, 0))
        assert isinstance(reader, RecordOutput)
        data = b""
        while piece := reader.read(65_536):
            data += piece
        self.assertEqual(data, text.encode()[5:])

    def test_files(self) -> None:
        """
        A file that grows is read on; that its name goes does not matter.
        """
        self.wrote(b"abc")
        reader, _ = open_files(self.directory, (1, 0))
        self.assertEqual(reader.read(1), b"b")
        with (self.directory / "stdout").open("ab") as file:
            self.assertEqual((reader.read(9), reader.read(9)), (b"c", b""))
            (self.directory / "stdout").unlink()
            file.write(b"d")
        self.assertEqual(reader.read(9), b"d")
        reader.close()
        reader.close()

    def test_notYet(self) -> None:
        """
        A file that the script has not written to yet is found when it has; from then
        on it can be read without its name.
        """
        readers = open_files(self.directory, (1, 0))
        self.assertEqual([reader.read(9) for reader in readers], [b"", b""])
        self.wrote(b"abc", b"de")
        for reader in readers:
            reader.look()
        (self.directory / "stdout").unlink()
        self.assertEqual([reader.read(2) for reader in readers], [b"bc", b"de"])
        for reader in readers:
            reader.close()
            reader.look()

    def test_notThere(self) -> None:
        """
        What can not be read is said, and nothing stays open.
        """
        before = os.listdir("/proc/self/fd")
        (self.directory / "stdout").write_bytes(b"")
        (self.directory / "stderr").symlink_to("/etc/passwd")
        self.assertRaises(StoreError, open_files, self.directory, (0, 0))
        (self.directory / "stderr").unlink()
        wrote = attrs.evolve(ENDED, stderr_kept=1)
        self.assertRaises(StoreError, open_files, self.directory, (0, 0), wrote)
        path = self.directory / "record.json"
        self.assertRaises(StoreError, open_record, path, ENDED, (0, 0))
        for text in (b"", b"{}", b'{"stdout":1,"x":"'):
            path.write_bytes(text)
            self.assertRaises(StoreError, open_record, path, ENDED, (0, 0))
        # One of them is the listing's own.
        self.assertEqual(len(os.listdir("/proc/self/fd")), len(before))

    def test_link(self) -> None:
        """
        A link in the place of an output is not followed.
        """
        self.wrote()
        (self.directory / "stdout").unlink()
        (self.directory / "stdout").symlink_to("/etc/passwd")
        self.assertRaises(OSError, FileOutput.open, self.directory / "stdout")
