# SPDX-License-Identifier: AGPL-3.0-only
"""
The modes that see to it that trust lasts: certificates are replaced before they
end, those of agents and the dispatcher's own.
"""

from __future__ import annotations

import attrs
import click

from ctrlexec.dispatcher import render, render_rotation
from ctrlexec.dispatcher.command import CommandLine
from ctrlexec.dispatcher.completion import complete_agent
from ctrlexec.dispatcher.grammar import mode

FAILED = 1


@mode("renew")
@click.argument("name", metavar="HOST", shell_complete=complete_agent)
@click.option(
    "--expired",
    is_flag=True,
    help="Even if its certificate has ended, while the host was off.",
)
def renew(line: CommandLine, name: str, expired: bool) -> None:
    """
    Renew the certificate of an agent now.

    Pings and maintain do it in time by themselves.
    """
    renewed = line.local.ask_agents(
        lambda ours: ours.renew(line.caller, name, even_expired=expired)
    )
    facts = f"serial {renewed.serial}, ends {renewed.expiry}"
    document = render.to_json({"ok": True, **attrs.asdict(renewed)})
    line.show(f"{renewed.host} has a new certificate: {facts}\n", document)
    if renewed.staged:
        line.note(f"it waits at {renewed.host} to be put in its place")


@mode("maintain")
def maintain(line: CommandLine) -> int:
    """
    Ping all agents, and renew what ends; replace the dispatcher's own
    certificate in time, and tell the agents of it.

    For root on the host that has the CA, from a timer: every few hours. Agents
    that do not answer are no failure; they are counted.
    """
    done = line.local.ask_agents(lambda ours: ours.maintain(line.caller))
    document = {
        "ok": done.ok,
        "agents": done.agents,
        "pinged": done.pinged,
        "renewed": done.renewed,
        "silent": done.silent,
        "rotation": done.rotation,
        "failed": done.failed,
    }
    line.show(
        f"{done.agents} agents, {done.pinged} answered, {len(done.renewed)} renewed\n",
        render.to_json(document),
    )
    for host in done.silent:
        line.note(f"{host} has not answered")
    for failure in done.failed:
        line.terminal.error(failure)
    return 0 if done.ok else FAILED


@mode("rotate-cert")
def rotate_cert(line: CommandLine) -> None:
    """
    Replace the dispatcher's own certificate now.

    The agents are told of the next one first. Those that do not answer are told
    when they do, by maintain; until then agents of the original take no orders.
    """
    state = line.local.ask_agents(lambda ours: ours.rotate(line.caller))
    standing = line.carry_out(lambda ours: ours.serial_status(line.caller))
    pending = [each.hostname for each in standing.agents if not standing.is_told(each)]
    document = {
        "ok": True,
        "serial": state.current_serial,
        "previous_serial": state.previous_serial,
        "overlap_expires": state.overlap_expires,
        "pending": pending,
    }
    line.show(
        f"the dispatcher's certificate is {state.current_serial} from now on\n",
        render.to_json(document),
    )
    for host in pending:
        line.terminal.warning(f"{host} has not been told of it yet")
    line.note("ctrl-exec maintain goes on with it, from a timer or by hand")


@mode("serial-status")
def serial_status(line: CommandLine) -> None:
    """
    Show where the rotation of the dispatcher's certificate stands.
    """
    standing = line.carry_out(lambda ours: ours.serial_status(line.caller))
    line.show(
        render_rotation.text(standing), render.to_json(render_rotation.fields(standing))
    )
