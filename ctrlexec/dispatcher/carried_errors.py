# SPDX-License-Identifier: AGPL-3.0-only
"""
Errors that one program of ours meets and another one shows: as what they are,
and in the same words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ctrlexec.dispatcher.members import (
    number_of,
    object_of,
    path_of,
    text_of,
    texts_of,
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

# What each of them knows beside its sentence and its hint.
_MEMBERS: Mapping[
    type[CtrlExecError], Mapping[str, Callable[[Mapping[str, Any], str], Any]]
] = {
    CtrlExecError: {},
    InvalidValue: {"what": text_of, "given": text_of, "expected": text_of},
    SettingsError: {"file": text_of, "line": number_of, "key": text_of},
    PkiError: {},
    RequestRejected: {},
    ProtocolError: {},
    Forbidden: {},
    TransportError: {},
    Unreachable: {},
    Untrusted: {},
    Unanswered: {},
    StoreError: {"path": path_of},
    NotFound: {},
    Conflict: {},
    UnknownAgents: {"names": texts_of},
    NotAuthorised: {"reason": text_of, "code": number_of},
    Locked: {"conflicts": texts_of},
    Unconfirmed: {"hosts": number_of},
    Overload: {"live": number_of},
    ShareUsed: {"live": number_of},
    ListenError: {},
    NotStarted: {},
    LockHeld: {},
}
_KINDS = {kind.__name__: kind for kind in _MEMBERS}


def error_fields(error: CtrlExecError) -> dict[str, Any]:
    """
    What an error is and says. One that only some module of ours knows goes as
    the nearest that all know.
    """
    kind = next(each for each in type(error).__mro__ if each in _MEMBERS)
    members = {name: getattr(error, name) for name in _MEMBERS[kind]}
    said = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in members.items()
    }
    return {"kind": kind.__name__, "message": str(error), "hint": error.hint, **said}


def error_of(content: object) -> CtrlExecError:
    """
    The inverse of L{error_fields}; a kind that is not known here is an error
    as any.

    @raise ProtocolError: this is no error.
    """
    fields = object_of(content)
    kind = _KINDS.get(text_of(fields, "kind"), CtrlExecError)
    # Its sentence is made already. It is not put together a second time: the
    # other program may be of another version, and have other words.
    error = kind.__new__(kind)
    message, hint = text_of(fields, "message"), text_of(fields, "hint")
    CtrlExecError.__init__(error, message, hint=hint)
    for name, read in _MEMBERS[kind].items():
        setattr(error, name, read(fields, name))
    return error
