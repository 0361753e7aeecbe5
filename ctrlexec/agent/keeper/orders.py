# SPDX-License-Identifier: AGPL-3.0-only
"""
What a keeper is told, and what it says: the words between it and the agent.
"""

from __future__ import annotations

from ctrlexec.agent.keeper.frames import NotAFrame, packed, unpacked

#: In the directory of a run: what listens there, what the script has written, if
#: anything, and how it has ended.
SOCKET, STDOUT, STDERR, ENDING = "keeper.sock", "stdout", "stderr", "ending.json"

#: How long an order may be, in bytes.
ORDER_BYTES = 32 * 1024 * 1024

#: What the agent asks for, once its order is carried out.
CANCEL, WATCH, UNWATCH = b"cancel", b"watch", b"unwatch"
#: What the keeper says. C{REFUSED} and C{BUSY} end it, with the reason; then
#: nothing was started. C{RUNNING} has the process id. C{OUTPUT} has nothing: the
#: files have grown. C{ENDED} has the same text as the file L{ENDING}, and then
#: for each process that was signalled its id, its command and the signal.
REFUSED, BUSY, RUNNING, OUTPUT, ENDED = (
    b"refused",
    b"busy",
    b"running",
    b"output",
    b"ended",
)

#: What a keeper says to the program that it is made of: it has nothing to do; it has
#: a lock, which comes along; it ends, and what is left of its script goes on.
IDLE, LOCKED, LEAVING = b"idle", b"locked", b"leaving"

#: The limits that an order may name: those of setrlimit(2).
LIMITS = ("NPROC", "AS", "NOFILE", "CPU")
_MOST_SECONDS = 1e9
_MOST_BYTES = 2**63 - 1


class Order:
    """
    A script that is to be started and kept, all of it in bytes as the system
    takes them. What each is, L{ctrlexec.agent.runs.StartOrder} tells.

    @ivar obstacle: why the script can not be executed, if that is known already;
        then it is not tried.
    @ivar limits: by the names of L{LIMITS}.
    """

    __slots__ = (
        "argv",
        "directory",
        "env",
        "grace",
        "limits",
        "lock",
        "max_output",
        "obstacle",
        "stdin",
        "stdin_timeout",
        "timeout",
    )

    def __init__(
        self,
        *,
        directory: bytes,
        argv: list[bytes],
        env: dict[bytes, bytes],
        stdin: bytes = b"",
        stdin_timeout: float = 10.0,
        max_output: int = 0,
        timeout: float | None = None,
        grace: float = 10.0,
        limits: dict[str, int] | None = None,
        lock: bytes = b"",
        obstacle: bytes = b"",
    ) -> None:
        self.directory = directory
        self.argv = argv
        self.env = env
        self.stdin = stdin
        self.stdin_timeout = stdin_timeout
        self.max_output = max_output
        self.timeout = timeout
        self.grace = grace
        self.limits = limits or {}
        self.lock = lock
        self.obstacle = obstacle

    def fields(self) -> list[bytes]:
        """
        The order as the fields of a frame.
        """
        limits = [self.limits.get(name) for name in LIMITS]
        return [
            self.directory,
            packed(*self.argv),
            packed(*(each for pair in self.env.items() for each in pair)),
            self.stdin,
            b"%r" % self.stdin_timeout,
            b"%d" % self.max_output,
            b"" if self.timeout is None else b"%r" % self.timeout,
            b"%r" % self.grace,
            packed(*(b"" if each is None else b"%d" % each for each in limits)),
            self.lock,
            self.obstacle,
        ]

    @classmethod
    def of(cls, fields: list[bytes]) -> Order:
        """
        @raise ValueError: they are not those of an order.
        """
        if len(fields) != len(cls.__slots__):
            raise NotAFrame("these are not the fields of an order")
        directory, argv, env, stdin, wait, most, timeout, grace, limits = fields[:9]
        lock, obstacle = fields[9:]
        words, values = unpacked(argv), unpacked(limits)
        if not words or not directory or len(values) != len(LIMITS):
            raise NotAFrame("an order lacks something")
        return cls(
            directory=directory,
            argv=words,
            env=_pairs(unpacked(env)),
            stdin=stdin,
            stdin_timeout=_seconds(wait),
            max_output=_count(most),
            timeout=_seconds(timeout) if timeout else None,
            grace=_seconds(grace),
            limits={
                name: _count(value)
                for name, value in zip(LIMITS, values, strict=True)
                if value
            },
            lock=lock,
            obstacle=obstacle,
        )


def _pairs(texts: list[bytes]) -> dict[bytes, bytes]:
    return dict(zip(texts[::2], texts[1::2], strict=True))


def _seconds(text: bytes) -> float:
    seconds = float(text)
    if not 0 <= seconds <= _MOST_SECONDS:
        raise ValueError("so many seconds there are not")
    return seconds


def _count(text: bytes) -> int:
    count = int(text)
    if not 0 <= count <= _MOST_BYTES:
        raise ValueError("so many there are not")
    return count
