# SPDX-License-Identifier: AGPL-3.0-only
"""
What a script would meet with that is permitted and can be executed itself: no
interpreter, and limits that hold nothing, or everything.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from ctrlexec.agent.runs import RunLimits
from ctrlexec.files import why_not_executable
from ctrlexec.process import FIXED_PATH

#: How much of a script's first line the system reads.
_LINE_BYTES = 255
#: Less than any program needs to begin.
_LEAST_BYTES = 2**20


def why_no_interpreter(script: Path) -> str | None:
    """
    What stands in the way of the interpreter that the first line of a script
    names.

    @return: a few words for the operator; C{None} where there is nothing, or it
        can not be read, which a script need not be.
    """
    try:
        with script.open("rb") as file:
            beginning = file.read(_LINE_BYTES)
    except OSError:
        return None
    if not beginning.startswith(b"#!"):
        return None
    line = beginning[2:].partition(b"\n")[0].decode("utf-8", "surrogateescape")
    # As the system has it: nothing else ends a word, a carriage return neither.
    path, _, rest = line.strip(" \t").replace("\t", " ").partition(" ")
    if not path.startswith("/"):
        return None
    why = why_not_executable(Path(path))
    if why is not None:
        return f"its interpreter {path!r}: {why}"
    return _not_in_path(rest) if path.endswith("/env") else None


def _not_in_path(words: str) -> str | None:
    """
    @param words: what env(1) is to run, and how.
    """
    named = (each for each in words.split(" ") if each and each[0] != "-")
    program = next((each for each in named if "=" not in each), None)
    if program is None or shutil.which(program, path=FIXED_PATH):
        return None
    return f"its interpreter {program!r} is not in {FIXED_PATH}"


def odd_limits(limits: RunLimits, uid: int) -> Iterator[str]:
    """
    What is odd about the limits of a script.

    @param uid: who runs it.
    """
    if limits.nproc is not None and uid == 0:
        yield "nproc= holds nothing for root"
    memory = limits.memory_bytes
    if memory is not None and memory < _LEAST_BYTES:
        yield f"as={memory} is too little for any program"
