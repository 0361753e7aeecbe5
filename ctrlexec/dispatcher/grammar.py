# SPDX-License-Identifier: AGPL-3.0-only
"""
The grammar of C{ctrl-exec}: options that may stand anywhere before C{--}, modes
that come in an order, and what follows C{--}.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from ctrlexec import __version__
from ctrlexec.dispatcher.command import CommandLine
from ctrlexec.values import port_number

PROGRAM = "ctrl-exec"

F = TypeVar("F", bound=Callable[..., Any])


def divided(words: list[str]) -> tuple[list[str], tuple[str, ...] | None]:
    """
    @return: what is ours, and what follows the first C{--}, if there is one.
    """
    if "--" not in words:
        return words, None
    place = words.index("--")
    return words[:place], tuple(words[place + 1 :])


def _keep(context: click.Context, option: click.Parameter, value: object) -> None:
    if value not in (None, False):
        context.ensure_object(CommandLine).given[str(option.name)] = value


def _show_version(
    context: click.Context, option: click.Parameter, wanted: bool
) -> None:
    if wanted:
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
        option("--json", is_flag=True, help="Answer in JSON."),
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
            "command line, so rather set $ENVEXEC_TOKEN.",
        ),
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

    def resolve_command(
        self, context: click.Context, arguments: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """
        See C{click.Group}.
        """
        name, *rest = arguments
        if name not in self.commands:
            raise click.UsageError(f"there is no mode {name!r}", context)
        mode = self.commands[name]
        line = context.ensure_object(CommandLine)
        if line.script_args is not None and name != "run":
            raise click.UsageError(f"nothing stands behind -- in {name}", context)
        return name, mode, rest
