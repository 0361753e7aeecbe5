# SPDX-License-Identifier: AGPL-3.0-only
"""
The mode that ends trust before its time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import click

from ctrlexec.dispatcher import render
from ctrlexec.dispatcher.command import CommandLine
from ctrlexec.dispatcher.completion import complete_agent
from ctrlexec.dispatcher.grammar import mode
from ctrlexec.dispatcher.tables import Table

if TYPE_CHECKING:
    from ctrlexec.dispatcher.operations import Dispatcher
    from ctrlexec.dispatcher.records import AgentRecord
    from ctrlexec.dispatcher.revoking import Push, Revoked

FAILED = 1

_ROWS = Table.of({"HOST": 30, "RESULT": 0})


@mode("revoke")
@click.argument(
    "what", metavar="[HOST|SERIAL]", required=False, shell_complete=complete_agent
)
@click.option("--reason", metavar="TEXT", default="", help="Why, for the log.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--push",
    is_flag=True,
    help="Revoke nothing more; tell those agents that do not know yet.",
)
def revoke(
    line: CommandLine, what: str | None, reason: str, yes: bool, push: bool
) -> int:
    """
    Take back the certificates of an agent, or one certificate.

    Nobody here speaks to its holder any more, from now on; and all agents are
    told, so that they let its holder in no more. That can not be undone. An
    agent of that name has to be paired again.

    Exit status 1 if an agent could not be told; --push tries it again.
    """
    if push == (what is not None):
        raise click.UsageError("revoke needs a HOST or a SERIAL, or --push")
    if what is None:
        pushed = line.local.ask_agents(lambda ours: ours.push_revocations(line.caller))
        line.show(_push_text(pushed), render.to_json(_push_fields(pushed)))
        return say_pushed(line, pushed)
    if (
        line.terminal.attended
        and not yes
        and not line.terminal.asks(f"revoke {what}? That can not be undone.")
    ):
        line.note("nothing was changed")
        return FAILED
    name = what
    done = line.local.ask_agents(lambda ours: ours.revoke(line.caller, name, reason))
    line.show(
        revoked_text(done),
        render.to_json({**_push_fields(done.push), **revoked_fields(done)}),
    )
    return say_pushed(line, done.push)


def unpair_revoked(line: CommandLine, name: str) -> int:
    """
    Revoke the certificates of an agent, and then forget it.

    @return: the exit status.
    """

    async def both(ours: Dispatcher) -> tuple[Revoked, AgentRecord | None]:
        # A serial is no name of an agent, and would be revoked all the same.
        ours.stores.registry.get(name)
        done = await ours.revoke(line.caller, name, "unpaired")
        return done, await ours.unpair(line.caller, name)

    done, agent = line.local.ask_agents(both)
    expiry = {} if agent is None else {"expiry": agent.expiry}
    fields = {**_push_fields(done.push), **revoked_fields(done), "hostname": name}
    line.show(
        f"{name} is unpaired\n{revoked_text(done)}",
        render.to_json({**fields, **expiry}),
    )
    return say_pushed(line, done.push)


def revoked_text(done: Revoked) -> str:
    """
    What is revoked, and who knows.
    """
    again = "" if done.new else ", as before"
    title = done.agent or "a certificate"
    return f"{title} is revoked{again}: serial {', '.join(done.serials)}\n" + (
        _push_text(done.push)
    )


def revoked_fields(done: Revoked) -> dict[str, Any]:
    """
    The same, for programs.
    """
    return {"agent": done.agent, "serials": [*done.serials], "new": done.new}


def say_pushed(line: CommandLine, pushed: Push) -> int:
    """
    @return: the exit status.
    """
    if pushed.error is not None:
        line.terminal.error(f"no agent was told: {pushed.error}")
    if not pushed.ok:
        line.note("ctrl-exec revoke --push tells the others, once they are there")
    elif not pushed.rows:
        line.note("there is no agent that does not know it")
    return 0 if pushed.ok else FAILED


def _push_text(pushed: Push) -> str:
    if not pushed.rows:
        return ""
    return _ROWS.text([(row.host, row.result) for row in pushed.rows])


def _push_fields(pushed: Push) -> dict[str, Any]:
    rows = [attrs.asdict(row) for row in pushed.rows]
    error = {} if pushed.error is None else {"error": pushed.error}
    return {"ok": pushed.ok, "number": pushed.number, "results": rows, **error}
