# SPDX-License-Identifier: AGPL-3.0-only
"""
What the kernel does for a process that asks it with prctl(2).

Python has no call for it but through C{ctypes}, which a system can forbid
(C{MemoryDenyWriteExecute=}) or lack. All of it is a help and no more: without
it orphans of a script are not ours, and we look for them in other ways.
"""

from __future__ import annotations

import signal

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

try:
    import ctypes

    _libc: ctypes.CDLL | None = ctypes.CDLL(None)
except Exception:
    # Whatever is wrong with it: a keeper must start.
    _libc = None


def adopt_orphans(wanted: bool = True) -> bool:
    """
    Become the parent of what our descendants leave behind, or no more.

    @return: whether that is so.
    """
    return _call(_PR_SET_CHILD_SUBREAPER, int(wanted))


def die_with_parent() -> bool:
    """
    Be killed when our parent dies. It outlasts exec, but not fork.

    @return: whether that is so.
    """
    return _call(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _call(option: int, argument: int) -> bool:
    if _libc is None:
        return False
    nothing = (ctypes.c_ulong(0),) * 3
    return bool(_libc.prctl(option, ctypes.c_ulong(argument), *nothing) == 0)
