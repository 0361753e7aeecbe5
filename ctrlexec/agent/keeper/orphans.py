# SPDX-License-Identifier: AGPL-3.0-only
"""
What a keeper leaves that was killed: nobody looks after it any more, so it is ended.

It comes to the program that keepers are made of, which adopts orphans. A keeper that
ends in good order has let go of what is to go on, before: so whatever is a child of
that program and no keeper was left by one that was killed.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Container

from ctrlexec.agent.keeper.clearing import send
from ctrlexec.agent.keeper.descendants import descendants

#: How often we kill, and how long we wait for the dead in between. What can not be
#: killed now is tried again later.
_KILLS, _KILL_SECONDS = 20, 0.005
#: How often we look for who was born while we stopped the others.
_STOPS = 20


def end_orphans(keepers: Container[int]) -> bool:
    """
    Kill all descendants of this process but its keepers, and what those have.

    @param keepers: their process ids.
    @return: whether nothing is left.
    """
    for _ in range(_KILLS):
        stopped = _stopped(keepers)
        if not stopped:
            return True
        for pid in stopped:
            send(pid, signal.SIGKILL)
        time.sleep(_KILL_SECONDS)
    return False


def _stopped(keepers: Container[int]) -> set[int]:
    """
    Stop them first: those that fork as fast as they can are born faster than they
    die.
    """
    stopped: set[int] = set()
    for _ in range(_STOPS):
        new = descendants(os.getpid(), keepers).keys() - stopped
        for pid in new:
            send(pid, signal.SIGSTOP)
        if not new:
            break
        stopped |= new
    return stopped
