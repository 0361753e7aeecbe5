# SPDX-License-Identifier: AGPL-3.0-only
"""
C{ctrl-exec}: PROTOCOL.md section 7, NEWER-LINE.md section 12.2.

Options may stand anywhere before C{--}; what follows it belongs to the script.
Each mode loads what it uses and no more: whoever lists agents waits for
neither Twisted nor cryptography.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from ctrlexec.dispatcher import render
from ctrlexec.dispatcher.command import CommandLine, Interrupted, Work, World
from ctrlexec.dispatcher.grammar import PROGRAM, Modes, divided, with_options
from ctrlexec.errors import (
    CtrlExecError,
    InvalidValue,
    PkiError,
    RequestRejected,
    SettingsError,
)
from ctrlexec.values import HostPort, port_number

FAILED, USAGE, CONFIGURATION, INTERRUPTED = 1, 2, 7, 130

_DELIVERY_SECONDS = 5.0
_EPILOG = """\
\b
Examples:
  ctrl-exec ping web-1 web-2
  ctrl-exec run web-1 web-2 backup -- --full /srv
  ctrl-exec --json list-agents

\b
Exit status: 0 all went well; 1 it did not, on some host at least; 2 the
command line makes no sense; 7 settings or certificates can not be used;
130 interrupted. A ping that was sent ends with 0, whoever answers.
"""

R = TypeVar("R")


def main(arguments: Sequence[str] | None = None, world: World | None = None) -> int:
    """
    @param arguments: without the program's name; by default those of this
        process.
    @return: the exit status.
    """
    words = sys.argv[1:] if arguments is None else [*arguments]
    ours, script_args = divided(words)
    line = CommandLine(world or World.real(wait=_wait, serve=_serve), script_args)
    # Even for an error in what stands before it.
    line.given["json"] = "--json" in ours
    try:
        status: int | None = ctrl_exec.main(
            args=ours, prog_name=PROGRAM, obj=line, standalone_mode=False
        )
        return status or 0
    except click.UsageError as error:
        line.fail(*_in_words(error))
        return USAGE
    except Interrupted as error:
        line.fail(str(error), results=error.results)
        return INTERRUPTED
    except CtrlExecError as error:
        line.fail(str(error), error.hint)
        return exit_status(error)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        line.fail(f"{where}{error.strerror or error}", _who_may(error))
        return FAILED
    except (click.Abort, KeyboardInterrupt):
        line.fail("interrupted")
        return INTERRUPTED


def exit_status(error: CtrlExecError) -> int:
    """
    @return: the exit status of a command that ends with this error.
    """
    match error:
        case RequestRejected():
            return FAILED
        case SettingsError() | PkiError():
            return CONFIGURATION
        case InvalidValue():
            return USAGE
    return FAILED


def _who_may(error: OSError) -> str:
    denied = isinstance(error, PermissionError)
    return "the dispatcher's files are for root and its own user" if denied else ""


def _serve(work: Work[R]) -> R:
    from twisted.internet import reactor

    from ctrlexec.foreground import run_to_end

    return run_to_end(reactor, work(reactor))


def _wait(work: Work[R]) -> R:
    """
    Give up the work when a signal comes. By itself the reactor would close its
    connections first, and each would look like a host that does not answer.
    """
    from twisted.internet.defer import CancelledError, Deferred

    async def interruptible(reactor: Any) -> R:
        working = Deferred.fromCoroutine(work(reactor))
        reactor.addSystemEventTrigger("before", "shutdown", working.cancel)
        try:
            return await working
        except CancelledError:
            raise KeyboardInterrupt from None

    return _serve(interruptible)


def _in_words(error: click.UsageError) -> tuple[str, str]:
    """
    @return: what is wrong with a command line, and what would be right.
    """
    mode = error.ctx.info_name if error.ctx and error.ctx.parent else ""
    if mode == "run" and isinstance(error, click.NoSuchOption):
        option = error.option_name
        return (
            f"run has no option {option}",
            f"is it the script's? then: run HOST SCRIPT -- {option}",
        )
    text = error.format_message()
    return text[:1].lower() + text[1:], f"{PROGRAM} {mode} --help".replace("  ", " ")


# --- the modes ---------------------------------------------------------


@click.group(
    cls=Modes,
    invoke_without_command=True,
    subcommand_metavar="MODE ...",
    options_metavar="[OPTION]...",
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@with_options(hidden=False)
@click.pass_context
def ctrl_exec(context: click.Context) -> None:
    """
    Run named, allowlisted scripts on many hosts, over mutual TLS.

    Options may stand before or after the mode.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def mode(name: str) -> Callable[[Callable[..., int | None]], click.Command]:
    """
    Make a function a mode. It is given the L{CommandLine} and returns the exit
    status, or C{None} where all went well.
    """

    def decorated(function: Callable[..., int | None]) -> click.Command:
        given = click.make_pass_decorator(CommandLine)(function)
        command = ctrl_exec.command(name, options_metavar="[OPTION]...")
        return command(with_options(hidden=True)(given))

    return decorated


# --- asking agents -------------------------------------------------------


