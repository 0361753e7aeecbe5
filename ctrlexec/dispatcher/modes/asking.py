# SPDX-License-Identifier: AGPL-3.0-only
"""
The modes that ask agents, and what became of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import attrs
import click

from ctrlexec.dispatcher import render
from ctrlexec.dispatcher.command import CommandLine
from ctrlexec.dispatcher.completion import complete_hosts, complete_order
from ctrlexec.dispatcher.exit_codes import FAILED, OK, rows_status
from ctrlexec.dispatcher.grammar import mode
from ctrlexec.dispatcher.modes.run_options import RunOptions, named, run_options
from ctrlexec.dispatcher.orders import RunOrder, Seen, Selection
from ctrlexec.dispatcher.printers import (
    async_printer,
    discovery_printer,
    ping_printer,
    run_printer,
)
from ctrlexec.dispatcher.results import submission
from ctrlexec.dispatcher.rolling import lots
from ctrlexec.dispatcher.viewer import Following
from ctrlexec.dispatcher.wording import Wording
from ctrlexec.kinds import seconds
from ctrlexec.values import ON_DISCONNECT, script_name

F = TypeVar("F", bound=Callable[..., Any])

exclude_option: Callable[[F], F] = click.option(
    "--exclude",
    multiple=True,
    metavar="HOST",
    shell_complete=complete_hosts,
    help="A host or a pattern that is not meant; may be given more than once.",
)


@mode("run", through_socket=True)
@click.argument(
    "words",
    nargs=-1,
    metavar="HOST[:PORT]... SCRIPT [-- ARG...]",
    shell_complete=complete_order,
)
@exclude_option
@click.option("--dry-run", is_flag=True, help="Only show the hosts that are meant.")
@click.option("--yes", is_flag=True, help="Do not ask, however many hosts it is.")
@click.option(
    "--wait-lock",
    metavar="SECONDS",
    type=named("--wait-lock", seconds(86_400).read),
    help="Wait so long for hosts where the script runs already.",
)
@run_options
def run(
    line: CommandLine,
    words: tuple[str, ...],
    exclude: tuple[str, ...],
    dry_run: bool,
    yes: bool,
    wait_lock: float | None,
    **given: Any,
) -> int:
    """
    Run a script on hosts.

    A HOST is the name of a paired agent, a pattern of such names (web-*), a
    range (web[01-40]), or a tag (@role=web; discovery learns them). SCRIPT is a
    name on their allowlists. Each ARG reaches the script as it was typed; no
    shell looks at it.

    Exit status 0 if the script ended with 0 on every host, 124 if its time was
    over, else 1; in detail with --detailed-exit, and with any option that the
    original does not have: see ctrl-exec --help.
    """
    if len(words) < 2:
        raise click.UsageError("run needs one host at least, and a script")
    options = RunOptions(**given)
    options.check(line.how)
    *hosts, script = words
    selection = Selection(tuple(hosts), exclude, line.port)
    if dry_run:
        return _show_hosts(line, selection, script_name(script), options)
    order = RunOrder(
        selection=selection,
        script=script,
        args=line.script_args or (),
        wait_lock_seconds=wait_lock or 0,
        confirmed=yes,
        asynchronous=options.asynchronous,
        follow=options.follows(line.how, hosts, line.terminal),
        timeout_seconds=options.timeout,
        on_disconnect=options.on_disconnect or ON_DISCONNECT[0],
        rolling=options.rolling(),
    )
    line.detailed = options.are_detailed
    return _submit(line, order) if order.asynchronous else _run(line, order, options)


def _run(line: CommandLine, order: RunOrder, options: RunOptions) -> int:
    stays = order.on_disconnect == "keep"
    viewer, report = line.watch(
        run_printer(line.how, line.terminal.look, fold=options.fold),
        Wording(
            order=f"run {order.script}",
            lost="no result",
            going_on="it runs on at" if stays else "it is cancelled at",
            ends=True,
            stays=stays,
        ),
        lambda viewer: line.backend.run(order, viewer),
        followed(line) if order.follow else None,
    )
    return rows_status(viewer.rows, stopped=report.stopped, detailed=line.detailed)


def _submit(line: CommandLine, order: RunOrder) -> int:
    """
    Let hosts run something that nobody waits for.
    """
    viewer, _ = line.watch(
        async_printer(line.how, line.terminal.look),
        Wording(
            order=f"run {order.script}",
            lost="no result",
            going_on="it may run at",
        ),
        lambda viewer: line.backend.run(order, viewer),
    )
    taken = [row for row in viewer.rows if submission(row) == "accepted"]
    if taken:
        line.note(f"ctrl-exec wait {viewer.reqid} waits for it, attach follows it")
    if line.detailed:
        return rows_status(viewer.rows)
    return OK if taken else FAILED


def followed(line: CommandLine, seen: Mapping[str, Seen] | None = None) -> Following:
    """
    How what scripts write is told as it comes.

    @param seen: how much of it somebody has had before.
    """
    from ctrlexec.dispatcher.live import LiveLines, LiveText
    from ctrlexec.dispatcher.seen import SeenNotes, notes_directory

    had = dict(seen or {})
    live = LiveText(line.terminal.looks, had) if line.is_read else LiveLines()
    time = line.world.time
    directory = notes_directory(line.world.environ)
    notes = SeenNotes(directory, lambda: time.now().timestamp(), time.seconds, had)
    return Following(live, notes)


def _show_hosts(
    line: CommandLine, selection: Selection, script: str, options: RunOptions
) -> int:
    selected, rolling = line.backend.select(selection), options.rolling()
    hosts = [render.host_text(each) for each in selected.hosts]
    document = {"ok": True, "dry_run": True, "script": script, "hosts": hosts}
    in_lots = ""
    if rolling is not None:
        document["lots"] = sizes = lots(len(hosts), rolling)
        in_lots = f", so many at a time: {' '.join(map(str, sizes))}"
    line.show("".join(f"{host}\n" for host in hosts), render.to_json(document))
    for warning in selected.warnings:
        line.terminal.warning(warning)
    count = f"{len(hosts)} host{'s'[: len(hosts) != 1]}"
    line.note(f"{script} would be run on {count}{in_lots}")
    return 0


@mode("ping", through_socket=True)
@click.argument(
    "hosts",
    nargs=-1,
    required=True,
    metavar="HOST[:PORT]...",
    shell_complete=complete_hosts,
)
@exclude_option
def ping(line: CommandLine, hosts: tuple[str, ...], exclude: tuple[str, ...]) -> None:
    """
    Ask whether agents are there.

    A HOST is what it is for run.
    """
    selection = Selection(hosts, exclude, line.port)
    line.watch(
        ping_printer(line.how, line.terminal.look),
        asking("ping"),
        lambda viewer: line.backend.ping(selection, viewer),
    )


@mode("discovery", through_socket=True)
@click.argument(
    "hosts", nargs=-1, metavar="[HOST[:PORT]]...", shell_complete=complete_hosts
)
@exclude_option
def discovery(
    line: CommandLine, hosts: tuple[str, ...], exclude: tuple[str, ...]
) -> None:
    """
    Ask agents what they offer.

    Without a HOST all paired agents are asked. Their tags and scripts are noted
    for list-agents --tags, for @TAG=VALUE, and for completion.
    """
    selection = Selection(hosts, exclude, line.port)
    viewer, _ = line.watch(
        discovery_printer(line.how, line.terminal.look),
        asking("discovery"),
        lambda viewer: line.backend.discover(selection, viewer),
    )
    if not viewer.rows:
        line.note("no agent is paired yet")


def asking(order: str) -> Wording:
    """
    How an order is spoken of that hosts only answer.
    """
    return Wording(
        order=order, lost="no answer", going_on="no answer from", errors_apart=True
    )


# --- what became of it ---------------------------------------------------


@mode("list-locks")
def list_locks(line: CommandLine) -> None:
    """
    List the scripts that run, or are about to.
    """
    locks = line.carry_out(lambda dispatcher: dispatcher.list_locks(line.caller))
    line.show_all(render.locks_text(locks), map(attrs.asdict, locks))
    if not locks:
        line.note("nothing is locked")
