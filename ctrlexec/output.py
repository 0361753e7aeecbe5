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
        return text + cut_note(self.stream, len(self.kept), self.total_bytes)


def cut_note(stream: str, kept_bytes: int, total_bytes: int) -> str:
    """
    What follows the output of a program of which we have not kept everything.
    """
    return f"\n[{stream} cut: {kept_bytes} of {total_bytes} bytes kept]\n"
