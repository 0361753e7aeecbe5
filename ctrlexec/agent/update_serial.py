# SPDX-License-Identifier: AGPL-3.0-only
"""
C{update-ctrl-exec-serial SERIAL}: the script through which a dispatcher of the
older line tells an agent its next serial (NEWER-LINE.md section 7).

For C{scripts.conf}. Whoever may run it chooses its argument, so it takes
nothing else from there: whose serial it is, the agent says on standard input,
and which agent, the environment. The agent reads the map again when a script
that has changed it ends.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from ctrlexec.agent.settings import DEFAULT_FILE, AgentSettings
from ctrlexec.agent.trust import NAMELESS, Change, NotChanged
from ctrlexec.agent.trust_store import SerialChange, change_trust
from ctrlexec.errors import CtrlExecError, explained
from ctrlexec.events import SerialChanged, SerialNotChanged
from ctrlexec.protocol import codec
from ctrlexec.settings import load_settings
from ctrlexec.sinks import open_sink
from ctrlexec.values import dispatcher_id, serial_from_hex

#: Names C{agent.conf} where it is not in its usual place; for a wrapper.
CONFIG = "CTRL_EXEC_AGENT_CONFIG"
_CONTEXT_BYTES = 4_194_304


def main(argv: Sequence[str] | None = None) -> int:
    """
    @param argv: the arguments, without the program's name.
    @return: the exit status.
    """
    words = sys.argv[1:] if argv is None else [*argv]
    try:
        if len(words) != 1:
            raise CtrlExecError("usage: update-ctrl-exec-serial SERIAL")
        _trust(serial_from_hex(words[0]))
    except CtrlExecError as error:
        sys.stderr.write(explained(error))
        return 1
    return 0


def _trust(serial: str) -> None:
    file = Path(os.environ.get(CONFIG) or DEFAULT_FILE)
    settings, _ = load_settings(AgentSettings, file)
    dispatcher, peer = _caller()
    events = open_sink(str(settings.log), "ctrl-exec-agent", _now, sys.stderr)
    asked = SerialChange(Change.ADD, serial, dispatcher)
    match change_trust(settings, asked):
        case NotChanged(reason):
            events.emit(SerialNotChanged(dispatcher, reason))
            raise CtrlExecError(reason)
    events.emit(SerialChanged(dispatcher, asked.change.value, serial, peer))
    sys.stdout.write(f"trusted: {serial} {dispatcher}\n")


def _caller() -> tuple[str, str]:
    """
    @return: the id of the dispatcher that asks, and its address.
    @raise CtrlExecError: something asks that is no agent.
    """
    text = b"" if sys.stdin.isatty() else sys.stdin.buffer.read(_CONTEXT_BYTES)
    if not text:
        return NAMELESS, "local"
    context = codec.decode_run_context(text)
    return dispatcher_id(context.dispatcher), context.peer_ip


def _now() -> datetime:
    return datetime.now(timezone.utc)
