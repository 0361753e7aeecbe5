# SPDX-License-Identifier: AGPL-3.0-only
"""
The documentation of the API says what the code does: no route, answer, limit,
option, setting, metric or log line is missing, and none is there that is no
more.
"""

from __future__ import annotations

import re

import attrs
from prometheus_client.metrics import MetricWrapperBase

from ctrlexec.api import (
    channel,
    following,
    http,
    marks,
    metrics,
    problems,
    service,
)
from ctrlexec.api.definitions import OPERATIONS
from ctrlexec.api.metrics import Metrics
from ctrlexec.api.schemas import COMPONENTS, MOST_SECONDS
from ctrlexec.api.work import of_one_caller, streams_beside
from ctrlexec.dispatcher.results import Outcome
from ctrlexec.dispatcher.settings import DispatcherSettings
from ctrlexec.errors import (
    Conflict,
    Locked,
    NotAuthorised,
    NotFound,
    Overload,
    ShareUsed,
    UnknownAgents,
)
from ctrlexec.protocol import limits
from ctrlexec.protocol.http import BadMessage
from tests.apis import ApiCase
from tests.structure import ROOT
from tests.test_docs import code_in, described, events_named_in, part, rows, text

PAGE = "api.md"
#: One of each kind of answer that is no success.
PROBLEMS = (
    problems.bad_request("why"),
    problems.problem_of(NotAuthorised("reason", 1)),
    problems.problem_of(UnknownAgents(["a", "b"])),
    problems.problem_of(NotFound("why")),
    problems.wrong_method("GET"),
    problems.bad_message(BadMessage(408, "why")),
    problems.problem_of(Locked(["host:script"])),
    problems.bad_message(BadMessage(413, "request too large")),
    problems.problem_of(Conflict("why")),
    problems.problem_of(ShareUsed(16)),
    problems.bad_message(BadMessage(431, "too many headers")),
    problems.internal_error(),
    problems.problem_of(problems.Unreadable("why")),
    problems.problem_of(Overload(1)),
)


def number(value: float) -> str:
    """
    A number as the page spells it.
    """
    return f"{value:,.0f}"


