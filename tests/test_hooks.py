# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.hooks}, on a reactor that starts nothing.
"""

from __future__ import annotations

import json

import attrs
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from ctrlexec.hooks import (
    VARIABLE_BYTES,
    Allowed,
    Denied,
    DenyAll,
    HookContext,
    NoHook,
    verdict,
    why_too_long,
)
from ctrlexec.interfaces import IAuthoriser
from ctrlexec.process import ProgramResult
from ctrlexec.values import Submitter
from tests.agents import Recorded

RUN = HookContext(
    action="run",
    script="hello",
    args=("a b", "ü", ""),
    username="ann",
    token="s3cret",
    source_ip="192.0.2.1",
    timestamp="2026-03-05T18:38:09Z",
    dispatcher="hq",
    dispatcher_serial="d1",
    reqid="r-1",
)


def ended(code: int, number: int | None = None) -> ProgramResult:
    """
    What becomes of a hook.
    """
    return ProgramResult(code, number)


class ContextTests(SynchronousTestCase):
    """
    L{HookContext}
    """

    def test_agent(self) -> None:
        """
        On an agent the JSON has the caller's identity, and no hosts.
        """
        self.assertEqual(
            list(json.loads(RUN.stdin()).items()),
            [
                ("action", "run"),
                ("script", "hello"),
                ("args", ["a b", "ü", ""]),
                ("username", "ann"),
                ("token", "s3cret"),
                ("source_ip", "192.0.2.1"),
                ("timestamp", "2026-03-05T18:38:09Z"),
                ("dispatcher", "hq"),
                ("dispatcher_serial", "d1"),
                ("reqid", "r-1"),
                ("submitter", None),
            ],
        )

    def test_dispatcher(self) -> None:
        """
        On a dispatcher the JSON has the hosts, even if there are none.
        """
        for hosts in ((), ("one", "two")):
            context = attrs.evolve(RUN, hosts=hosts)
            self.assertEqual(json.loads(context.stdin())["hosts"], list(hosts))

    def test_submitter(self) -> None:
        """
        Whoever asks about a run is judged beside whose it is.
        """
        context = attrs.evolve(RUN, submitter=Submitter("kim", "192.0.2.9"))
        self.assertEqual(
            json.loads(context.stdin())["submitter"],
            {"username": "kim", "source_ip": "192.0.2.9"},
        )
        variables = context.environment()
        self.assertEqual(variables["ENVEXEC_SUBMITTER"], "kim")
        self.assertEqual(variables["ENVEXEC_SUBMITTER_IP"], "192.0.2.9")

    def test_environment(self) -> None:
        """
        The environment says the same, and every variable is always there.
        """
        expected = {
            "ENVEXEC_ACTION": "run",
            "ENVEXEC_SCRIPT": "hello",
            "ENVEXEC_HOSTS": "one,two",
            "ENVEXEC_ARGS": "a b ü ",
            "ENVEXEC_ARGS_JSON": '["a b","\\u00fc",""]',
            "ENVEXEC_USERNAME": "ann",
            "ENVEXEC_TOKEN": "s3cret",
            "ENVEXEC_SOURCE_IP": "192.0.2.1",
            "ENVEXEC_TIMESTAMP": "2026-03-05T18:38:09Z",
            "ENVEXEC_DISPATCHER": "hq",
            "ENVEXEC_DISPATCHER_SERIAL": "d1",
            "ENVEXEC_REQID": "r-1",
            "ENVEXEC_SUBMITTER": "",
            "ENVEXEC_SUBMITTER_IP": "",
        }
        context = attrs.evolve(RUN, hosts=("one", "two"))
        self.assertEqual(context.environment(), expected)
        bare = HookContext(action="discovery", source_ip="", timestamp="")
        self.assertEqual(list(bare.environment()), list(expected))

    def test_token(self) -> None:
        """
        A context can be shown without its token.
        """
        self.assertNotIn("s3cret", repr(RUN))


class VerdictTests(SynchronousTestCase):
    """
    L{verdict}
    """

    def test_statuses(self) -> None:
        """
        One exit status allows; the others deny, some in words of their own.
        """
        for code, expected in (
            (0, Allowed()),
            (1, Denied("denied", 1)),
            (2, Denied("bad credentials", 2)),
            (3, Denied("insufficient privilege", 3)),
            (4, Denied("hook exited 4", 4)),
            (127, Denied("hook exited 127", 127)),
        ):
            self.assertEqual(verdict(ended(code)), expected)

    @given(st.integers(0, 255), st.none() | st.integers(0, 70))
    def test_onlyOneAllows(self, code: int, number: int | None) -> None:
        """
        Nothing but exit status 0 without any signal allows.
        """
        allows = verdict(ended(code, number)) == Allowed()
        self.assertEqual(allows, code == 0 and number is None)

    def test_signals(self) -> None:
        """
        A hook that a signal ends has denied, whatever its status says.
        """
        for number, name in ((9, "SIGKILL"), (15, "SIGTERM"), (63, "signal 63")):
            denied = Denied(f"hook killed by {name}", 1)
            self.assertEqual(verdict(ended(0, number)), denied)


class TooLongTests(SynchronousTestCase):
    """
    L{why_too_long}
    """

    def test_bound(self) -> None:
        """
        Name, value and all count, in bytes; what no environment can hold at
        all is for others to find.
        """
        fits = VARIABLE_BYTES - len("A=") - 1
        for value in ("", "x" * fits, "ü" * (fits // 2), "\udc80"):
            self.assertIsNone(why_too_long({"A": value, "B": ""}))
        for value in ("x" * (fits + 1), "ü" * (fits // 2 + 1)):
            why = why_too_long({"B": "", "A": value})
            self.assertIn(
                f"A has {VARIABLE_BYTES + 1} bytes of at most 131072", f"{why}"
            )


class NoHookTests(SynchronousTestCase):
    """
    L{NoHook}
    """

    def test_allows(self) -> None:
        """
        Where there is no hook, trust is enough.
        """
        verifyObject(IAuthoriser, NoHook())
        asking = Deferred.fromCoroutine(NoHook().ask(RUN))
        self.assertEqual(self.successResultOf(asking), Allowed())

    def test_denies(self) -> None:
        """
        Or it is not, and that is logged as any refusal is; the line of a
        dispatcher names none.
        """
        log = Recorded()
        authoriser = DenyAll(log)
        verifyObject(IAuthoriser, authoriser)
        asked = attrs.evolve(RUN, action="api", dispatcher="")
        asking = Deferred.fromCoroutine(authoriser.ask(asked))
        denied = Denied("no auth hook configured", 1)
        self.assertEqual(self.successResultOf(asking), denied)
        line = (
            "ACTION=auth AUTHACTION=api IP=192.0.2.1 "
            'REASON="no auth hook configured" RESULT=deny USER=ann'
        )
        self.assertEqual(log.lines, [line])
