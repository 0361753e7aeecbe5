# SPDX-License-Identifier: AGPL-3.0-only
"""
The grammar of C{ctrl-exec}: options that may stand anywhere before C{--}, modes
that come in an order, and what follows C{--}.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from ctrlexec import __version__
from ctrlexec.dispatcher.command import CommandLine
from ctrlexec.dispatcher.printers import Format
from ctrlexec.values import port_number

PROGRAM = "ctrl-exec"

_FORMATS = [each.value for each in Format]

F = TypeVar("F", bound=Callable[..., Any])


def divided(words: list[str]) -> tuple[list[str], tuple[str, ...] | None]:
    """
    @return: what is ours, and what follows the first C{--}, if there is one.
    """
    if "--" not in words:
        return words, None
    place = words.index("--")
    return words[:place], tuple(words[place + 1 :])


def output_wanted(words: Sequence[str]) -> str:
    """
    What the last of some words says about the format of the answer, whatever
    is wrong with the others.
    """
    wanted = Format.TEXT.value
    for before, word in zip(["", *words], words, strict=False):
        option, equals, value = word.partition("=")
        if word == "--json":
            wanted = Format.JSON.value
        elif option == "--output" and equals and value in _FORMATS:
            wanted = value
        elif before == "--output" and word in _FORMATS:
            wanted = word
    return wanted


# --- options -------------------------------------------------------------


def _keep(context: click.Context, option: click.Parameter, value: object) -> None:
    if value not in (None, False):
        context.ensure_object(CommandLine).given[str(option.name)] = value


def _keep_json(context: click.Context, option: click.Parameter, wanted: bool) -> None:
    if wanted:
        context.ensure_object(CommandLine).given["output"] = Format.JSON.value


def _show_version(
    context: click.Context, option: click.Parameter, wanted: bool
) -> None:
    if wanted and not context.resilient_parsing:
        click.echo(f"{PROGRAM} {__version__}")
        context.exit()


def with_options(*, hidden: bool) -> Callable[[F], F]:
    """
    Give a mode the options that all of them have, so that they may stand
    behind its name too.

    @param hidden: whether its help is silent about them.
    """

    def option(*names: str, **how: Any) -> Callable[[F], F]:
        how = {"callback": _keep, **how}
        return click.option(*names, expose_value=False, hidden=hidden, **how)

    options = (
        option(
            "--config",
            metavar="PATH",
            help="The settings.  [default: $CTRL_EXEC_CONFIG, or "
            "/etc/ctrl-exec/ctrl-exec.conf]",
        ),
        option(
            "--output",
            type=click.Choice(_FORMATS),
            help="Answer people, or a program with one JSON document, or with "
            "one a line as results arrive.  [default: text]",
        ),
        option(
            "--json", is_flag=True, callback=_keep_json, help="Short for --output json."
        ),
        option(
            "--socket",
            metavar="PATH",
            help="Where this host's API listens for command lines.  [default: as "
            "the settings say, or /run/ctrl-exec/api.sock]",
        ),
        option(
            "--direct", is_flag=True, help="Do without the API, even if it is there."
        ),
        option(
            "--port",
            metavar="N",
            type=port_number,
            help="The agents' port, in place of the registered one; in "
            "pairing-mode, the port to listen on.",
        ),
        option(
            "--username",
            metavar="NAME",
            help="Who you are, for hooks and logs.  [default: $USER, or the account]",
        ),
        option(
            "--token",
            metavar="TOKEN",
            help="What hooks know you by. Other users of this host can read a "
            "command line, so rather use --token-file, or set $ENVEXEC_TOKEN.",
        ),
        option("--token-file", metavar="PATH", help="A file that holds the token."),
        option(
            "--version",
            is_flag=True,
            is_eager=True,
            callback=_show_version,
            help="Show the version and exit.",
        ),
    )

    def decorated(function: F) -> F:
        for each in reversed(options):
            function = each(function)
        return function

    return decorated


class Mistake(click.UsageError):
    """
    A command line that makes no sense, and what would.
    """

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


# --- modes ---------------------------------------------------------------


class Mode(click.Command):
    """
    One thing that can be done.

    @ivar through_socket: whether the API can do it for us.
    """

    def __init__(self, *args: Any, through_socket: bool = False, **how: Any) -> None:
        super().__init__(*args, **how)
        self.through_socket = through_socket

    def invoke(self, context: click.Context) -> Any:
        """
        See C{click.Command}.
        """
        given = context.ensure_object(CommandLine).given
        if given.get("socket") and given.get("direct"):
            raise click.UsageError("either --socket or --direct", context)
        if given.get("socket") and not self.through_socket:
            raise click.UsageError(
                f"{self.name} does not go through the API's socket", context
            )
        return super().invoke(context)


def mode(
    name: str, *, through_socket: bool = False
) -> Callable[[Callable[..., int | None]], Mode]:
    """
    Make a function a mode. It is given the L{CommandLine} and returns the exit
    status, or C{None} where all went well.

    @param through_socket: see L{Mode}.
    """

    def decorated(function: Callable[..., int | None]) -> Mode:
        given = click.make_pass_decorator(CommandLine)(function)
        command = click.command(
            name,
            cls=Mode,
            options_metavar="[OPTION]...",
            through_socket=through_socket,
        )
        return command(with_options(hidden=True)(given))

    return decorated


class Modes(click.Group):
    """
    The modes, in the order in which an operator meets them.
    """

    def list_commands(self, context: click.Context) -> list[str]:
        """
        See C{click.Group}.
        """
        return [*self.commands]

    def format_commands(
        self, context: click.Context, formatter: click.HelpFormatter
    ) -> None:
        """
        See C{click.Group}.
        """
        with formatter.section("Modes"):
            modes = self.commands.items()
            formatter.write_dl(
                [(name, each.get_short_help_str(60)) for name, each in modes]
            )

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        """
        See C{click.Group}. The options of a mode may stand before its name.
        """
        return super().parse_args(context, self._in_order(context, args))

    def _in_order(self, context: click.Context, words: list[str]) -> list[str]:
        """
        @return: the words with the options of modes moved behind the mode.
        """
        ours = {name for each in self.get_params(context) for name in each.opts}
        takes_value = {
            name: isinstance(each, click.Option) and not each.is_flag
            for command in (*self.commands.values(), self)
            for each in command.params
            for name in each.opts
        }
        ahead: list[str] = []
        behind: list[str] = []
        rest = [*words]
        while rest and rest[0].startswith("-"):
            word = rest.pop(0)
            name, equals, _ = word.partition("=")
            place = ahead if name in ours or name not in takes_value else behind
            place.append(word)
            if takes_value.get(name) and not equals:
                place += rest[:1]
                del rest[:1]
        return [*ahead, *rest[:1], *behind, *rest[1:]]

    def resolve_command(
        self, context: click.Context, arguments: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """
        See C{click.Group}.
        """
        name, *rest = arguments
        if name not in self.commands:
            if context.resilient_parsing:
                return None, None, rest
            raise click.UsageError(f"there is no mode {name!r}", context)
        mode = self.commands[name]
        line = context.ensure_object(CommandLine)
        if line.script_args is not None and name != "run":
            raise click.UsageError(f"nothing stands behind -- in {name}", context)
        return name, mode, rest
