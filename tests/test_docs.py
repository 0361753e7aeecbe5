# SPDX-License-Identifier: AGPL-3.0-only
"""
The documentation of agent and dispatcher says what the code does: no mode,
option, key, file or log line is missing, and none is there that is no more.
"""

from __future__ import annotations

import ast
import re
import syslog
from pathlib import Path

import attrs
import click
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec import events
from ctrlexec.agent.cli import _MODE, CONFIGURATION, _parser
from ctrlexec.agent.settings import AgentSettings
from ctrlexec.dispatcher import cli, exit_codes
from ctrlexec.dispatcher.grammar import Mode
from ctrlexec.dispatcher.settings import DispatcherSettings
from tests.structure import ROOT

LEVELS = {syslog.LOG_INFO: "info", syslog.LOG_WARNING: "warning", syslog.LOG_ERR: "err"}


def text(name: str) -> str:
    """
    A page, as it is.
    """
    return (ROOT / "docs" / name).read_text("utf-8")


def part(name: str, heading: str) -> str:
    """
    What a page says under a heading.
    """
    _, found, rest = text(name).partition(f"\n## {heading}\n")
    assert found, f"{name} has no {heading!r}"
    return rest.partition("\n## ")[0]


def rows(section: str) -> list[list[str]]:
    """
    The rows of the tables in a section, without their heads.
    """
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in section.splitlines()
        if line.startswith("| `")
    ]


def code_in(words: str) -> set[str]:
    """
    What is set as code.
    """
    return set(re.findall(r"`([^`]+)`", words))


def keys() -> set[str]:
    """
    What C{agent.conf} may hold.
    """
    return {field.name for field in attrs.fields(AgentSettings)} - {"directory"}


def events_named_in(*paths: Path) -> set[type[events.Event]]:
    """
    The events that some modules can log.
    """
    names: set[str] = set()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            match node:
                case ast.ImportFrom(module="ctrlexec.events"):
                    names |= {alias.name for alias in node.names}
                case ast.Attribute(value=ast.Name("events"), attr=name):
                    names.add(name)
    found = (getattr(events, name, None) for name in names)
    return {
        each
        for each in found
        if isinstance(each, type)
        and issubclass(each, events.Event)
        and hasattr(each, "action")
    }


def described(event: type[events.Event]) -> tuple[str, str, str]:
    """
    How the page describes an event.
    """
    fields = sorted(
        field.name.rstrip("_").upper() + ("?" if field.default is None else "")
        for field in attrs.fields(event)
    )
    spelled = f"`{' '.join(fields)}`" if fields else ""
    return f"`{event.action}`", LEVELS[event.level], spelled


class AgentTests(SynchronousTestCase):
    """
    C{docs/agent.md}
    """

    def test_modes(self) -> None:
        """
        Each mode has a row, and each option.
        """
        section = part("agent.md", "Modes")
        cells = {row[0] for row in rows(section)}
        modes = {cell for cell in cells if not cell.startswith("`--")}
        self.assertEqual(modes, {f"`{mode}`" for mode in _MODE})
        documented = set(re.findall(r"--[a-z][a-z-]+", section))
        options = {
            option
            for action in _parser()._actions
            for option in action.option_strings
            if option.startswith("--")
        }
        self.assertEqual(documented, options)
        self.assertIn(f"Status {CONFIGURATION}", section.replace("\n", " "))

    def test_keys(self) -> None:
        """
        Each key is named, and nothing else is.
        """
        *_, listed = part("agent.md", "Settings").partition("In `agent.conf`:")
        self.assertEqual(code_in(listed), keys())

    def test_settings(self) -> None:
        """
        The table of settings has each key, and no other.
        """
        _, _, table = part("settings.md", "agent.conf").partition("\n| key |")
        named = {
            key.strip("[]")
            for row in rows(table.partition("\n\n")[0])
            for key in code_in(row[0])
        }
        self.assertEqual(named, keys())

    def test_files(self) -> None:
        """
        Each file that a setting names by default has a row.
        """
        directory = Path("/etc/ctrl-exec-agent")
        settings = AgentSettings(directory=directory, name="agent-one")
        files = {cell for row in rows(part("agent.md", "Files")) for cell in row[:1]}
        for field in attrs.fields(AgentSettings):
            path = getattr(settings, field.name)
            if isinstance(path, Path) and field.name not in ("directory", "state_dir"):
                self.assertIn(f"`{path}`", files, field.name)

    def test_lines(self) -> None:
        """
        Each line that the agent can log has a row, with its level and fields.
        """
        room = (ROOT / "ctrlexec" / "agent").glob("*.py")
        names = ("hooks.py", "rates.py", "system_log.py")
        shared = (ROOT / "ctrlexec" / name for name in names)
        logged = events_named_in(*room, *shared)
        table = [tuple(row[:3]) for row in rows(part("agent.md", "Log lines"))]
        self.assertEqual(sorted(table), sorted(map(described, logged)))


