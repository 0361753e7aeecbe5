# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.dispatcher.carried_errors}: errors, on their way.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from ctrlexec import errors
from ctrlexec.dispatcher.carried_errors import error_fields, error_of
from ctrlexec.dispatcher.operator_lines import (
    Failed,
    failed_line,
    read_line,
    unreadable_line,
)
from ctrlexec.errors import (
    Conflict,
    CtrlExecError,
    Forbidden,
    InvalidValue,
    ListenError,
    Locked,
    LockHeld,
    NotAuthorised,
    NotFound,
    NotStarted,
    Overload,
    PkiError,
    ProtocolError,
    RequestRejected,
    SettingsError,
    ShareUsed,
    StoreError,
    TransportError,
    Unanswered,
    Unconfirmed,
    UnknownAgents,
    Unreachable,
    Untrusted,
)
from ctrlexec.protocol.http import BadMessage

ERRORS: tuple[CtrlExecError, ...] = (
    CtrlExecError("nothing works", hint="try again"),
    InvalidValue("script name", "a b", "no blanks"),
    SettingsError("ctrl-exec.conf", 7, "port", "expected a number", hint="write one"),
    PkiError("no key"),
    RequestRejected("too short a key"),
    ProtocolError("no answer of ours"),
    Forbidden("serial mismatch"),
    TransportError("cut"),
    Unreachable("nobody listens"),
    Untrusted("another CA"),
    Unanswered("read timeout after 60s"),
    StoreError(Path("/var/lib/x"), "disk full", hint="make room"),
    NotFound("no such agent", hint="list-agents"),
    Conflict("it is there already"),
    UnknownAgents(["a", "b\x1b"]),
    NotAuthorised("bad credentials", 2, hint="the hook"),
    Locked(["a:backup", "b:backup"]),
    Unconfirmed(60, 50),
    Overload(64),
    ShareUsed(64),
    ListenError("taken"),
    NotStarted("no such program"),
    LockHeld("it runs already"),
)


def members(error: CtrlExecError) -> dict[str, Any]:
    """
    All that an error knows.
    """
    return {**vars(error), "str": str(error)}


class ErrorsTests(SynchronousTestCase):
    """
    Errors, on their way.
    """

    def test_all(self) -> None:
        """
        Each of our errors arrives as what it was: its class, its words, and all
        that it knows.
        """
        every = {
            each
            for each in vars(errors).values()
            if isinstance(each, type) and issubclass(each, CtrlExecError)
        }
        self.assertEqual({type(error) for error in ERRORS}, every)
        for error in ERRORS:
            match read_line(failed_line(error)):
                case Failed(carried):
                    self.assertIs(type(carried), type(error))
                    self.assertEqual(members(carried), members(error))
                case other:
                    self.fail(f"{other}")

    def test_unreadable(self) -> None:
        """
        A record that can not be read is named with its reason.
        """
        error = StoreError(Path("/var/lib/agents/web-1.json"), "is cut off")
        carried = read_line(unreadable_line(error))
        assert isinstance(carried, StoreError)
        self.assertEqual(members(carried), members(error))

    def test_words(self) -> None:
        """
        The sentence is the one that the other end has made, whatever this one
        would have made of it.
        """
        fields = {**error_fields(Unconfirmed(60, 50)), "message": "so many hosts"}
        carried = error_of(fields)
        self.assertIsInstance(carried, Unconfirmed)
        self.assertEqual(str(carried), "so many hosts")

    def test_special(self) -> None:
        """
        One that only a module of its own knows arrives as what it is a kind of;
        one that is not known here as an error.
        """
        self.assertIs(
            type(error_of(error_fields(BadMessage(400, "odd")))), ProtocolError
        )
        unknown = {"kind": "Eaten", "message": "by a dog", "hint": "feed it"}
        carried = error_of(unknown)
        self.assertIs(type(carried), CtrlExecError)
        self.assertEqual((str(carried), carried.hint), ("by a dog", "feed it"))
        self.assertIs(type(error_of({"kind": "Path"})), CtrlExecError)
