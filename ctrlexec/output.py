# SPDX-License-Identifier: AGPL-3.0-only
"""
What programs write: the beginning of it is kept, and all of it is counted.
"""

from __future__ import annotations

import codecs

import attrs


@attrs.frozen
class Captured:
    """
    What a program wrote to one of its output streams.

    @ivar stream: the name of the stream, C{"stdout"} or C{"stderr"}.
    @ivar kept: the first bytes of it, as many as we were told to keep.
    @ivar total_bytes: how many bytes the program wrote.
    """

    stream: str
    kept: bytes
    total_bytes: int

    @property
    def cut(self) -> bool:
        """
        Whether the program wrote more than we kept.
        """
        return self.total_bytes > len(self.kept)

    def text(self) -> str:
        """
        @return: the kept bytes as UTF-8, undecodable ones replaced; a last
            line says so when there was more.
        """
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        # A character that our own cut went through is left out, not replaced.
        text = decoder.decode(self.kept, final=not self.cut)
        if not self.cut:
            return text
        return (
            f"{text}\n[{self.stream} cut: "
            f"{len(self.kept)} of {self.total_bytes} bytes kept]\n"
        )


@attrs.define
class Output:
    """
    An output stream while the program runs: all of it is read, so that the
    program never waits for us, and the first C{limit} bytes are kept.
    """

    stream: str
    limit: int
    kept: bytearray = attrs.field(factory=bytearray)
    total_bytes: int = 0

    def received(self, data: bytes) -> None:
        """
        The program wrote this.
        """
        self.kept += data[: self.limit - len(self.kept)]
        self.total_bytes += len(data)

    def captured(self) -> Captured:
        """
        What there is so far.
        """
        return Captured(self.stream, bytes(self.kept), self.total_bytes)
