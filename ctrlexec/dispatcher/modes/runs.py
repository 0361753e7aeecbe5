# SPDX-License-Identifier: AGPL-3.0-only
"""
The modes that are about runs that have begun: what became of them, what they
write, what lives, and how it is ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import click

from ctrlexec.dispatcher import render
from ctrlexec.dispatcher.command import CommandLine
from ctrlexec.dispatcher.completion import complete_hosts, complete_run
from ctrlexec.dispatcher.exit_codes import LOST, OK, rows_status, waited_status
from ctrlexec.dispatcher.grammar import Mistake, mode
from ctrlexec.dispatcher.modes.asking import asking, exclude_option, followed
from ctrlexec.dispatcher.modes.run_options import (
    PATTERN,
    check_fold,
    check_follow,
    duration_or_none,
    fold,
    named,
)
from ctrlexec.dispatcher.orders import Selection
from ctrlexec.dispatcher.printers import (
    Format,
    cancel_printer,
    ps_printer,
    run_printer,
)
from ctrlexec.dispatcher.render_runs import STILL, elapsed, others_text, run_count
from ctrlexec.dispatcher.results import RunRow
from ctrlexec.dispatcher.viewer import Interrupted
from ctrlexec.dispatcher.wording import Wording
from ctrlexec.errors import InvalidValue, NotFound
from ctrlexec.values import request_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ctrlexec.dispatcher.run_record import RunRecord

_WAIT_SECONDS = "300"

_some_hosts = click.argument(
    "hosts", nargs=-1, metavar="[HOST]...", shell_complete=complete_hosts
)


def _known(text: str) -> str:
    """
    What can be no id is known of no run: for whoever waits a mistake has to be
    told from a run that has not ended.
    """
    try:
        return request_id(text)
    except InvalidValue as error:
        raise NotFound(str(error)) from None


_reqid = click.argument(
    "reqid", metavar="REQID", type=_known, shell_complete=complete_run
)


@mode("status", through_socket=True)
@_reqid
@fold
def status(line: CommandLine, reqid: str, fold: bool) -> None:
    """
    Show what became of a run of the last 24 hours.

    Hosts that it has not ended on are asked.
    """
    check_fold(fold, line.how)
    _show(line, line.backend.status(reqid), fold)


@mode("wait", through_socket=True)
@_reqid
@click.option(
    "--timeout",
    metavar="TIME",
    type=named("--timeout", duration_or_none),
    default=_WAIT_SECONDS,
    help="Wait no longer than that: 90, 30s, 5m or 2h.  [default: 300]",
)
@fold
def wait(line: CommandLine, reqid: str, timeout: float, fold: bool) -> int:
    """
    Wait until a run has ended everywhere, and show how.

    Exit status 0 if it ended with 0 everywhere, 1 if it did not, or is not
    known; 2 if it has not ended in time.
    """
    check_fold(fold, line.how)
    seconds, terminal = line.world.time.seconds, line.terminal
    since = seconds()

    def ticked() -> None:
        gone = elapsed(seconds() - since)
        terminal.passing(f"waiting for {reqid}: {gone} of {elapsed(timeout)}")

    try:
        record = line.backend.await_end(reqid, timeout, ticked)
    except KeyboardInterrupt:
        terminal.interrupted()
        hint = f"it goes on: ctrl-exec wait {reqid} waits again, attach shows it"
        raise Interrupted("interrupted", hint=hint) from None
    finally:
        terminal.erase()
    rows = _show(line, record, fold)
    _tell_pending(line, record, rows)
    return waited_status(rows, complete=record.complete)


def _tell_pending(line: CommandLine, record: RunRecord, rows: Sequence[RunRow]) -> None:
    # Of those that can not be asked the record says what was known last.
    known = {row.host for row in rows if row.outcome in STILL and not row.hint}
    for words, hosts in (
        ("it has not ended on", [each for each in record.pending if each in known]),
        (
            "nobody knows whether it has ended on",
            [each for each in record.pending if each not in known],
        ),
    ):
        if hosts:
            line.note(f"{words} {', '.join(hosts)}")


def _show(line: CommandLine, record: RunRecord, fold: bool) -> Sequence[RunRow]:
    """
    @return: what became of it on each host.
    """
    from ctrlexec.dispatcher.recorded import recorded_rows, run_note

    rows = recorded_rows(record)
    printer = run_printer(line.how, line.terminal.look, fold=fold)
    match line.how:
        case Format.JSON:
            line.terminal.show(render.to_json({"ok": True, **record.fields}) + "\n")
        case Format.JSONL | Format.TEXT:
            text = "".join(printer.row(row, ()) for row in rows)
            line.terminal.show(text + printer.end(rows))
    if line.is_read:
        for row in rows:
            if row.hint:
                line.terminal.warning(f"{row.host} could not be asked: {row.hint}")
        counted = run_count(rows)
        if counted:
            line.terminal.say(counted)
    line.note(run_note(record))
    return rows


@mode("attach", through_socket=True)
@_reqid
@_some_hosts
@click.option(
    "--from-start",
    is_flag=True,
    help="Show all that it has written, not only what you have not seen yet.",
)
def attach(
    line: CommandLine, reqid: str, hosts: tuple[str, ...], from_start: bool
) -> int:
    """
    Show what a run writes until it ends.

    What you have seen of it already is not shown again.
    Where it has ended already, all that is left is shown at once. Exit status
    as that of run --follow.
    """
    from ctrlexec.dispatcher.seen import notes_directory, seen_before

    _check_names("attach", hosts)
    check_follow("attach", line.how)
    line.detailed = True
    directory = notes_directory(line.world.environ)
    seen = {} if from_start else seen_before(directory, reqid)
    shown = [seen[host] for host in seen if not hosts or host in hosts]
    had = sum(each.stdout + each.stderr for each in shown)
    if had:
        line.note(f"{had} bytes were shown before; --from-start shows all")
    viewer, report = line.watch(
        run_printer(line.how, line.terminal.look, fold=False),
        Wording(order="attach", lost="no result", going_on="it runs on at", ends=True),
        lambda viewer: line.backend.attach(reqid, hosts, seen, viewer),
        followed(line, seen),
    )
    return rows_status(viewer.rows, stopped=report.stopped)


def _check_names(mode: str, hosts: Sequence[str]) -> None:
    """
    @raise click.UsageError: one of them is no name.
    """
    for host in hosts:
        if PATTERN & {*host}:
            raise Mistake(
                f"{mode} takes the names of hosts, and {host!r} is a pattern",
                "without a host all hosts of the run are meant",
            )


@mode("cancel", through_socket=True)
@_reqid
@_some_hosts
def cancel(line: CommandLine, reqid: str, hosts: tuple[str, ...]) -> int:
    """
    End a run, and everything that it has started.

    What does not end when it is told to is killed. Hosts that were not asked
    yet are not asked any more.

    Exit status 0 if nothing of it is left.
    """
    _check_names("cancel", hosts)
    line.detailed = True
    viewer, _ = line.watch(
        cancel_printer(line.how, line.terminal.look),
        attrs.evolve(asking("cancel"), good="ended"),
        lambda viewer: line.backend.cancel(reqid, hosts, viewer),
    )
    return OK if all(row.ok for row in viewer.rows) else LOST


@mode("ps", through_socket=True)
@click.argument(
    "hosts", nargs=-1, metavar="[HOST[:PORT]]...", shell_complete=complete_hosts
)
@exclude_option
def ps(line: CommandLine, hosts: tuple[str, ...], exclude: tuple[str, ...]) -> int:
    """
    List what runs on hosts.

    A HOST is what it is for run; without one all paired agents are asked.
    """
    line.detailed = True
    selection = Selection(hosts, exclude, line.port)
    viewer, _ = line.watch(
        ps_printer(line.how, line.terminal.width),
        asking("ps"),
        lambda viewer: line.backend.ps(selection, viewer),
    )
    for others in filter(None, map(others_text, viewer.rows)):
        line.note(others)
    known = all(row.ok for row in viewer.rows)
    if not viewer.rows:
        line.note("no agent is paired yet")
    elif known and not any(row.runs for row in viewer.rows):
        line.note("nothing of ours runs there")
    return OK if known else LOST
