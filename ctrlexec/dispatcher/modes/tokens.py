# SPDX-License-Identifier: AGPL-3.0-only
"""
The modes that are about join tokens: C{docs/pairing.md}, "Joining without a
person".
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from ctrlexec.dispatcher import render
from ctrlexec.dispatcher.command import CommandLine
from ctrlexec.dispatcher.grammar import Modes, mode, with_options
from ctrlexec.dispatcher.modes.agents import tags_of
from ctrlexec.dispatcher.orders import DEFAULT_TTL, MOST_USES, TokenOrder
from ctrlexec.dispatcher.tables import Table
from ctrlexec.errors import InvalidValue
from ctrlexec.values import from_iso_time

if TYPE_CHECKING:
    from ctrlexec.dispatcher.token_records import JoinToken

FAILED = 1

_MISSING = "-"
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_TOKENS = Table.of(
    {
        "ID": 16,
        "NAME": 20,
        "TAGS": 20,
        "USES": 4,
        "LEFT": 4,
        "EXPIRES": 20,
        "CREATED BY": 10,
    }
)


@click.group(
    "join-token",
    cls=Modes,
    # Some versions of click would end well with the help.
    no_args_is_help=False,
    subcommand_metavar="create|list|revoke ...",
    options_metavar="[OPTION]...",
)
@with_options(hidden=True)
def join_token() -> None:
    """
    Make, list and revoke what lets agents pair without a person.
    """


def _time(text: str) -> timedelta:
    found = re.fullmatch("([1-9][0-9]{0,6})([smhd])", text)
    if found is None:
        raise InvalidValue("time", text, "a number and s, m, h or d, such as 30m")
    return timedelta(seconds=int(found[1]) * _UNITS[found[2]])


@mode("create")
@click.option(
    "--name",
    metavar="HOST",
    default="",
    help="Only for an agent of this name, and even if there is one: it is "
    "replaced. Without it, for any agent that is not registered.",
)
@click.option(
    "--tags",
    multiple=True,
    metavar="TAG=VALUE[,...]",
    help="What is noted about the agent until it tells its own.",
)
@click.option(
    "--ttl",
    metavar="TIME",
    default="",
    help="How long it is good: 1m to 30d.  [default: 30m]",
)
@click.option(
    "--uses",
    metavar="N",
    type=click.IntRange(1, MOST_USES),
    default=1,
    help=f"How many agents may join with it, up to {MOST_USES}.  [default: 1]",
)
def create(
    line: CommandLine, name: str, tags: tuple[str, ...], ttl: str, uses: int
) -> None:
    """
    Make a join token and print it, once.

    Whoever has it can become an agent of this dispatcher: keep it off command
    lines and out of logs, and make it for one host and a short time.
    """
    order = TokenOrder(
        name=name,
        tags=tags_of(tags),
        ttl=_time(ttl) if ttl else DEFAULT_TTL,
        uses=uses,
    )
    token, secret = line.carry_out(
        lambda ours: ours.create_join_token(line.caller, order)
    )
    document = {"ok": True, "token": secret.text, **_fields(token)}
    line.show(f"{secret.text}\n", render.to_json(document))
    line.note(f"good until {token.expires}; it is shown this once")
    line.note(
        "on the host: ctrl-exec-agent join --token-file FILE --dispatcher THIS-HOST, "
        "while pairing mode runs here as root"
    )


@mode("list")
def list_(line: CommandLine) -> int:
    """
    List the join tokens; not what is secret about them.
    """
    tokens, unreadable = line.carry_out(lambda ours: ours.list_join_tokens(line.caller))
    line.show_all(_text(tokens, line.world.time.now()), map(_fields, tokens))
    for error in unreadable:
        line.terminal.error(str(error), error.hint)
    if not tokens and not unreadable:
        line.note("there is no join token; ctrl-exec join-token create makes one")
    return FAILED if unreadable else 0


@mode("revoke")
@click.argument("identity", metavar="ID")
def revoke(line: CommandLine, identity: str) -> None:
    """
    Make a join token useless. Agents that have joined with it stay.
    """
    line.carry_out(lambda ours: ours.revoke_join_token(line.caller, identity))
    document = render.to_json({"ok": True, "id": identity})
    line.show(f"the join token {identity} is revoked\n", document)


for _mode in (create, list_, revoke):
    join_token.add_command(_mode)


def _text(tokens: Iterable[JoinToken], now: datetime) -> str:
    return _TOKENS.text(
        [
            (
                each.id,
                each.name or _MISSING,
                _tags_text(each) or _MISSING,
                str(each.uses),
                str(each.left),
                "expired" if now >= from_iso_time(each.expires) else each.expires,
                each.user or _MISSING,
            )
            for each in tokens
        ]
    )


def _tags_text(token: JoinToken) -> str:
    return ",".join(f"{name}={value}" for name, value in sorted(token.tags.items()))


def _fields(token: JoinToken) -> dict[str, Any]:
    """
    A token for programs, without its key.
    """
    return {
        "id": token.id,
        "name": token.name,
        "tags": dict(token.tags),
        "uses": token.uses,
        "left": token.left,
        "created": token.created,
        "expires": token.expires,
        "user": token.user,
    }
