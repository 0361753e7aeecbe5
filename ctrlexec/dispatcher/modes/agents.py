# SPDX-License-Identifier: AGPL-3.0-only
"""
The modes that are about agents: those that are paired, and those that ask to
be.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from ctrlexec.dispatcher import render
from ctrlexec.dispatcher.command import CommandLine
from ctrlexec.dispatcher.completion import complete_agent
from ctrlexec.dispatcher.grammar import mode
from ctrlexec.dispatcher.orders import Reach, Seat
from ctrlexec.errors import InvalidValue
from ctrlexec.values import port_number

FAILED = 1

_ACTIONS = ["start", "stop"]

_DELIVERY_SECONDS = 5.0

F = TypeVar("F", bound=Callable[..., Any])


def _reach(function: F) -> F:
    """
    Give a mode the options that say where an agent is reached.
    """
    options: tuple[Callable[[F], F], ...] = (
        click.option(
            "--lookup-by",
            type=click.Choice(["ip", "hostname"]),
            help="Reach the agent by its address, or by its name.",
        ),
        click.option("--ip", metavar="ADDRESS", help="The agent's address."),
        click.option(
            "--agent-port",
            metavar="N",
            type=port_number,
            help="Where the agent listens.",
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function


# --- pairing -------------------------------------------------------------


@mode("pairing-mode")
@click.argument(
    "action", metavar="[start|stop]", required=False, type=click.Choice(_ACTIONS)
)
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=click.IntRange(1, 600),
    help="Close the port after so long; up to 600, which is the default.",
)
def pairing_mode(
    line: CommandLine, action: str | None, timeout: int | None
) -> int | None:
    """
    Let agents ask to be paired, and decide.

    The pairing port is open until you quit, and for ten minutes at the most.
    With start it is open in the background, until stop closes it: approve and
    deny decide.
    """
    match action:
        case "start":
            return _start_pairing(line, timeout)
        case "stop":
            return _stop_pairing(line)
    _serve_pairing(line, timeout)
    return None


def _serve_pairing(line: CommandLine, timeout: int | None) -> None:
    terminal = line.terminal
    seat = Seat(
        write=terminal.show,
        stdin=terminal.stdin.fileno(),
        attended=terminal.stdin.isatty(),
        timeout_seconds=timeout,
        port=line.port,
    )
    dispatcher, caller = line.dispatcher, line.caller
    line.world.loop.serve(
        lambda reactor: dispatcher.on(reactor).pairing_mode(caller, seat)
    )


def _start_pairing(line: CommandLine, timeout: int | None) -> int:
    from ctrlexec.dispatcher.background import MODE, PATIENCE_SECONDS, why_not

    pairing = line.carry_out(lambda ours: ours.pairing_process(line.caller))
    pairing.require_closed()
    seconds = timeout or line.settings.pairing_timeout
    words = [*line.again(), f"--timeout={seconds}"]
    if line.port is not None:
        words.append(f"--port={line.port}")
    child = line.world.launch([MODE, *words], line.environ_again())
    line.wait_for(
        "the pairing port",
        lambda: pairing.pid == child.pid or child.has_ended(),
        PATIENCE_SECONDS,
    )
    if pairing.pid != child.pid:
        child.end()
        line.report(why_not(child))
        return FAILED
    pairing.started(line.port or line.settings.pairing_port, seconds)
    line.show(
        f"the pairing port is open for {seconds} s, in process {child.pid}\n",
        render.to_json({"ok": True, "pid": child.pid, "timeout": seconds}),
    )
    line.note("list-requests shows who asks, approve and deny decide")
    return 0


def _stop_pairing(line: CommandLine) -> int:
    from ctrlexec.dispatcher.background import PATIENCE_SECONDS

    pairing = line.carry_out(lambda ours: ours.pairing_process(line.caller))
    pid = pairing.stop()
    if not line.wait_for(
        "the pairing port",
        lambda: pairing.pid is None,
        PATIENCE_SECONDS,
    ):
        line.fail(f"pairing mode does not end; it is process {pid}")
        return FAILED
    line.show("the pairing port is closed\n", render.to_json({"ok": True, "pid": pid}))
    return 0


@mode("list-requests")
def list_requests(line: CommandLine) -> None:
    """
    List the agents that wait to be paired.
    """
    requests = line.carry_out(lambda ours: ours.list_requests(line.caller))
    line.show_all(render.requests_text(requests), map(render.request_fields, requests))
    if requests:
        line.note(
            "compare each code with the one that the agent's own screen shows; "
            "if it is the same: ctrl-exec approve ID"
        )
        if any(request.legacy for request in requests):
            from ctrlexec.codes import LEGACY_WARNING

            line.note(f"legacy: {LEGACY_WARNING}; ctrl-exec approve --legacy ID")
    else:
        line.note("no agent is waiting; ctrl-exec pairing-mode lets agents ask")


@mode("approve")
@click.argument("reqid", metavar="ID")
@click.option(
    "--legacy",
    is_flag=True,
    help="Even one that asks in the way of the original, whose code says nothing "
    "of this dispatcher: who sits in between can pass it.",
)
@_reach
def approve(
    line: CommandLine,
    reqid: str,
    legacy: bool,
    lookup_by: str | None,
    ip: str | None,
    agent_port: int | None,
) -> None:
    """
    Let an agent in, once its code has been compared.
    """
    reach = Reach(lookup_by, ip, agent_port)
    approval = line.carry_out(
        lambda ours: ours.approve(line.caller, reqid, reach, legacy=legacy)
    )
    delivered = line.wait_for(
        "the pairing listener",
        lambda: line.dispatcher.is_delivered(reqid),
        _DELIVERY_SECONDS,
    )
    agent = approval.record
    line.show(
        render.approval_text(agent, approval.serial),
        render.approval_json(agent, approval.serial, delivered=delivered),
    )
    if approval.replaced:
        line.terminal.warning(
            f"there was a {agent.hostname} before; its record is replaced, and "
            "the certificate that it had stays valid until it ends"
        )
    if not delivered:
        line.terminal.warning(
            f"{agent.hostname} does not have its certificate yet: no pairing "
            "listener has taken it from the queue",
            "ctrl-exec pairing-mode must be running while the agent waits; if it "
            "was not, request the pairing on the agent again",
        )


@mode("deny")
@click.argument("reqid", metavar="ID")
def deny(line: CommandLine, reqid: str) -> None:
    """
    Turn an agent away.
    """
    request = line.carry_out(lambda ours: ours.deny(line.caller, reqid))
    line.show(
        f"{request.hostname} is denied\n",
        render.to_json({"ok": True, "hostname": request.hostname, "reqid": reqid}),
    )


# --- those that are paired -----------------------------------------------


def tags_of(texts: tuple[str, ...]) -> dict[str, str]:
    """
    @raise InvalidValue: they are not C{TAG=VALUE}, with commas between them.
    """
    tags = {}
    for text in texts:
        for pair in text.split(","):
            name, equals, value = pair.partition("=")
            if not name or not equals:
                raise InvalidValue("tag", pair, "TAG=VALUE, with commas between them")
            tags[name] = value
    return tags


@mode("list-agents", through_socket=True)
@click.option(
    "--tags",
    multiple=True,
    metavar="TAG=VALUE[,...]",
    help="Only those that have all of these, as discovery has last found them.",
)
def list_agents(line: CommandLine, tags: tuple[str, ...]) -> int:
    """
    List the agents that are paired.
    """
    agents, unreadable = line.backend.list_agents(tags_of(tags))
    now, look = line.world.time.now(), line.terminal.look
    line.show_all(
        render.agents_text(agents, now, look), map(render.agent_fields, agents)
    )
    for error in unreadable:
        line.terminal.error(str(error), error.hint)
    if not agents and not unreadable:
        line.note("no agent has these tags" if tags else "no agent is paired yet")
    return FAILED if unreadable else 0


@mode("edit-agent")
@click.argument("name", metavar="HOST", shell_complete=complete_agent)
@click.option("--rename", metavar="NAME", help="What it is called here from now on.")
@_reach
def edit_agent(
    line: CommandLine,
    name: str,
    rename: str | None,
    lookup_by: str | None,
    ip: str | None,
    agent_port: int | None,
) -> None:
    """
    Change where an agent is reached, or its name here.
    """
    reach = Reach(lookup_by, ip, agent_port)
    agent = line.carry_out(
        lambda ours: ours.edit_agent(line.caller, name, reach, rename)
    )
    fields = render.agent_fields(agent)
    line.show(render.reach_text(agent, "is changed"), render.to_json(fields))


@mode("unpair")
@click.argument("name", metavar="HOST", shell_complete=complete_agent)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--revoke",
    "revokes",
    is_flag=True,
    help="Take back its certificate, too: see revoke.",
)
def unpair(line: CommandLine, name: str, yes: bool, revokes: bool) -> int:
    """
    Forget an agent.

    It is asked nothing any more. Its certificate stays valid until it ends, but
    gives it no power over anybody.
    """
    asked = line.terminal.attended and not yes
    if asked and not line.terminal.asks(f"forget the agent {name}?"):
        line.note("nothing was changed")
        return FAILED
    if asked and not revokes:
        revokes = line.terminal.asks("revoke its certificate, too?")
    if revokes:
        from ctrlexec.dispatcher.modes.revoking import unpair_revoked

        return unpair_revoked(line, name)
    agent = line.carry_out(lambda ours: ours.unpair(line.caller, name))
    document = {"ok": True, "hostname": name}
    if agent is not None:
        document["expiry"] = agent.expiry
    line.show(f"{name} is unpaired\n", render.to_json(document))
    return 0
