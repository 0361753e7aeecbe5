# SPDX-License-Identifier: AGPL-3.0-only
"""
One request to the API through its unix socket, and the lines that it answers.

A command line waits for this module, so it loads nothing that takes long. The
request is one of HTTP/1.0, whose answer is as it comes: what is complete is
known by what the last line says.
"""

from __future__ import annotations

import re
import select
import socket
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import attrs

from ctrlexec.errors import ProtocolError, TransportError
from ctrlexec.protocol.fields import from_json
from ctrlexec.protocol.limits import HEADER_BYTES

#: How long a line may be, in bytes: longer than any answer of an agent that
#: the settings let in.
LINE_BYTES = 2**30
_RECEIVED_BYTES = 262_144
_REFUSAL_BYTES = 65_536
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?![0-9])")
_WITHOUT = "--direct does without the API"


class Cut(TransportError):
    """
    The API has taken the request, or may have, and does not tell what came of
    it.
    """


@attrs.frozen(kw_only=True)
class Patience:
    """
    @ivar take_seconds: how long the API may take to take a request. What it
        does with it may take as long as it does.
    @ivar tick_seconds: how often somebody hears that time goes by.
    @ivar line_bytes: how long a line of the answer may be.
    """

    take_seconds: float = 10.0
    tick_seconds: float = 1.0
    line_bytes: int = LINE_BYTES


def is_usable(path: Path) -> bool:
    """
    Whether there is an API behind a socket, and we may talk to it.
    """
    try:
        _connected(path, Patience().take_seconds).close()
    except OSError:
        return False
    return True


@attrs.define(eq=False)
class Conversation:
    """
    @ivar ticked: is called as time goes by.
    """

    connection: socket.socket
    patience: Patience
    ticked: Callable[[], None]
    _buffer: bytearray = attrs.field(factory=bytearray, init=False)
    _next_tick: float = attrs.field(init=False)
    _waits: bool = attrs.field(default=False, init=False)
    _is_interrupted: bool = attrs.field(default=False, init=False)

    @classmethod
    def begun(
        cls,
        path: Path,
        patience: Patience,
        ticked: Callable[[], None],
        *,
        where: str,
        body: bytes,
    ) -> Conversation:
        """
        Ask the API.

        @param path: its socket.
        @param where: the path of the request.
        @return: ready to be asked for the lines of the answer.
        @raise TransportError: it has not taken the request.
        """
        try:
            connection = _connected(path, patience.take_seconds)
        except OSError as error:
            raise _unreachable(path, error) from error
        ours = cls(connection, patience, ticked)
        try:
            ours._ask(where, body)
        except BaseException:
            ours.close()
            raise
        return ours

    def __attrs_post_init__(self) -> None:
        self._next_tick = monotonic() + self.patience.tick_seconds

    def interrupt(self) -> None:
        """
        Called by whoever catches a signal: raise a C{KeyboardInterrupt} where
        we wait, now or next time. Nothing is lost by it, and waiting can go on.
        """
        if self._waits:
            raise KeyboardInterrupt
        self._is_interrupted = True

    def close(self) -> None:
        """
        Leave. The API asks no further host.
        """
        self.connection.close()

    def line(self) -> bytes:
        """
        @return: the next line of the answer, without its newline.
        @raise Cut: there is none.
        """
        return self._until(b"\n", self.patience.line_bytes)

    def _ask(self, where: str, body: bytes) -> None:
        lines = [
            f"POST {where} HTTP/1.0",
            "Host: localhost",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
        ]
        head = "\r\n".join([*lines, "", ""]).encode("ascii")
        try:
            self.connection.sendall(head + body)
        except TimeoutError:
            raise TransportError(
                "the API does not take the order", hint=_WITHOUT
            ) from None
        except OSError:
            # It does not want all of it, and may have said why.
            pass
        until = monotonic() + self.patience.take_seconds
        found = _STATUS.match(self._until(b"\r\n\r\n", HEADER_BYTES, until))
        if found is None:
            raise Cut("what answers at the API's socket is no API", hint=_WITHOUT)
        if found[1] != b"200":
            raise self._refusal(int(found[1]), until)

    def _refusal(self, status: int, until: float) -> TransportError:
        while len(self._buffer) <= _REFUSAL_BYTES and self._receives(until):
            pass
        try:
            said = from_json(bytes(self._buffer))
        except ProtocolError:
            said = {}
        why = said.get("detail") or said.get("error") or "without a reason"
        return TransportError(f"the API answered {status}: {why}", hint=_WITHOUT)

    def _until(self, end: bytes, most: int, until: float | None = None) -> bytes:
        """
        @param most: how many bytes may come before the end.
        @param until: when to give up, by the monotonic clock.
        """
        seen = 0
        while (found := self._buffer.find(end, seen)) < 0:
            seen = max(len(self._buffer) - len(end) + 1, 0)
            if seen > most:
                raise Cut("the API's answer has no end", hint=_WITHOUT)
            if not self._receives(until):
                raise Cut("the API has closed the connection before the end")
        data = bytes(self._buffer[:found])
        del self._buffer[: found + len(end)]
        return data

    def _receives(self, until: float | None) -> bool:
        """
        Wait for more.

        @return: whether there is any.
        """
        while True:
            now = monotonic()
            if until is not None and now >= until:
                raise Cut("the API does not answer", hint=_WITHOUT)
            if now >= self._next_tick:
                self._next_tick = now + self.patience.tick_seconds
                self.ticked()
            next_time = (
                self._next_tick if until is None else min(until, self._next_tick)
            )
            if not self._is_readable(next_time - now):
                continue
            try:
                data = self.connection.recv(_RECEIVED_BYTES)
            except TimeoutError:
                continue
            except OSError:
                return False
            self._buffer += data
            return bool(data)

    def _is_readable(self, seconds: float) -> bool:
        """
        Only here an interrupt ends the waiting: what is received is not lost.
        """
        self._waits = True
        try:
            if self._is_interrupted:
                self._is_interrupted = False
                raise KeyboardInterrupt
            return bool(select.select([self.connection], [], [], max(seconds, 0))[0])
        finally:
            self._waits = False


def _connected(path: Path, seconds: float) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(seconds)
        connection.connect(str(path))
    except BaseException:
        connection.close()
        raise
    return connection


def _unreachable(path: Path, error: OSError) -> TransportError:
    hint = _WITHOUT
    if isinstance(error, PermissionError):
        hint = f"it is for the group that api_group names; {_WITHOUT}"
    return TransportError(
        f"the API's socket {path} can not be used: {error.strerror or error}", hint=hint
    )