@mode("run")
@click.argument("words", nargs=-1, metavar="HOST[:PORT]... SCRIPT [-- ARG...]")
def run(line: CommandLine, words: tuple[str, ...]) -> int:
    """
    Run a script on hosts.

    Hosts are names of paired agents, and SCRIPT is a name on their allowlists.
    Each ARG reaches the script as it was typed; no shell looks at it.

    Exit status 0 if the script ended with 0 on every host, else 1.
    """
    if len(words) < 2:
        raise click.UsageError("run needs one host at least, and a script")
    *hosts, script = words
    rows = line.run(_hosts(line, hosts), script)
    return 0 if all(row.ok for row in rows) else FAILED


@mode("ping")
@click.argument("hosts", nargs=-1, required=True, metavar="HOST[:PORT]...")
def ping(line: CommandLine, hosts: tuple[str, ...]) -> None:
    """
    Ask whether agents are there.
    """
    line.ping(_hosts(line, hosts))


def _hosts(line: CommandLine, words: Sequence[str]) -> list[HostPort]:
    hosts = [HostPort.parse(word) for word in words]
    return [HostPort(each.host, each.port or line.port) for each in hosts]


# --- agents and requests -------------------------------------------------


@mode("pairing-mode")
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=click.IntRange(1, 600),
    help="Close the port after so long; up to 600, which is the default.",
)
def pairing_mode(line: CommandLine, timeout: int | None) -> None:
    """
    Let agents ask to be paired, and decide.

    The pairing port is open until you quit, and for ten minutes at the most.
    """
    line.pair(timeout)


@mode("list-agents")
def list_agents(line: CommandLine) -> int:
    """
    List the agents that are paired.
    """
    agents, unreadable = line.dispatcher.list_agents()
    text = render.agents_text(agents, line.world.now(), line.terminal.look)
    line.show(text, render.agents_json(agents))
    for error in unreadable:
        line.terminal.error(str(error), error.hint)
    if not agents and not unreadable:
        line.note("no agent is paired yet")
    return FAILED if unreadable else 0


@mode("list-requests")
def list_requests(line: CommandLine) -> None:
    """
    List the agents that wait to be paired.
    """
    requests = line.dispatcher.list_requests(line.caller)
    line.show(render.requests_text(requests), render.requests_json(requests))
    if requests:
        line.note(
            "compare each code with the one that the agent's own screen shows; "
            "if it is the same: ctrl-exec approve ID"
        )
    else:
        line.note("no agent is waiting; ctrl-exec pairing-mode lets agents ask")


@mode("approve")
@click.argument("reqid", metavar="ID")
@click.option(
    "--lookup-by",
    type=click.Choice(["ip", "hostname"]),
    help="Reach the agent by its address, or by its name.",
)
@click.option("--ip", metavar="ADDRESS", help="The agent's address.")
@click.option(
    "--agent-port",
    metavar="N",
    type=port_number,
    help="Where the agent listens.",
)
def approve(
    line: CommandLine,
    reqid: str,
    lookup_by: str | None,
    ip: str | None,
    agent_port: int | None,
) -> None:
    """
    Let an agent in, once its code has been compared.
    """
    dispatcher, caller = line.dispatcher, line.caller
    approval = dispatcher.approve(
        caller, reqid, lookup_by=lookup_by, ip=ip, port=agent_port
    )
    delivered = line.wait_for(
        "the pairing listener",
        lambda: dispatcher.is_delivered(caller, reqid),
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
    request = line.dispatcher.deny(line.caller, reqid)
    line.show(
        f"{request.hostname} is denied\n",
        render.to_json({"ok": True, "hostname": request.hostname, "reqid": reqid}),
    )


# --- this dispatcher -----------------------------------------------------


@mode("setup-ca")
def setup_ca(line: CommandLine) -> None:
    """
    Make the private CA. One that is there is never overwritten.
    """
    settings = line.settings
    info = line.dispatcher.setup_ca(line.caller)
    text = render.created_text("the CA", settings.ca_key, settings.ca, info)
    line.show(text, render.created_json(info))
    line.note("next: ctrl-exec setup-ctrl-exec")


@mode("setup-ctrl-exec")
@click.option("--yes", is_flag=True, help="Do not ask, even if agents are paired.")
def setup_ctrl_exec(line: CommandLine, yes: bool) -> int:
    """
    Make the dispatcher's own key and certificate.

    Agents of the original implementation trust one certificate of the
    dispatcher by its serial, so replacing it can lose them: that is asked
    first.
    """
    settings, dispatcher = line.settings, line.dispatcher
    stake = dispatcher.agents_at_stake(line.caller)
    if stake and not yes and line.terminal.attended:
        yes = line.terminal.asks(
            f"{stake} paired agents may not trust a new certificate. Replace it?"
        )
        if not yes:
            line.note("nothing was changed")
            return FAILED
    info = dispatcher.setup_identity(line.caller, confirmed=yes)
    what = f"the identity of the dispatcher {settings.dispatcher_id}"
    text = render.created_text(what, settings.key, settings.cert, info)
    line.show(text, render.created_json(info))
    line.note(
        "next: ctrl-exec pairing-mode here, and on each host "
        "ctrl-exec-agent request-pairing --dispatcher THIS-HOST"
    )
    return 0


@mode("demo")
@click.option("--keep", is_flag=True, help="Leave it running to play with.")
def demo(line: CommandLine, keep: bool) -> int:
    """
    Show it all at work on this machine.

    It takes a few seconds, needs no settings, and cleans up behind itself.
    """
    from ctrlexec.demo import main as show

    return show(keep=keep, colour=line.terminal.look.colour)
