# SPDX-License-Identifier: AGPL-3.0-only
"""
C{docs/runs.md} says what the code does: limits, states, and every message.
"""

from __future__ import annotations

import json
import re

from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.agent.allowlist import ANNOTATIONS, parse_allowlist
from ctrlexec.dispatcher.exit_codes import rows_status
from ctrlexec.dispatcher.results import Outcome, RunRow
from ctrlexec.protocol import codec_runs
from ctrlexec.protocol.codec import encode_run_request
from ctrlexec.protocol.messages import RunRequest
from ctrlexec.protocol.run_messages import (
    STATES,
    CancelDone,
    LiveRun,
    LiveRunsAnswer,
    Output,
    Signalled,
    StateChanged,
    StreamEnded,
)
from tests.test_docs import code_in, part, rows


class RunsTests(SynchronousTestCase):
    """
    C{docs/runs.md}
    """

    def test_annotations(self) -> None:
        """
        Each annotation has a row, is named beside the form of the file, and
        nothing else is.
        """
        known = {f"{key}=" for key in ANNOTATIONS}
        limits = part("runs.md", "Limits")
        self.assertEqual({row[0].strip("`") for row in rows(limits)}, known)
        form, _, _ = part("settings.md", "scripts.conf").partition("\n### ")
        self.assertEqual({each for each in code_in(form) if each[-1] == "="}, known)

    def test_examples(self) -> None:
        """
        The lines that the page shows are good ones.
        """
        for page, heading in (("runs.md", "Limits"), ("settings.md", "scripts.conf")):
            found = re.findall("^    ([a-z-]+ = /.*)$", part(page, heading), re.M)
            allowlist, warnings = parse_allowlist("\n".join(found), page)
            self.assertEqual(warnings, ())
            self.assertGreater(len(allowlist.scripts), 1)

    def test_states(self) -> None:
        """
        Each state of a run and each word for what became of it has a row.
        """
        tables = part("runs.md", "The life of a run")
        words = {word for row in rows(tables) for word in code_in(row[0])}
        outcomes = {outcome.value for outcome in Outcome}
        self.assertEqual(words, {*STATES, *outcomes})

    def test_exitStatuses(self) -> None:
        """
        What each word for what became of it makes of the exit status.
        """
        _, _, table = part("runs.md", "The life of a run").partition("| word |")
        documented = {row[0].strip("`"): row[2] for row in rows(table)}
        statuses = {
            outcome.value: rows_status(
                [RunRow(host="h", script="s", reqid="r", outcome=outcome)]
            )
            for outcome in Outcome
        }
        for word, status in statuses.items():
            self.assertEqual(documented[word].split(";")[0], str(status), word)

    def test_request(self) -> None:
        """
        The fields of a request are those that are sent.
        """
        request = RunRequest("s", ("a",), "r", "u", "t", True, True, 1.5, "cancel")
        shown = part("runs.md", "Between dispatcher and agent").partition(
            "### POST /run"
        )
        named = re.findall('"([a-z_]+)"', shown[2].partition("}")[0])
        self.assertEqual(set(named), set(json.loads(encode_run_request(request))))

    def test_stream(self) -> None:
        """
        The lines of the stream that is shown are read as what they are.
        """
        shown = part("runs.md", "Between dispatcher and agent")
        lines = re.findall('^    ({"t".*)$', shown, re.M)
        self.assertEqual(
            [type(codec_runs.decode_event(line.encode())) for line in lines],
            [StateChanged, Output, Output, type(None), StreamEnded],
        )
        for line in lines[:3] + lines[4:]:
            event = codec_runs.decode_event(line.encode())
            assert event is not None
            self.assertEqual(
                json.loads(codec_runs.encode_event(event)), json.loads(line)
            )

    def test_answers(self) -> None:
        """
        The fields of the other answers are those that are sent.
        """
        live = LiveRun("r", "s", "running", "t", 1.0)
        shown = part("runs.md", "Between dispatcher and agent")
        for request, answer in (
            (
                "POST /cancel",
                codec_runs.encode_cancel_done(
                    CancelDone("r", "done", (Signalled(1, "sleep", "TERM"),))
                ),
            ),
            ("GET /runs", codec_runs.encode_live_runs(LiveRunsAnswer((live,)))),
        ):
            (row,) = [row for row in rows(shown) if request in row[0]]
            named = re.findall('"([a-z_]+)"', row[1])
            self.assertEqual(set(named) - {"ok"}, names_in(answer), request)


def names_in(body: bytes) -> set[str]:
    """
    The names of the fields of a message, at any depth.
    """
    return {name.decode() for name in re.findall(rb'"([a-z_]+)":', body)}
