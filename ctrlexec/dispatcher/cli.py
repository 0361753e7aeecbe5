# SPDX-License-Identifier: AGPL-3.0-only
"""
C{ctrl-exec}: PROTOCOL.md section 7, NEWER-LINE.md section 12.2.

Options may stand anywhere before C{--}; what follows it belongs to the script.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import click

from ctrlexec.dispatcher.command import CommandLine
from ctrlexec.dispatcher.completion import VARIABLE, answer
from ctrlexec.dispatcher.exit_codes import (
    FAILED,
    INTERRUPTED,
    USAGE,
    error_status,
)
from ctrlexec.dispatcher.grammar import (
    PROGRAM,
    Mistake,
    Modes,
    divided,
    output_wanted,
    with_options,
)
from ctrlexec.dispatcher.modes import (
    agents,
    asking,
    itself,
    lasting,
    revoking,
    runs,
    tokens,
)
from ctrlexec.dispatcher.signals import EndingSignals
from ctrlexec.dispatcher.world import Loop, Work, World
from ctrlexec.errors import CtrlExecError

_EPILOG = """\
\b
Examples:
  ctrl-exec ping 'web-*'
  ctrl-exec run web-1 web-2 backup -- --full /srv
  ctrl-exec run @role=web --exclude web-9 --fold uptime
  ctrl-exec --json list-agents

\b
Exit status: 0 all went well; 1 some script failed, or it did not work; 2 the
command line makes no sense, or nobody has said yes; 3 some host is not
reached, or nobody knows what became of it; 4 denied; 5 stopped by
--max-failures or --canary; 6 locked; 7 settings or certificates can not be
used; 124 timed out; 130 interrupted. Of several the first of 5, 4, 3, 6, 124
and 1 counts. 3 to 6 are 1 for a run with none of --follow, --timeout,
--on-disconnect, --batch, --batch-wait, --canary, --max-failures and
--detailed-exit. A ping or a discovery that was sent ends with 0, whoever
answers; wait ends with 2 if the run has not ended.
"""

R = TypeVar("R")


def main(arguments: Sequence[str] | None = None, world: World | None = None) -> int:
    """
    @param arguments: without the program's name; by default those of this
        process.
    @return: the exit status.
    """
    words = sys.argv[1:] if arguments is None else [*arguments]
    if world is not None:
        return _carried_out(words, world)
    signals = EndingSignals()
    wait, serve = partial(_wait, signals), partial(_serve, signals)
    with signals.deadly():
        return _carried_out(words, World.real(Loop(wait, serve, _be_impatient)))


def _carried_out(words: list[str], world: World) -> int:
    ours, script_args = divided(words)
    line = CommandLine(world, script_args)
    instruction = world.environ.get(VARIABLE)
    if instruction:
        world.terminal.show(answer(ctrl_exec, line, instruction))
        return 0
    # Even for an error in what stands before it.
    line.given["output"] = output_wanted(ours)
    try:
        status: int | None = ctrl_exec.main(
            args=ours, prog_name=PROGRAM, obj=line, standalone_mode=False
        )
        return status or 0
    except click.UsageError as error:
        line.fail(*_in_words(error))
        return USAGE
    except CtrlExecError as error:
        line.report(error)
        return error_status(error, detailed=line.detailed)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        line.fail(f"{where}{error.strerror or error}", _who_may(error))
        return FAILED
    except (click.Abort, KeyboardInterrupt):
        world.loop.be_impatient()
        line.fail("interrupted")
        return INTERRUPTED


def _who_may(error: OSError) -> str:
    denied = isinstance(error, PermissionError)
    return "the dispatcher's files are for root and its own user" if denied else ""


def _in_words(error: click.UsageError) -> tuple[str, str]:
    """
    @return: what is wrong with a command line, and what would be right.
    """
    words = error.ctx.command_path.split()[1:] if error.ctx else []
    mode = " ".join(words)
    if mode == "run" and isinstance(error, click.NoSuchOption):
        option = error.option_name
        return (
            f"run has no option {option}",
            f"is it the script's? then: run HOST SCRIPT -- {option}",
        )
    text = error.format_message()
    if isinstance(error, Mistake):
        return text, error.hint
    return text[:1].lower() + text[1:], f"{PROGRAM} {mode} --help".replace("  ", " ")


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


for _mode in (
    asking.run,
    asking.ping,
    asking.discovery,
    runs.status,
    runs.wait,
    runs.attach,
    runs.cancel,
    runs.ps,
    asking.list_locks,
    agents.pairing_mode,
    agents.list_requests,
    agents.approve,
    agents.deny,
    tokens.join_token,
    agents.list_agents,
    agents.edit_agent,
    agents.unpair,
    revoking.revoke,
    lasting.renew,
    lasting.maintain,
    lasting.rotate_cert,
    lasting.serial_status,
    itself.setup_ca,
    itself.ca_fingerprint,
    itself.setup_ctrl_exec,
    itself.completion,
    itself.demo,
):
    ctrl_exec.add_command(_mode)


# --- the reactor ---------------------------------------------------------


def _serve(signals: EndingSignals, work: Work[R]) -> R:
    from twisted.internet import reactor

    from ctrlexec.foreground import run_to_end

    before = signal.getsignal(signal.SIGINT)
    try:
        with signals.telling(partial(_stop, reactor)):
            return run_to_end(reactor, work(reactor))
    finally:
        # A reactor that has ended would go on catching it.
        signal.signal(signal.SIGINT, before)


def _stop(reactor: Any) -> None:
    from twisted.internet.error import ReactorNotRunning

    def stop() -> None:
        # It may have ended by itself meanwhile.
        with suppress(ReactorNotRunning):
            reactor.stop()

    reactor.callFromThread(stop)


def _wait(signals: EndingSignals, work: Work[R]) -> R:
    """
    Give up the work when a signal comes. By itself the reactor would close its
    connections first, and each would look like a host that does not answer.
    """
    from twisted.internet.defer import CancelledError, Deferred

    async def interruptible(reactor: Any) -> R:
        # The reactor has taken some of them.
        signals.listen()
        working = Deferred.fromCoroutine(work(reactor))

        def give_up() -> None:
            if not working.called:
                _be_impatient()
                working.cancel()

        reactor.addSystemEventTrigger("before", "shutdown", give_up)
        try:
            return await working
        except CancelledError:
            raise KeyboardInterrupt from None

    return _serve(signals, interruptible)


def _be_impatient() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
