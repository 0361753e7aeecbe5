# SPDX-License-Identifier: AGPL-3.0-only
"""
Removing the results of runs that are over a day old.
"""

from __future__ import annotations

from twisted.python.failure import Failure

from ctrlexec.api.http import in_words
from ctrlexec.dispatcher.operations import Dispatcher
from ctrlexec.events import RunsNotSwept


async def swept(ours: Dispatcher) -> None:
    """
    Remove them; no error is raised.
    """
    try:
        now = ours.process.now().timestamp()
        await ours.process.in_thread(ours.stores.runs.sweep, now)
    except Exception:
        # Whatever it is, the next time may be better.
        ours.events.emit(RunsNotSwept(in_words(Failure())))
