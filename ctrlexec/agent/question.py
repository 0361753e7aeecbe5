# SPDX-License-Identifier: AGPL-3.0-only
"""
A question to the person at the terminal, while a reactor goes on.
"""

from __future__ import annotations

import termios
from collections.abc import Callable
from contextlib import suppress

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFDSet

from ctrlexec.typed_lines import TypedLines


def ask(
    reactor: IReactorFDSet, stdin: int, write: Callable[[str], None], question: str
) -> Deferred[bool]:
    """
    Ask, and read one line. Whatever is not a yes is a no, and so is the end of
    the terminal. What was typed before the question answers nothing.

    @param stdin: the descriptor that is read from.
    @param write: shows a text as it is.
    @return: fires with the answer; cancelling it takes the question back.
    """

    def answered(line: str) -> None:
        # What else was typed in the same go answers nothing.
        if not answer.called:
            reactor.removeReader(lines)
            answer.callback(line.strip().lower() in ("y", "yes"))

    def taken_back(_: object) -> None:
        reactor.removeReader(lines)
        write("\n")

    answer: Deferred[bool] = Deferred(taken_back)
    lines = TypedLines(stdin, answered, lambda: answered(""))
    with suppress(termios.error):  # no terminal
        termios.tcflush(stdin, termios.TCIFLUSH)
    write(f"{question} [y/N] ")
    reactor.addReader(lines)
    return answer
