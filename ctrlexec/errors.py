# SPDX-License-Identifier: AGPL-3.0-only
"""
The exceptions of ctrl-exec.

An exception means that a question could not be answered; an expected outcome
is a value. Each exception is one sentence for the operator, free of secrets,
and may carry a hint: what to do next.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


class CtrlExecError(Exception):
    """
    Anything that ctrl-exec reports as an error.

    @ivar hint: what the operator can do about it, or an empty string.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class InvalidValue(CtrlExecError):
    """
    A text is not a value of the kind that was asked for.

    @ivar what: the kind of value, for example C{"script name"}.
    @ivar given: the text, as given.
    @ivar expected: what would have been right.
    """

    def __init__(self, what: str, given: str, expected: str) -> None:
        super().__init__(f"invalid {what} {abbreviated(given)}: expected {expected}")
        self.what = what
        self.given = given
        self.expected = expected


class SettingsError(CtrlExecError):
    """
    A settings file can not be used.

    @ivar file: the file, as it was named to us.
    @ivar line: the number of the line, counted from 1; 0 where no line is to
        blame.
    @ivar key: the key; empty where no key is to blame.
    """

    def __init__(
        self, file: str, line: int, key: str, problem: str, *, hint: str = ""
    ) -> None:
        where = f"{file}:{line}" if line else file
        subject = f"{key}: " if key else ""
        super().__init__(f"{where}: {subject}{problem}", hint=hint)
        self.file = file
        self.line = line
        self.key = key


class PkiError(CtrlExecError):
    """
    A key, a request or a certificate can not be used.
    """


class RequestRejected(PkiError):
    """
    A certificate signing request is one that we do not sign.
    """


class ProtocolError(CtrlExecError):
    """
    A peer sent something that the protocol does not allow.
    """


class Forbidden(ProtocolError):
    """
    A peer has listened, and does not trust us: it has done nothing.
    """


class TransportError(CtrlExecError):
    """
    No answer came from a peer: the connection failed, was cut, or timed out.
    """


class Unreachable(TransportError):
    """
    There was no connection: the peer has not been asked anything.
    """


class Untrusted(TransportError):
    """
    One of the two does not trust the other: the peer has not been asked
    anything, or has refused to listen.
    """


class Unanswered(TransportError):
    """
    The peer may have been asked, and what it did is not known.
    """


class StoreError(CtrlExecError):
    """
    A record on disk can not be read or written.

    @ivar path: the file.
    """

    def __init__(self, path: Path, problem: str, *, hint: str = "") -> None:
        super().__init__(f"{path}: {problem}", hint=hint)
        self.path = path


class NotFound(CtrlExecError):
    """
    There is no record under this name or id.
    """


class Conflict(CtrlExecError):
    """
    The state does not allow what was asked for.
    """


class UnknownAgents(NotFound):
    """
    Some of the hosts that were named are no registered agents.

    @ivar names: which ones.
    """

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(
            f"unknown agent: {', '.join(map(one_line, names))}",
            hint="ctrl-exec list-agents shows the agents that are paired",
        )
        self.names = tuple(names)


class NotAuthorised(CtrlExecError):
    """
    The auth hook, or the lack of one, does not let a caller do something.

    @ivar reason: in a few words, as the hook's exit status stands for them.
    @ivar code: that exit status; 1 where there was none.
    """

    def __init__(self, reason: str, code: int, *, hint: str = "") -> None:
        super().__init__(reason, hint=hint)
        self.reason = reason
        self.code = code


class Locked(CtrlExecError):
    """
    The same script runs already on some of the hosts.

    @ivar conflicts: where, as C{"HOST:SCRIPT"}.
    """

    def __init__(self, conflicts: Sequence[str]) -> None:
        super().__init__(
            f"already running: {', '.join(conflicts)}",
            hint="run --wait-lock SECONDS waits for it; ctrl-exec list-locks tells "
            "who holds what",
        )
        self.conflicts = tuple(conflicts)


class Unconfirmed(CtrlExecError):
    """
    An order goes to so many hosts that a person should have said yes to it.

    @ivar hosts: to how many.
    """

    def __init__(self, hosts: int, limit: int) -> None:
        super().__init__(
            f"this goes to {hosts} hosts, and more than {limit} need a yes",
            hint="--dry-run shows them; --yes says yes",
        )
        self.hosts = hosts


class Overload(CtrlExecError):
    """
    More is asked for than is worked on at once.

    @ivar live: how much that is.
    """

    def __init__(self, live: int) -> None:
        super().__init__(
            "too many concurrent requests",
            hint="try again in a moment; api_max_children says how many there may be",
        )
        self.live = live


class ShareUsed(Overload):
    """
    Somebody has as much under way as one caller may have.

    @ivar live: how much that is.
    """

    def __init__(self, live: int) -> None:
        CtrlExecError.__init__(
            self,
            f"you follow {live} run{'s'[: live != 1]} already",
            hint="half of what the API follows for everybody is for one caller at most",
        )
        self.live = live


class ListenError(CtrlExecError):
    """
    A port can not be opened.
    """


class NotStarted(CtrlExecError):
    """
    A program can not be started.
    """


class LockHeld(NotStarted):
    """
    A program is not started, since another one holds the lock that it needs.
    """


def abbreviated(text: str, most: int = 60) -> str:
    """
    A text that a peer or a person gave, fit for an error message.

    @param most: how many characters are shown.
    @return: the text in quotes, control characters escaped.
    """
    shown = text if len(text) <= most else text[:most] + "…"
    return ascii(shown) if not shown.isprintable() else f"{shown!r}"


def explained(error: CtrlExecError) -> str:
    """
    An error as a program prints it: a line that says what is wrong and, where
    there is a way out, one that says so.
    """
    hint = f"hint: {one_line(error.hint)}\n" if error.hint else ""
    return f"error: {one_line(str(error))}\n{hint}"


def one_line(text: str) -> str:
    """
    A text that may be a peer's, as one line that does nothing to a terminal.
    """
    return "".join(
        character if character.isprintable() else repr(character)[1:-1]
        for character in text
    )
