# SPDX-License-Identifier: AGPL-3.0-only
"""
What is heard of a run: how much it is, and as much of it as is kept.
"""

from __future__ import annotations

from io import StringIO

import attrs
from twisted.internet.defer import Deferred

from ctrlexec.dispatcher.dispatch import Heard
from ctrlexec.dispatcher.orders import Seen
from ctrlexec.dispatcher.results import RunRow
from ctrlexec.protocol.run_messages import Output, StateChanged


@attrs.define(eq=False)
class Kept:
    """
    What a run that is followed has written: the beginning of it is kept, and all
    of it is counted.

    @ivar most: how many characters are kept, of both streams together.
    @ivar ends: how many bytes of each stream have been heard.
    @ivar events: how much has been heard.
    """

    most: int
    ends: dict[str, int] = attrs.field(factory=dict)
    events: int = 0
    _texts: dict[str, StringIO] = attrs.field(factory=dict, init=False)
    _cut: dict[str, int] = attrs.field(factory=dict, init=False)

    @classmethod
    def since(cls, seen: Seen, most: int) -> Kept:
        """
        What comes after what somebody has seen.
        """
        return cls(most, {"stdout": seen.stdout, "stderr": seen.stderr})

    @property
    def seen(self) -> Seen:
        """
        From where to go on.
        """
        return Seen(self.ends.get("stdout", 0), self.ends.get("stderr", 0))

    def take(self, event: Output | StateChanged) -> None:
        """
        Something was heard.
        """
        self.events += 1
        if not isinstance(event, Output):
            return
        stream, kept = event.stream, event.text[: self.most]
        self.most -= len(kept)
        self._texts.setdefault(stream, StringIO()).write(kept)
        before = self.ends.get(stream, 0)
        if len(kept) < len(event.text):
            self._cut.setdefault(stream, before + len(kept.encode()))
        self.ends[stream] = max(before, event.end)

    def text(self, stream: str, total_bytes: int) -> str:
        """
        @param total_bytes: how much the run has written there.
        @return: as L{ctrlexec.output.Captured.text}.
        """
        text = self._texts[stream].getvalue() if stream in self._texts else ""
        if stream not in self._cut:
            return text
        kept = f"{self._cut[stream]} of {max(total_bytes, self.ends[stream])}"
        return f"{text}\n[{stream} cut: {kept} bytes kept]\n"


def noting(kept: Kept, heard: Heard) -> Heard:
    """
    @return: tells somebody what is heard, and has it noted how much that is.
    """

    def noted(event: Output | StateChanged) -> Deferred[None] | None:
        kept.take(event)
        return heard(event)

    return noted


async def tell(heard: Heard, seen: Seen, row: RunRow) -> None:
    """
    Let somebody hear at once what a run has written, who has seen some of it.
    """
    for stream, text, start in (
        ("stdout", row.stdout, seen.stdout),
        ("stderr", row.stderr, seen.stderr),
    ):
        whole = text.encode("utf-8", "replace")
        rest = whole[start:].decode("utf-8", "replace")
        if rest:
            waiting = heard(Output(0.0, stream, rest, len(whole)))
            if waiting is not None:
                await waiting