class ApiDocTests(ApiCase):
    """
    C{docs/api.md}
    """

    def table(self, heading: str) -> list[list[str]]:
        """
        The rows under a heading.
        """
        return rows(part(PAGE, heading))

    def test_routes(self) -> None:
        """
        Each route has a row, with what its body may have in it.
        """
        found = {
            (method, path): set(code_in(takes))
            for method, path, takes, *_ in self.table("Routes")
        }
        caller = {"username", "token", "exclude"}
        expected = {
            (f"`{each.method}`", f"`{each.path}`"): {
                *(COMPONENTS[each.body]["properties"] if each.body else ()),
                *each.headers,
            }
            - caller
            for each in OPERATIONS
        }
        self.assertEqual(found, expected)
        for member in caller:
            self.assertIn(member, part(PAGE, "Routes"))

    def test_runs(self) -> None:
        """
        Each member of an order is explained, each event that there is, and each
        word for what becomes of a run; with the numbers that hold.
        """
        first = {name.strip("`, ") for name, *_ in self.table("Runs")}
        properties = {*COMPONENTS["RunRequest"]["properties"]}
        told = properties - {*COMPONENTS["PingRequest"]["properties"]}
        events = {"stdout`, `stderr", "state", "result", "done"}
        self.assertEqual(first, told - {"script", "args"} | events)
        section = part(PAGE, "Runs")
        self.assertIn(number(MOST_SECONDS), section)
        self.assertIn(f"Every {number(following.HEARTBEAT_SECONDS)} s", section)
        words = code_in(part(PAGE, "Routes") + section)
        self.assertLessEqual({each.value for each in Outcome}, words)

    def test_actions(self) -> None:
        """
        Each route that asks the hook says for what.
        """
        gated = {f"`{each.path}`" for each in OPERATIONS if each.gated}
        for _, path, _, _, actions in self.table("Routes"):
            self.assertEqual("api" in code_in(actions), path in gated, path)

    def test_answers(self) -> None:
        """
        Each other answer has a row that begins as the answer does.
        """
        lines = [
            [cell.strip() for cell in line.strip("|").split("|")]
            for line in part(PAGE, "What else it answers").splitlines()
            if re.match(r"\| [0-9]", line)
        ]
        table = [(int(status), shown) for status, shown, _ in lines]
        self.assertEqual(len(table), len(PROBLEMS))
        for (status, shown), problem in zip(table, PROBLEMS, strict=True):
            self.assertEqual(status, problem.status)
            for field, value in problem.fields.items():
                self.assertIn(f'"{field}"', shown)
                if field == "error" and value != "reason":
                    self.assertIn(f'"error":"{value}"', shown)

    def test_limits(self) -> None:
        """
        The numbers are those that hold.
        """
        table = dict(self._limits())
        settings = DispatcherSettings(directory=ROOT)
        for what, value in (
            ("header lines", limits.HEADER_LINES),
            ("the header, its first line included", limits.HEADER_BYTES),
            ("the body, declared or chunked", limits.REQUEST_BODY_BYTES),
            ("until the header is there", limits.HEADER_SECONDS),
            ("until the body is there", limits.BODY_SECONDS),
            ("a connection without a request", limits.IDLE_SECONDS),
            ("a client that does not read its answer", limits.WRITE_SECONDS),
            (
                "bodies that are not complete yet, of all clients of a socket",
                channel.BODIES_BYTES,
            ),
            ("one that follows a run and does not read", following.READ_SECONDS),
            ("the id of an event", marks.MOST_CHARACTERS),
            ("connections of one socket", http.CONNECTIONS),
            (
                "runs that are followed",
                streams_beside(settings.api_max_children),
            ),
            (
                "of these for one caller",
                of_one_caller(streams_beside(settings.api_max_children)),
            ),
            ("requests being worked on", settings.api_max_children),
            ("hosts of a request", settings.max_hosts),
        ):
            self.assertIn(number(value), re.findall("[0-9,]+", table.pop(what)), what)
        self.assertEqual(table, {})

    def _limits(self) -> list[list[str]]:
        return [
            [cell.strip() for cell in line.strip("|").split("|")]
            for line in part(PAGE, "Limits").splitlines()
            if line.startswith("| ") and "at most" not in line
        ]

    def test_options(self) -> None:
        """
        Each option has a row, and each exit status.
        """
        section = part(PAGE, "Starting it")
        taken = {f"--{row[0]}" for row in service.Options.optParameters}
        documented = set(re.findall(r"--[a-z]+", section))
        self.assertEqual(documented, {*taken, "--version", "--help"})
        statuses = re.findall(r"(?m)^\| ([0-9]+) \|", section)
        self.assertEqual(statuses, ["0", "1", str(service.CONFIGURATION)])

    def test_settings(self) -> None:
        """
        Each key of the API is named.
        """
        keys = {
            field.name
            for field in attrs.fields(DispatcherSettings)
            if field.name.startswith("api_")
        }
        named = code_in(part(PAGE, "Starting it"))
        self.assertEqual({key for key in named if key.startswith("api_")}, keys)

    def test_metrics(self) -> None:
        """
        Each metric has a row with its labels; the bounds are told.
        """
        ours = {name: {*labels} for name, labels in _counters(Metrics())}
        exposed = self.ask("GET", "/metrics").body.decode()
        gauges = set(re.findall(r"(?m)^# TYPE (\S+) gauge$", exposed))
        gauges = {name for name in gauges if not name.endswith("_created")}
        table = {
            name.strip("`"): code_in(labels)
            for name, labels, _ in self.table("Probes and metrics")
        }
        self.assertEqual(set(table), {*ours, *gauges})
        for name, labels in ours.items():
            self.assertEqual(table[name], labels)
        section = part(PAGE, "Probes and metrics")
        self.assertIn(number(metrics.CERTIFICATES), section)
        self.assertIn(number(metrics.SCRIPTS), section)

    def test_lines(self) -> None:
        """
        Each line that only the API can log has a row, with its level and fields.
        """
        room = (ROOT / "ctrlexec" / "api").glob("*.py")
        # That one counts what others log.
        logged = events_named_in(*(path for path in room if path.stem != "metrics"))
        table = [tuple(row[:3]) for row in self.table("Log lines")]
        self.assertEqual(sorted(table), sorted(map(described, logged)))

    def test_links(self) -> None:
        """
        What the page says of the unit is there.
        """
        for path in re.findall(r"`(init/[^`]+)`", text(PAGE)):
            self.assertTrue((ROOT / path).is_file(), path)


def _counters(ours: Metrics) -> list[tuple[str, tuple[str, ...]]]:
    """
    What is counted, and by what.
    """
    return [
        (f"{each._name}{'_total' if each._type == 'counter' else ''}", each._labelnames)
        for each in vars(ours).values()
        if isinstance(each, MetricWrapperBase)
    ]
