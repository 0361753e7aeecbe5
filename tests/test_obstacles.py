# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.agent.obstacles}.
"""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.agent.obstacles import odd_limits, why_no_interpreter
from ctrlexec.agent.runs import RunLimits
from ctrlexec.process import FIXED_PATH


class InterpreterTests(SynchronousTestCase):
    """
    L{why_no_interpreter}
    """

    def why(self, text: bytes) -> str | None:
        """
        What is said of a script.
        """
        path = Path(self.mktemp())
        path.write_bytes(text)
        return why_no_interpreter(path)

    def test_there(self) -> None:
        """
        Nothing is said of one whose interpreter is there, and of what has none.
        """
        for text in (
            b"#!/bin/sh\n",
            b"#! /bin/sh -e\nexit\n",
            b"#!/usr/bin/env sh",
            b"#!/usr/bin/env -S sh -e\n",
            b"#!/usr/bin/env A=b sh\n",
            b"#!\n",
            b"#!relative\n",
            b"echo\n",
            b"\x7fELF\xff",
            b"",
        ):
            self.assertIsNone(self.why(text), text)

    def test_missing(self) -> None:
        """
        One that is not there is named, with what nobody sees in it.
        """
        missing = "No such file or directory"
        for text, words in (
            (b"#!/nowhere/sh -e\n", f"'/nowhere/sh': {missing}"),
            (b"#!/bin/sh\r\n", f"'/bin/sh\\r': {missing}"),
            (b"#!/tmp\n", "'/tmp': Is a directory"),
            (b"#!/nowhere/\xff\n", f"'/nowhere/\\udcff': {missing}"),
            (
                b"#!/usr/bin/env no-such-program\n",
                f"'no-such-program' is not in {FIXED_PATH}",
            ),
        ):
            self.assertEqual(self.why(text), f"its interpreter {words}")

    def test_unreadable(self) -> None:
        """
        A script that can not be read may be a program.
        """
        self.assertIsNone(why_no_interpreter(Path(self.mktemp())))


class LimitsTests(SynchronousTestCase):
    """
    L{odd_limits}
    """

    def test_root(self) -> None:
        """
        The system counts no processes of root's.
        """
        limits = RunLimits(nproc=9)
        self.assertEqual([*odd_limits(limits, 0)], ["nproc= holds nothing for root"])
        self.assertEqual([*odd_limits(limits, 1000)], [])

    def test_memory(self) -> None:
        """
        Less than what a program takes to begin is no limit but an end.
        """
        for size, words in (
            (1024, ["as=1024 is too little for any program"]),
            (2**20, []),
            (None, []),
        ):
            limits = RunLimits(memory_bytes=size)
            self.assertEqual([*odd_limits(limits, 0)], words)