def options_of(command: click.Command) -> set[str]:
    """
    The options that a mode takes and its help shows.
    """
    return {
        name
        for each in command.params
        if isinstance(each, click.Option) and not each.hidden
        for name in (*each.opts, *each.secondary_opts)
    }


class DispatcherTests(SynchronousTestCase):
    """
    C{docs/dispatcher.md}
    """

    def setUp(self) -> None:
        self.modes = cli.ctrl_exec.commands
        self.shared = options_of(cli.ctrl_exec) | {"--help", "-h"}

    def tables(self) -> list[list[list[str]]]:
        """
        The rows of the tables on modes, options, and exit statuses.
        """
        section = part("dispatcher.md", "Modes")
        return [
            [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table]
            for _, _, *table in (
                block.splitlines()
                for block in section.split("\n\n")
                if block.startswith("| ")
            )
        ]

    def test_modes(self) -> None:
        """
        Each mode has a row, in the order in which its help has them.
        """
        documented = [
            re.split("[` ]", row[0].strip("` "))[0] for row in self.tables()[0]
        ]
        self.assertEqual(documented, [*self.modes])

    def test_options(self) -> None:
        """
        Each option has a row, and it says which modes take it.
        """
        documented: dict[str, set[str]] = {}
        for named, modes, _ in self.tables()[1]:
            for option in re.findall(r"(?<![a-z-])-{1,2}[a-z][a-z-]*", named):
                everywhere = modes.startswith("all") or option in self.shared
                documented[option] = set() if everywhere else code_in(modes)
        taken: dict[str, set[str]] = {option: set() for option in self.shared}
        for name, mode in self.modes.items():
            for option in options_of(mode):
                taken.setdefault(option, set()).add(name)
        self.assertEqual(documented, taken)

    def test_socket(self) -> None:
        """
        The modes that go through the API's socket are named where the option
        is, and where the reason is.
        """
        (row,) = [row for row in self.tables()[1] if row[0] == "`--socket PATH`"]
        section = part("dispatcher.md", "The fast way in")
        first = code_in(section.partition(" and completion go through")[0])
        through = {
            name
            for name, mode in self.modes.items()
            if isinstance(mode, Mode) and mode.through_socket
        }
        self.assertEqual(code_in(row[1]), through)
        self.assertEqual(first, through)

    def test_exitStatus(self) -> None:
        """
        Each exit status has a row.
        """
        documented = [int(row[0]) for row in self.tables()[2]]
        self.assertEqual(
            documented,
            [
                *range(exit_codes.CONFIGURATION + 1),
                exit_codes.TIMED_OUT,
                exit_codes.INTERRUPTED,
            ],
        )

    def test_settings(self) -> None:
        """
        The table of settings has each key that is read, and no other.
        """
        _, _, table = part("settings.md", "ctrl-exec.conf").partition("\n| key |")
        named = {
            key for row in rows(table.partition("\n\n")[0]) for key in code_in(row[0])
        }
        fields = attrs.fields(DispatcherSettings)
        aliases = {"timeout"}
        self.assertEqual(
            named, {field.name for field in fields} - {"directory"} | aliases
        )

    def test_files(self) -> None:
        """
        Each file that the settings lead to has a row.
        """
        settings = DispatcherSettings(directory=Path("/etc/ctrl-exec"))
        listed = {
            cell for row in rows(part("dispatcher.md", "Files")) for cell in row[:1]
        }
        for file in (
            settings.key,
            settings.cert,
            settings.ca,
            settings.ca_key,
            settings.ca_serial,
            settings.registry_dir / "HOST.json",
            f"{settings.pairing_dir}/",
            settings.tokens_dir / "ID.json",
            settings.locks_dir / "HOST--SCRIPT.lock",
            settings.runs_dir / "REQID.json",
        ):
            self.assertIn(f"`{file}`", listed)

    def test_lines(self) -> None:
        """
        Each line that the dispatcher can log has a row, with its level and
        fields.
        """
        room = (ROOT / "ctrlexec" / "dispatcher").rglob("*.py")
        names = ("hooks.py", "rates.py", "system_log.py")
        shared = (ROOT / "ctrlexec" / name for name in names)
        logged = events_named_in(*room, *shared)
        table = [tuple(row[:3]) for row in rows(part("dispatcher.md", "Log lines"))]
        self.assertEqual(sorted(table), sorted(map(described, logged)))
