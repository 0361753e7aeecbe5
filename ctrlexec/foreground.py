# SPDX-License-Identifier: AGPL-3.0-only
"""
What every program of ours does at its edge: run a service on a reactor, and
say in one line why it does not.
"""

from __future__ import annotations

import sys
from collections.abc import Coroutine
from contextlib import suppress
from types import TracebackType
from typing import Any, NoReturn, TextIO, TypeVar

from twisted.application.service import IService
from twisted.internet.defer import Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.internet.interfaces import IReactorCore
from twisted.logger import (
    FilteringLogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
    textFileLogObserver,
)
from twisted.python.failure import Failure

from ctrlexec.errors import CtrlExecError, explained

T = TypeVar("T")


def run_service(service: IService, reactor: IReactorCore) -> None:
    """
    Run a service until a signal ends it.

    @raise ListenError: a port could not be opened; nothing runs.
    """
    log_failures(sys.stderr)
    service.privilegedStartService()
    service.startService()
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    reactor.run()


def log_failures(stream: TextIO) -> None:
    """
    Let Twisted's own log show what went wrong, and nothing else.
    """
    grave = LogLevelFilterPredicate(LogLevel.error)
    observer = FilteringLogObserver(textFileLogObserver(stream), [grave])
    globalLogBeginner.beginLoggingTo(
        [observer], redirectStandardIO=False, discardBuffer=True
    )


def end_in_words() -> None:
    """
    Let a program that an error of ours ends say it in words, not show where in
    it that was. For C{twistd}: an error that is raised while it starts gets as
    far as its daemon's parent, which a C{SystemExit} would leave waiting.
    """

    def explain(
        kind: type[BaseException], error: BaseException, where: TracebackType | None
    ) -> None:
        if isinstance(error, CtrlExecError):
            sys.stderr.write(explained(error))
        else:
            sys.__excepthook__(kind, error, where)

    sys.excepthook = explain


def leave(error: CtrlExecError, code: int) -> NoReturn:
    """
    End the program with an error that its operator understands.
    """
    sys.stderr.write(explained(error))
    raise SystemExit(code)


def run_to_end(reactor: Any, work: Coroutine[Deferred[Any], Any, T]) -> T:
    """
    Run a reactor for as long as a coroutine takes.

    @return: what the coroutine returns.
    @raise KeyboardInterrupt: a signal came first.
    """
    results: list[T] = []
    failures: list[Failure] = []

    def stop() -> None:
        # A signal may have stopped it before the work was done.
        with suppress(ReactorNotRunning):
            reactor.stop()

    def start() -> None:
        working = Deferred.fromCoroutine(work)
        working.addCallbacks(results.append, failures.append)
        working.addBoth(lambda _: stop())

    reactor.callWhenRunning(start)
    reactor.run()
    if failures:
        failures[0].raiseException()
    if not results:
        raise KeyboardInterrupt
    return results[0]
