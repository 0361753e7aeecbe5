# SPDX-License-Identifier: AGPL-3.0-only
"""
What is on record of a run, and how a record is spelled: NEWER-LINE.md section
6.1, and what is ours (C{docs/runs.md}).

What a script wrote stands at the end of a record. So all that is said of it can
be read without it, and a record is written, and answered with, piece by piece.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from typing import Any

import attrs

from ctrlexec.agent.runs import Ending
from ctrlexec.errors import InvalidValue, ProtocolError
from ctrlexec.events import brief
from ctrlexec.output import cut_note
from ctrlexec.protocol.fields import from_json, text_field, to_json
from ctrlexec.protocol.messages import NEVER_RAN
from ctrlexec.protocol.run_messages import (
    CANCELLED,
    DONE,
    FAILED,
    LOST,
    RUNNING,
    STATES,
    TIMED_OUT,
)
from ctrlexec.values import ON_DISCONNECT, iso_time, request_id

#: How much of an output is read, decoded or spelled at once.
PIECE_BYTES = 65_536
#: More than all that a record says before what a script wrote.
HEAD_BYTES = 16_384
#: Where what a script wrote begins in a record of ours. No text that JSON spells
#: holds a quote without a backslash.
STDOUT_MARK, STDERR_MARK = b',"stdout":"', b'","stderr":"'
#: Why there is nothing to say of the end of a run.
UNSEEN = "lost: its end was not seen, as its host or what looked after it had ended"
_HOLLOW = b'"stdout":"","stderr":""'


@attrs.frozen(kw_only=True)
class RunRecord:
    """
    What an agent knows of a run, but for what it wrote.

    @ivar reqid: empty where the caller gave none that is good for a file name.
    @ivar owner: the id of the dispatcher that has asked for it.
    @ivar peer: the address that it was asked from.
    @ivar started: ISO 8601 in UTC; likewise C{finished}.
    @ivar state: see L{ctrlexec.protocol.run_messages}.
    @ivar exit: -1 while it runs, and where nobody has seen its end.
    @ivar reason: why it did not end by itself, or which signal ended it; else
        empty.
    @ivar username: who wanted it, as the dispatcher was told.
    @ivar digest: of what was asked for (L{digest_of}); empty in a record of the
        original.
    @ivar stdout_bytes: how much it wrote.
    @ivar stderr_bytes: likewise.
    @ivar stdout_kept: how much of that is kept, without a character at the end
        of which only a part is.
    @ivar stderr_kept: likewise.
    """

    reqid: str
    owner: str
    script: str
    started: str
    peer: str = ""
    state: str = RUNNING
    finished: str = ""
    exit: int = NEVER_RAN
    reason: str = attrs.field(default="", converter=brief)
    username: str = attrs.field(default="", converter=brief)
    asynchronous: bool = False
    on_disconnect: str = "keep"
    digest: str = ""
    stdout_bytes: int = 0
    stderr_bytes: int = 0
    stdout_kept: int = 0
    stderr_kept: int = 0

    @property
    def ended(self) -> bool:
        """
        Whether it runs no more.
        """
        return self.state != RUNNING

    def total(self, stream: str) -> int:
        """
        How many bytes it wrote to C{"stdout"} or C{"stderr"}.
        """
        return self.stdout_bytes if stream == "stdout" else self.stderr_bytes

    def kept(self, stream: str) -> int:
        """
        How many of them are kept.
        """
        return self.stdout_kept if stream == "stdout" else self.stderr_kept

    def last_line(self, begun: bool) -> str:
        """
        What the end of its stderr says to a peer that knows of no states.

        @param begun: whether what it wrote itself does not end with a line.
        """
        if self.state == FAILED and self.exit != NEVER_RAN:
            # What looks after a script has said why it could not be executed.
            return ""
        if not self.reason or self.state == DONE:
            # What a signal has ended is no news to such a peer: exit is 126.
            return ""
        ended = self.state in (CANCELLED, TIMED_OUT)
        line = f"[{self.reason}]" if ended else self.reason
        return f"\n{line}\n" if begun else f"{line}\n"


def ended_by(record: RunRecord, ending: Ending | None, now: datetime) -> RunRecord:
    """
    The record of a run that has ended.

    @param ending: C{None} where nobody has seen it.
    @param now: when that was noticed.
    """
    if ending is None:
        return attrs.evolve(
            record, state=LOST, finished=iso_time(now), exit=NEVER_RAN, reason=UNSEEN
        )
    return attrs.evolve(
        record,
        state=ending.state,
        finished=_iso(ending.finished) or iso_time(now),
        exit=ending.exit,
        reason=ending.reason,
        stdout_bytes=ending.stdout_bytes,
        stderr_bytes=ending.stderr_bytes,
    )


def _iso(seconds: float) -> str:
    """
    @param seconds: since the epoch; 0 for what is not known.
    """
    if not seconds:
        return ""
    try:
        return iso_time(datetime.fromtimestamp(seconds, timezone.utc))
    except (ValueError, OverflowError, OSError):
        return ""


def digest_of(script: str, args: Sequence[str]) -> str:
    """
    What tells a request that is sent once more from another one of its id.
    """
    asked = to_json({"script": script, "args": [*args]})
    return hashlib.sha256(asked).hexdigest()


def running_record(record: RunRecord) -> bytes:
    """
    The record of a run that lives.
    """
    return to_json(_head(record))


def ended_record(record: RunRecord) -> tuple[bytes, bytes]:
    """
    The record of a run that has ended: what stands before its output, and what
    follows; see L{around}.
    """
    head = {**_head(record), "finished": record.finished, "exit": record.exit}
    ours = {
        "stdout_bytes": record.stdout_bytes,
        "stderr_bytes": record.stderr_bytes,
        "stdout_kept": record.stdout_kept,
        "stderr_kept": record.stderr_kept,
    }
    return around(to_json({**head, **ours, "stdout": "", "stderr": ""}))


def around(hollow: bytes) -> tuple[bytes, bytes]:
    """
    @param hollow: a message in JSON whose stdout and stderr are empty.
    @return: what is before, and what is after them: in between belongs
        L{spelled_output}.
    """
    before, found, after = hollow.partition(_HOLLOW)
    assert found
    return before, after


def _head(record: RunRecord) -> dict[str, Any]:
    return {
        "reqid": record.reqid,
        "status": DONE if record.ended else RUNNING,
        "script": record.script,
        "owner": record.owner,
        "started": record.started,
        "state": record.state,
        "reason": record.reason,
        "username": record.username,
        "async": record.asynchronous,
        "on_disconnect": record.on_disconnect,
        "digest": record.digest,
        "peer": record.peer,
    }


def head_of(beginning: bytes) -> bytes | None:
    """
    @param beginning: of a record; L{HEAD_BYTES} of it are enough.
    @return: all that a record of ours says but for the output, as JSON; C{None}
        where that is something else.
    """
    head, found, _ = beginning.partition(STDOUT_MARK)
    if found:
        return head + b"}"
    return beginning if beginning.endswith(b"}") else None


def parse_record(text: bytes) -> RunRecord:
    """
    Read a record, one of the original too, and leave the output aside.

    @raise ProtocolError: it is none.
    """
    fields = from_json(text)
    ended = text_field(fields, "status") != RUNNING
    state = text_field(fields, "state") or (DONE if ended else RUNNING)
    if state not in STATES or ended == (state == RUNNING):
        raise ProtocolError("state makes no sense")
    on_disconnect = text_field(fields, "on_disconnect") or "keep"
    if on_disconnect not in ON_DISCONNECT:
        raise ProtocolError("on_disconnect makes no sense")
    return RunRecord(
        reqid=_reqid(fields),
        owner=text_field(fields, "owner"),
        script=text_field(fields, "script"),
        started=text_field(fields, "started"),
        peer=text_field(fields, "peer"),
        state=state,
        finished=text_field(fields, "finished"),
        exit=_number(fields, "exit", NEVER_RAN),
        reason=text_field(fields, "reason"),
        username=text_field(fields, "username"),
        asynchronous=fields.get("async") is not False,
        on_disconnect=on_disconnect,
        digest=text_field(fields, "digest"),
        **{name: _number(fields, name) for name in _COUNTS},
    )


_COUNTS = ("stdout_bytes", "stderr_bytes", "stdout_kept", "stderr_kept")


def _reqid(fields: dict[str, Any]) -> str:
    reqid = text_field(fields, "reqid")
    try:
        return reqid and request_id(reqid)
    except InvalidValue as error:
        raise ProtocolError(str(error)) from None


def _number(fields: dict[str, Any], name: str, otherwise: int = 0) -> int:
    value = fields.get(name, otherwise)
    # The original's numbers can be strings.
    if isinstance(value, str) and re.fullmatch("-?[0-9]{1,9}", value):
        return int(value)
    if type(value) is not int:
        raise ProtocolError(f"{name} must be a number")
    return value


# What a script wrote.


@attrs.define
class OutputText:
    """
    What a script writes to a stream, as text: however it comes in pieces, it is
    the same text.

    @ivar stream: C{"stdout"} or C{"stderr"}.
    @ivar end: how many bytes of it the text so far stands for.
    @ivar exact: whether the text is just what it wrote: nothing in it was
        replaced.
    """

    stream: str
    end: int = 0
    exact: bool = True
    _decoder: codecs.IncrementalDecoder = attrs.field(
        factory=lambda: codecs.getincrementaldecoder("utf-8")("replace"), init=False
    )
    _waiting: int = attrs.field(default=0, init=False)

    def more(self, data: bytes) -> str:
        """
        It wrote this; a character that has only begun waits for its rest.
        """
        text = self._decoder.decode(data)
        left = len(self._decoder.getstate()[0])
        self.end += self._waiting + len(data) - left
        self._waiting = left
        return self._noted(text)

    def rest(self, total: int) -> str:
        """
        That was all that is kept.

        @param total: how much it wrote.
        @return: what of the text has waited; nothing where we have cut it
            ourselves.
        """
        if total > self.end + self._waiting:
            return ""
        self.end, self._waiting = self.end + self._waiting, 0
        return self._noted(self._decoder.decode(b"", final=True))

    def cut(self, total: int) -> str:
        """
        The line that says so where there was more; else nothing.
        """
        if total <= self.end:
            return ""
        return cut_note(self.stream, self.end, total)

    def _noted(self, text: str) -> str:
        self.exact = self.exact and "\ufffd" not in text
        return text


def whole_bytes(tail: bytes, size: int, total: int) -> int:
    """
    How much of an output counts as kept: all of it, or, where there was more,
    all but a character that the cut went through.

    @param tail: its last bytes, three or all of them.
    @param size: how many bytes there are.
    @param total: how many there have been.
    """
    if total <= size:
        return size
    text = OutputText("")
    # What begins before the tail and ends within is whole.
    beginning = tail.lstrip(bytes(range(0x80, 0xC0)))
    text.more(beginning)
    return size - (len(beginning) - text.end)


def escaped(text: str) -> bytes:
    """
    A text as JSON spells it, without the quotes.
    """
    return json.dumps(text)[1:-1].encode("ascii")


def spelled_output(
    record: RunRecord, outputs: Sequence[tuple[OutputText, Callable[[int], bytes]]]
) -> Iterator[bytes]:
    """
    What a script wrote, as a message spells it, in pieces.

    @param outputs: stdout, and stderr: what becomes of it, and what reads up to
        so many bytes more of what is kept; nothing at the end.
    """
    for text, read in outputs:
        yield b'"%s":"' % text.stream.encode()
        begun = False
        while data := read(PIECE_BYTES):
            piece = text.more(data)
            yield escaped(piece)
            begun = not piece.endswith("\n") if piece else begun
        total = record.total(text.stream)
        last = text.rest(total) + text.cut(total)
        begun = not last.endswith("\n") if last else begun
        if text.stream == "stderr":
            last += record.last_line(begun)
        yield escaped(last) + (b'",' if text.stream == "stdout" else b'"')
