# SPDX-License-Identifier: AGPL-3.0-only
"""
The documentation of the agent says what the code does: no mode, option, key,
file or log line is missing, and none is there that is no more.
"""

from __future__ import annotations

import ast
import re
import syslog
from pathlib import Path

import attrs
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec import events
from ctrlexec.agent.cli import _MODE, CONFIGURATION, _parser
from ctrlexec.agent.settings import AgentSettings
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
    return f"`{event.action}`", LEVELS[event.level], f"`{' '.join(fields)}`"


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
        logged = events_named_in(*room, ROOT / "ctrlexec" / "hooks.py")
        table = [tuple(row[:3]) for row in rows(part("agent.md", "Log lines"))]
        self.assertEqual(sorted(table), sorted(map(described, logged)))
