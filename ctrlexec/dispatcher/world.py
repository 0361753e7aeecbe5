# SPDX-License-Identifier: AGPL-3.0-only
"""
The world round a command line, as far as it needs one. A test brings its own.
"""

from __future__ import annotations

import os
import pwd
import sys
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import datetime, timezone
from io import TextIOWrapper
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

import attrs

from ctrlexec.dispatcher.terminal import Terminal

if TYPE_CHECKING:
    from subprocess import Popen

    from ctrlexec.dispatcher.background import Child, Launch

_MAIN = "import sys; from ctrlexec.dispatcher.cli import main; sys.exit(main())"
_COMPLAINT_BYTES = 65_536

R = TypeVar("R")
#: What a reactor is needed for, and is given to.
Work = Callable[[Any], Coroutine[Any, Any, R]]


@attrs.frozen
class Time:
    """
    @ivar now: the time, aware of its zone.
    @ivar seconds: seconds that nobody sets back, from whenever.
    @ivar sleep: waits for so many seconds.
    """

    now: Callable[[], datetime]
    seconds: Callable[[], float]
    sleep: Callable[[float], None]


@attrs.frozen
class Loop:
    """
    What runs the reactor, which can be run once, and signals.

    @ivar wait: gives a reactor to a piece of work, and returns what comes of
        it; raises C{KeyboardInterrupt} if a signal comes first.
    @ivar serve: the same for work that ends by itself when a signal comes.
    @ivar be_impatient: from now on an interrupt ends the process at once.
    """

    wait: Callable[[Work[Any]], Any]
    serve: Callable[[Work[Any]], Any]
    be_impatient: Callable[[], object]


@attrs.frozen
class Places:
    """
    Where things are that nobody has named; C{None} for where
    L{ctrlexec.dispatcher.settings} has them.

    @ivar settings: the settings.
    @ivar socket: where the API listens for command lines, if it does.
    """

    settings: Path | None = None
    socket: Path | None = None


def _on_files(*what: Any) -> Any:
    from ctrlexec.dispatcher.operations import Dispatcher

    return Dispatcher.on_files(*what)


@attrs.frozen
class _Child:
    """
    See L{ctrlexec.dispatcher.background.Child}.
    """

    process: Popen[bytes]
    stderr: IO[bytes]

    @property
    def pid(self) -> int:
        return self.process.pid

    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def complaint(self) -> str:
        self.stderr.seek(0)
        return self.stderr.read(_COMPLAINT_BYTES).decode("utf-8", "replace")

    def end(self) -> None:
        self.process.terminate()


def launched(words: Sequence[str], environ: Mapping[str, str]) -> Child:
    """
    See L{ctrlexec.dispatcher.background.Launch}. It has a session of its own,
    so that it does not end with ours, and no directory is kept busy by it.
    """
    import subprocess
    from tempfile import TemporaryFile

    stderr = TemporaryFile()  # noqa: SIM115 - it is read when the process has ended
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", _MAIN, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        cwd="/",
        env=dict(environ),
        start_new_session=True,
    )
    return _Child(process, stderr)


@attrs.frozen
class World:
    """
    What a command line needs that a test gives it otherwise.

    @ivar environ: the environment of the process.
    @ivar dispatcher: makes a dispatcher, of what
        L{ctrlexec.dispatcher.operations.Dispatcher.on_files} takes.
    @ivar launch: starts a command line that goes on when this one has ended.
    """

    terminal: Terminal
    environ: Mapping[str, str]
    time: Time
    loop: Loop
    places: Places = Places()
    dispatcher: Callable[..., Any] = _on_files
    launch: Launch = launched

    @classmethod
    def real(cls, loop: Loop) -> World:
        """
        The world of this process.
        """
        for stream in (sys.stdout, sys.stderr):
            # A locale without the right letters must not hide a result.
            if isinstance(stream, TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        return cls(
            terminal=Terminal(sys.stdin, sys.stdout, sys.stderr, os.environ),
            # A service has no USER; what it does still has somebody's name.
            environ={"USER": _login_name(), **os.environ},
            time=Time(lambda: datetime.now(timezone.utc), time.monotonic, time.sleep),
            loop=loop,
        )


def _login_name() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
