# SPDX-License-Identifier: AGPL-3.0-only
"""
The modes that ask agents, and what became of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import attrs
import click

from ctrlexec.dispatcher import render
from ctrlexec.dispatcher.command import CommandLine
from ctrlexec.dispatcher.completion import complete_hosts, complete_order
from ctrlexec.dispatcher.grammar import mode
from ctrlexec.dispatcher.orders import RunOrder, Selection
from ctrlexec.dispatcher.printers import (
    Format,
    discovery_printer,
    ping_printer,
    run_printer,
)
from ctrlexec.dispatcher.viewer import Wording
from ctrlexec.kinds import seconds
from ctrlexec.values import script_name

FAILED = 1

F = TypeVar("F", bound=Callable[..., Any])

_exclude: Callable[[F], F] = click.option(
    "--exclude",
    multiple=True,
    metavar="HOST",
    shell_complete=complete_hosts,
    help="A host or a pattern that is not meant; may be given more than once.",
)
_fold: Callable[[F], F] = click.option(
    "-b",
    "--fold",
    is_flag=True,
    help="Show hosts together whose scripts have said the same.",
)


@mode("run", through_socket=True)
@click.argument(
    "words",
    nargs=-1,
    metavar="HOST[:PORT]... SCRIPT [-- ARG...]",
    shell_complete=complete_order,
)
@_exclude
@click.option("--dry-run", is_flag=True, help="Only show the hosts that are meant.")
@click.option("--yes", is_flag=True, help="Do not ask, however many hosts it is.")
@click.option(
    "--wait-lock",
    metavar="SECONDS",
    type=seconds(86_400).read,
    help="Wait so long for hosts where the script runs already.",
)
@_fold
def run(
    line: CommandLine,
    words: tuple[str, ...],
    exclude: tuple[str, ...],
    dry_run: bool,
    yes: bool,
    wait_lock: float | None,
    fold: bool,
) -> int:
    """
    Run a script on hosts.

    A HOST is the name of a paired agent, a pattern of such names (web-*), a
    range (web[01-40]), or a tag (@role=web; discovery learns them). SCRIPT is a
    name on their allowlists. Each ARG reaches the script as it was typed; no
    shell looks at it.

    Exit status 0 if the script ended with 0 on every host, else 1.
    """
    if len(words) < 2:
        raise click.UsageError("run needs one host at least, and a script")
    _check_fold(line, fold)
    *hosts, script = words
    selection = Selection(tuple(hosts), exclude, line.port)
    if dry_run:
        return _show_hosts(line, selection, script_name(script))
    order = RunOrder(
        selection=selection,
        script=script,
        args=line.script_args or (),
        wait_lock_seconds=wait_lock or 0,
        confirmed=yes,
    )
    wording = Wording(order=f"run {script}", lost="no result", going_on="it runs on at")
    viewer = line.watch(
        run_printer(line.how, line.terminal.look, fold=fold),
        wording,
        lambda viewer: line.backend.run(order, viewer),
    )
    return 0 if all(row.ok for row in viewer.rows) else FAILED


def _check_fold(line: CommandLine, fold: bool) -> None:
    if fold and not line.is_read:
        raise click.UsageError(
            "--fold is for people, --json and jsonl are for programs"
        )


def _show_hosts(line: CommandLine, selection: Selection, script: str) -> int:
    selected = line.backend.select(selection)
    hosts = [render.host_text(each) for each in selected.hosts]
    document = {"ok": True, "dry_run": True, "script": script, "hosts": hosts}
    line.show("".join(f"{host}\n" for host in hosts), render.to_json(document))
    for warning in selected.warnings:
        line.terminal.warning(warning)
    line.note(f"{script} would be run on {len(hosts)} host{'s'[: len(hosts) != 1]}")
    return 0


@mode("ping", through_socket=True)
@click.argument(
    "hosts",
    nargs=-1,
    required=True,
    metavar="HOST[:PORT]...",
    shell_complete=complete_hosts,
)
@_exclude
def ping(line: CommandLine, hosts: tuple[str, ...], exclude: tuple[str, ...]) -> None:
    """
    Ask whether agents are there.

    A HOST is what it is for run.
    """
    selection = Selection(hosts, exclude, line.port)
    line.watch(
        ping_printer(line.how, line.terminal.look),
        _asking("ping"),
        lambda viewer: line.backend.ping(selection, viewer),
    )


@mode("discovery", through_socket=True)
@click.argument(
    "hosts", nargs=-1, metavar="[HOST[:PORT]]...", shell_complete=complete_hosts
)
@_exclude
def discovery(
    line: CommandLine, hosts: tuple[str, ...], exclude: tuple[str, ...]
) -> None:
    """
    Ask agents what they offer.

    Without a HOST all paired agents are asked. Their tags and scripts are noted
    for list-agents --tags, for @TAG=VALUE, and for completion.
    """
    selection = Selection(hosts, exclude, line.port)
    viewer = line.watch(
        discovery_printer(line.how, line.terminal.look),
        _asking("discovery"),
        lambda viewer: line.backend.discover(selection, viewer),
    )
    if not viewer.rows:
        line.note("no agent is paired yet")


def _asking(order: str) -> Wording:
    return Wording(
        order=order, lost="no answer", going_on="no answer from", errors_apart=True
    )


# --- what became of it ---------------------------------------------------


@mode("status", through_socket=True)
@click.argument("reqid", metavar="REQID")
@_fold
def status(line: CommandLine, reqid: str, fold: bool) -> None:
    """
    Show what became of a run of the last 24 hours.
    """
    from ctrlexec.dispatcher.recorded import recorded_rows, run_note

    _check_fold(line, fold)
    record = line.backend.status(reqid)
    rows = recorded_rows(record)
    printer = run_printer(line.how, line.terminal.look, fold=fold)
    match line.how:
        case Format.JSON:
            line.terminal.show(render.to_json({"ok": True, **record.fields}) + "\n")
        case Format.JSONL | Format.TEXT:
            text = "".join(printer.row(row, ()) for row in rows)
            line.terminal.show(text + printer.end(rows))
    line.note(run_note(record))


@mode("list-locks")
def list_locks(line: CommandLine) -> None:
    """
    List the scripts that run, or are about to.
    """
    locks = line.carry_out(lambda dispatcher: dispatcher.list_locks(line.caller))
    line.show_all(render.locks_text(locks), map(attrs.asdict, locks))
    if not locks:
        line.note("nothing is locked")
