# SPDX-License-Identifier: AGPL-3.0-only
"""
What a shell can complete: the modes and options that click knows of, the hosts
that are registered, the scripts that discovery has found on them, and recent runs.

What can not be had is not complained about: somebody is in the middle of a
line. What is offered may be run with the next key, so nothing is that is not
a name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import click

from ctrlexec.dispatcher.command import CommandLine
from ctrlexec.dispatcher.terminal import Terminal
from ctrlexec.errors import CtrlExecError, InvalidValue
from ctrlexec.values import request_id, script_name

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from ctrlexec.dispatcher.records import AgentRecord

#: Where a shell says what it wants to know.
VARIABLE = "_CTRL_EXEC_COMPLETE"

#: How many runs are offered.
MOST_RUNS = 20

_PROGRAM = "ctrl-exec"
_ALIASES = {
    "bash": "complete -o nosort -F _ctrl_exec_completion ced ctrl-exec-dispatcher\n",
    "zsh": "compdef _ctrl_exec_completion ced ctrl-exec-dispatcher\n",
    "fish": 'complete --no-files --command ced --arguments "(_ctrl_exec_completion)";\n'
    "complete --no-files --command ctrl-exec-dispatcher "
    '--arguments "(_ctrl_exec_completion)";\n',
}


def shell_script(shell: str) -> str:
    """
    What makes a shell ask us.
    """
    from click.shell_completion import ShellComplete, get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    asking = kind(click.Group(), {}, _PROGRAM, VARIABLE)
    # Not the shell's own: that of bash starts one, to look at its version.
    return ShellComplete.source(asking) + _ALIASES[shell]


def answer(group: click.Group, line: CommandLine, instruction: str) -> str:
    """
    What a shell is told.

    @param instruction: the shell and what it wants, C{"bash_complete"}.
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(instruction.removesuffix("_complete"))
    if kind is None:
        return ""
    asking = kind(group, {}, _PROGRAM, VARIABLE)
    try:
        before, word = asking.get_completion_args()
    except (KeyError, ValueError):
        return ""
    found = offers(group, line, before, word)
    return "".join(f"{asking.format_completion(each)}\n" for each in found)


def offers(
    group: click.Group, line: CommandLine, before: Sequence[str], word: str
) -> Sequence[CompletionItem[str]]:
    """
    What a word can become.

    @param before: the words that stand before it, without the program's name.
    """
    from click.shell_completion import ShellComplete

    if "--" in before:
        # That is between the operator and the script.
        return []
    world = attrs.evolve(line.world, terminal=_nobody())
    known = {"obj": CommandLine(world, None)}
    asking = ShellComplete(group, known, _PROGRAM, VARIABLE)
    return asking.get_completions([*before], word)


def _nobody() -> Terminal:
    return Terminal(StringIO(), StringIO(), StringIO(), {})


# --- what modes offer ----------------------------------------------------


def complete_hosts(
    context: click.Context, parameter: click.Parameter, word: str
) -> list[CompletionItem[str]]:
    """
    Hosts that are registered.
    """
    return _items(word, "host", _hosts(_agents(context)))


def complete_agent(
    context: click.Context, parameter: click.Parameter, word: str
) -> list[CompletionItem[str]]:
    """
    One host that is registered.
    """
    if context.params.get(str(parameter.name)):
        return []
    return complete_hosts(context, parameter, word)


def complete_order(
    context: click.Context, parameter: click.Parameter, word: str
) -> list[CompletionItem[str]]:
    """
    Hosts, and behind the first of them scripts too.
    """
    agents = _agents(context)
    hosts = _items(word, "host", _hosts(agents))
    named = context.params.get(str(parameter.name))
    if not named:
        return hosts
    scripts = _scripts([each for each in agents if each.hostname in named] or agents)
    return [*hosts, *_items(word, "script", scripts)]


def complete_run(
    context: click.Context, parameter: click.Parameter, word: str
) -> list[CompletionItem[str]]:
    """
    A run of the last day, the newest first.
    """
    if context.params.get(str(parameter.name)):
        return []
    return _items(word, "run", _runs(_line(context)))


def _runs(line: CommandLine) -> Sequence[str]:
    """
    The runs that are on record here, where that can be read; and those of which
    somebody has noted how much they have seen.
    """
    from ctrlexec.dispatcher.seen import notes_directory

    notes = notes_directory(line.world.environ)
    found: dict[str, float] = {}
    with suppress(CtrlExecError, OSError):
        found.update(_records(line.settings.runs_dir))
    if notes is not None:
        with suppress(OSError):
            found.update(_records(notes))
    return sorted(found, key=found.__getitem__, reverse=True)[:MOST_RUNS]


def _records(directory: Path) -> Iterator[tuple[str, float]]:
    for path in directory.glob("*.json"):
        with suppress(InvalidValue, OSError):
            yield request_id(path.stem), path.stat().st_mtime


def _line(context: click.Context) -> CommandLine:
    line = context.find_object(CommandLine)
    assert line is not None
    return line


def _agents(context: click.Context) -> Sequence[AgentRecord]:
    try:
        agents, _ = _line(context).backend.list_agents({})
    except (CtrlExecError, OSError):
        return []
    return agents


def _hosts(agents: Iterable[AgentRecord]) -> Sequence[str]:
    from ctrlexec.dispatcher.selection import natural

    return sorted((each.hostname for each in agents), key=natural)


def _scripts(agents: Iterable[AgentRecord]) -> Sequence[str]:
    return sorted(
        {name for each in agents for name in each.scripts if _is_script(name)}
    )


def _is_script(text: str) -> bool:
    # An agent says what its scripts are called.
    try:
        script_name(text)
    except InvalidValue:
        return False
    return True


def _items(word: str, kind: str, texts: Iterable[str]) -> list[CompletionItem[str]]:
    from click.shell_completion import CompletionItem

    return [CompletionItem(text, help=kind) for text in texts if text.startswith(word)]
