# SPDX-License-Identifier: AGPL-3.0-only
"""
The options of C{ctrl-exec run} that the original does not have, and which of
them make sense together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import attrs
import click

from ctrlexec.dispatcher.grammar import Mistake
from ctrlexec.dispatcher.orders import Rolling
from ctrlexec.dispatcher.printers import Format
from ctrlexec.dispatcher.terminal import Terminal
from ctrlexec.errors import InvalidValue
from ctrlexec.kinds import DURATION, number
from ctrlexec.values import ON_DISCONNECT, Portion

#: What a word has that may stand for several hosts.
PATTERN = frozenset("*?[@")

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

fold: Callable[[F], F] = click.option(
    "-b",
    "--fold",
    is_flag=True,
    help="Show hosts together whose scripts have said the same.",
)


def check_fold(wanted: bool, how: Format) -> None:
    """
    @raise click.UsageError: they are wanted together by a program.
    """
    if wanted and how is not Format.TEXT:
        raise click.UsageError(
            "--fold is for people, --json and jsonl are for programs"
        )


def check_follow(wanted: str, how: Format) -> None:
    """
    @param wanted: what would follow a run.
    @raise click.UsageError: one document can not tell what happens meanwhile.
    """
    if how is Format.JSON:
        raise Mistake(
            f"{wanted} tells what happens, and --json only what has happened",
            "--output jsonl has a line for each thing that happens",
        )


def named(option: str, read: Callable[[str], T]) -> Callable[[str], T]:
    """
    @param read: reads the value of an option.
    @return: the same, where an error says which option it is about.
    """

    def parse(text: str) -> T:
        try:
            return read(text)
        except InvalidValue as error:
            raise InvalidValue(option, error.given, error.expected) from None

    return parse


def duration_or_none(text: str) -> float:
    """
    How long to wait, if at all.
    """
    return 0.0 if text == "0" else DURATION.read(text)  # type: ignore[return-value]


def _portion(text: str) -> Portion:
    portion = Portion.parse(text)
    if not portion.number:
        raise InvalidValue("number", text, "one host at least, such as 3, or 25%")
    return portion


_OPTIONS = (
    fold,
    click.option(
        "--async",
        "asynchronous",
        is_flag=True,
        help="Do not wait for its end: status, wait, attach and cancel know of it.",
    ),
    click.option(
        "--follow/--no-follow",
        default=None,
        help="Show what it writes as it comes.  [default: on a terminal, for one host]",
    ),
    click.option(
        "--timeout",
        metavar="TIME",
        type=named("--timeout", DURATION.read),
        help="End it after so long: 90, 30s, 5m or 2h.",
    ),
    click.option(
        "--on-disconnect",
        type=click.Choice(ON_DISCONNECT),
        help="What becomes of it if you leave, or the connection is lost.  "
        "[default: keep]",
    ),
    click.option(
        "--batch",
        metavar="N|N%",
        type=named("--batch", _portion),
        help="Ask so many hosts at a time, and the next when all of them are done.",
    ),
    click.option(
        "--batch-wait",
        metavar="TIME",
        type=named("--batch-wait", duration_or_none),
        help="Wait so long between two batches.",
    ),
    click.option(
        "--canary",
        metavar="N",
        type=named("--canary", number(1, 99_999).read),
        help="Ask so many hosts first, and the others only if all went well there.",
    ),
    click.option(
        "--max-failures",
        metavar="N|N%",
        type=named("--max-failures", Portion.parse),
        help="Ask no more hosts once more than so many have failed.",
    ),
    click.option(
        "--detailed-exit",
        is_flag=True,
        help="Tell by the exit status in which way it has failed.",
    ),
)


def run_options(function: F) -> F:
    """
    Give a mode these options; it hands what is given to L{RunOptions}.
    """
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


@attrs.frozen(kw_only=True)
class RunOptions:
    """
    What was given. What was not is C{None} or false.

    @ivar timeout: in seconds; so is C{batch_wait}.
    """

    fold: bool = False
    asynchronous: bool = False
    follow: bool | None = None
    timeout: float | None = None
    on_disconnect: str | None = None
    batch: Portion | None = None
    batch_wait: float | None = None
    canary: int | None = None
    max_failures: Portion | None = None
    detailed_exit: bool = False

    def check(self, how: Format) -> None:
        """
        @param how: for whom the answer is.
        @raise click.UsageError: some of it makes no sense together.
        """
        check_fold(self.fold, how)
        if self.follow:
            check_follow("--follow", how)
        if self.follow and self.fold:
            raise click.UsageError("--follow shows what comes, --fold waits for all")
        if self.asynchronous:
            self._check_async()
        if self.batch_wait is not None and not (self.batch or self.canary):
            raise click.UsageError("--batch-wait needs --batch or --canary")

    def _check_async(self) -> None:
        """
        Nobody waits, so nobody sees anything, and nobody is there who could
        leave.
        """
        for name, why in _WITH_SOMEBODY.items():
            given = getattr(self, name)
            if given is not None and given is not False:
                option = f"--{name.replace('_', '-')}"
                raise click.UsageError(
                    f"--async and {option} can not go together: {why}"
                )

    @property
    def are_detailed(self) -> bool:
        """
        Whether the exit status tells more than the original's. That of an
        asynchronous run says whether anybody has taken it.
        """
        if self.detailed_exit or self.asynchronous:
            return self.detailed_exit
        others = (self.follow, self.timeout, self.on_disconnect, self.rolling())
        return any(each not in (None, False) for each in others)

    def follows(self, how: Format, words: Sequence[str], terminal: Terminal) -> bool:
        """
        Whether what it writes is shown as it comes.

        @param words: that stand for hosts.
        """
        if self.follow is not None:
            return self.follow
        one = len(words) == 1 and not PATTERN & {*words[0]}
        waits = not (self.fold or self.asynchronous)
        return one and waits and how is Format.TEXT and terminal.look.terminal

    def rolling(self) -> Rolling | None:
        """
        How it goes over the hosts.
        """
        if all(getattr(self, name) is None for name in _ROLLING):
            return None
        return Rolling(
            canary=self.canary or 0,
            batch=self.batch,
            wait_seconds=self.batch_wait or 0.0,
            max_failures=self.max_failures,
        )


_LOTS = "who is asked next depends on how others have ended, and nobody waits for that"
#: What needs somebody who waits, and what for.
_WITH_SOMEBODY = {
    "follow": "nobody waits who would see it",
    "fold": "nobody waits who would see it",
    "on_disconnect": "nobody waits who could leave",
    "batch": _LOTS,
    "batch_wait": _LOTS,
    "canary": _LOTS,
    "max_failures": _LOTS,
}
_ROLLING = ("batch", "batch_wait", "canary", "max_failures")
