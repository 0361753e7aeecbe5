# SPDX-License-Identifier: AGPL-3.0-only
"""
Reading what a script wrote: from the files that it is written to, or from the
record that has been made of them.

Whoever reads has a place of their own in it, and an open file: nothing that
happens to the names of files disturbs them.
"""

from __future__ import annotations

import errno
import json
import mmap
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import attrs

from ctrlexec.agent.run_records import PIECE_BYTES, STDERR_MARK, STDOUT_MARK, RunRecord
from ctrlexec.agent.runs import STDERR, STDOUT
from ctrlexec.errors import StoreError

#: The names of both.
STREAMS = (STDOUT, STDERR)

# What can be unescaped alone: whole escapes, whole pairs of surrogates.
_WHOLE = re.compile(
    rb"(?:[^\"\\]+|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[0-9a-fA-F]{4}"
    rb"|\\u(?![dD][89abAB])[0-9a-fA-F]{4}|\\[^u])*"
)


class OutputReader(Protocol):
    """
    An output stream, from some place on.
    """

    def read(self, most: int) -> bytes:
        """
        @param most: how many bytes, at least 1.
        @return: what follows; nothing where there is no more, or not yet.
        @raise OSError: it can not be read.
        """

    def look(self) -> None:
        """
        Something was written, or nothing more will be: from now on what is there
        can be read whatever happens to its name.

        @raise OSError: it can not be.
        """

    def close(self) -> None:
        """
        Nobody reads any more.
        """


@attrs.define
class FileOutput:
    """
    A file that a script may still write to.

    @ivar descriptor: which we close.
    @ivar at: how many bytes were read, or left out.
    @ivar most: where the end is at the latest; C{None} for nowhere.
    """

    descriptor: int
    at: int = 0
    most: int | None = None

    @classmethod
    def open(cls, path: Path, at: int = 0) -> FileOutput:
        """
        @raise OSError: it can not be opened.
        """
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        return cls(os.open(path, flags), at)

    def read(self, most: int) -> bytes:
        """
        See L{OutputReader}.
        """
        if self.most is not None:
            most = min(most, self.most - self.at)
        if most <= 0:
            return b""
        data = os.pread(self.descriptor, most, self.at)
        self.at += len(data)
        return data

    def close(self) -> None:
        """
        See L{OutputReader}.
        """
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


@attrs.define
class LiveOutput:
    """
    A file that a script writes to, which is there once it has written something.

    @ivar at: how many bytes are left out.
    """

    path: Path
    at: int = 0
    _file: FileOutput | None = attrs.field(default=None, init=False)
    _closed: bool = attrs.field(default=False, init=False)

    @property
    def there(self) -> bool:
        """
        Whether it was found.
        """
        return self._file is not None

    def read(self, most: int) -> bytes:
        """
        See L{OutputReader}.
        """
        self.look()
        return self._file.read(most) if self._file else b""

    def look(self) -> None:
        """
        See L{OutputReader}.
        """
        if self._file is None and not self._closed:
            with suppress(FileNotFoundError):
                self._file = FileOutput.open(self.path, self.at)

    def close(self) -> None:
        """
        See L{OutputReader}.
        """
        self._closed = True
        if self._file is not None:
            self._file.close()


@attrs.define
class RecordOutput:
    """
    A text in a record, where JSON spells it; only for one that stands for just
    the bytes that were written.

    @ivar spelled: the file, at where the text begins.
    @ivar left: how many bytes of what it stands for are still to come.
    """

    spelled: FileOutput
    left: int
    _spelled: bytes = attrs.field(default=b"", init=False)
    _plain: bytes = attrs.field(default=b"", init=False)

    def read(self, most: int) -> bytes:
        """
        See L{OutputReader}.
        """
        if not self._plain and self.left:
            self._plain = self._unescaped()
        data, self._plain = self._plain[:most], self._plain[most:]
        return data

    def skip(self, count: int) -> None:
        """
        Leave out what somebody has already.
        """
        while count > 0 and (data := self.read(min(count, PIECE_BYTES))):
            count -= len(data)

    def look(self) -> None:
        """
        See L{OutputReader}.
        """

    def close(self) -> None:
        """
        See L{OutputReader}.
        """
        self.spelled.close()

    def _unescaped(self) -> bytes:
        self._spelled += self.spelled.read(PIECE_BYTES)
        found = _WHOLE.match(self._spelled)
        assert found is not None
        whole, self._spelled = found[0], self._spelled[found.end() :]
        text: str = json.loads(b'"%s"' % whole)
        plain = text.encode()[: self.left]
        # A text that ends before it should has no more to give.
        self.left = self.left - len(plain) if plain else 0
        return plain


def open_files(
    directory: Path, at: tuple[int, int], ended: RunRecord | None = None
) -> tuple[OutputReader, ...]:
    """
    What a script writes in the directory of its run.

    @param at: how many bytes of stdout and of stderr are left out.
    @param ended: the record of a run that has ended. As long as it has not, nobody
        but its script has removed what is not there.
    @raise StoreError: the files can not be opened.
    """
    opened = [
        LiveOutput(directory / name, offset)
        for name, offset in zip(STREAMS, at, strict=True)
    ]
    try:
        for name, each in zip(STREAMS, opened, strict=True):
            each.look()
            if ended is not None and ended.kept(name) and not each.there:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    except OSError as error:
        for each in opened:
            each.close()
        raise StoreError(directory, f"cannot read it: {error.strerror}") from error
    return tuple(opened)


def open_record(
    path: Path, record: RunRecord, at: tuple[int, int]
) -> tuple[OutputReader, ...]:
    """
    What a script wrote, from the record of its run. It can take a while where
    that was much.

    @param record: what the record says beside it.
    @param at: how many bytes of stdout and of stderr are left out.
    @raise StoreError: the record can not be read.
    """
    try:
        with path.open("rb") as file:
            places = _places(path, file.fileno())
            opened = tuple(
                RecordOutput(
                    FileOutput(os.dup(file.fileno()), place), record.kept(name)
                )
                for name, place in zip(STREAMS, places, strict=True)
            )
        for each, offset in zip(opened, at, strict=True):
            each.skip(offset)
    except OSError as error:
        raise StoreError(path, f"cannot read it: {error.strerror}") from error
    return opened


def _places(path: Path, descriptor: int) -> tuple[int, int]:
    """
    Where stdout and stderr begin in a record.
    """
    try:
        with mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) as text:
            stdout = text.find(STDOUT_MARK)
            stderr = text.find(STDERR_MARK, stdout + len(STDOUT_MARK))
    except ValueError:  # it is empty
        stdout = stderr = -1
    if stdout < 0 or stderr < 0:
        raise StoreError(path, "is no record of ours")
    return stdout + len(STDOUT_MARK), stderr + len(STDERR_MARK)
