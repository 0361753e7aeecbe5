# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.agent.resource}: what an auth hook has a say in.
"""

from __future__ import annotations

from typing import Any

import attrs
from twisted.internet.defer import Deferred

from ctrlexec.agent.allowlist import Allowlist
from ctrlexec.agent.trust import TrustedMap
from ctrlexec.hooks import Allowed, Denied, HookContext, Verdict
from tests.agents import HQ, PEER, SIBLING, STRANGER, ResourceTestCase
from tests.authority import DAY

CALLER: dict[str, Any] = {
    "source_ip": PEER,
    "timestamp": "2026-03-05T18:38:09Z",
    "dispatcher": "hq",
    "dispatcher_serial": "d1",
}
RUN = {
    "script": "hello",
    "args": ["a", "b c"],
    "reqid": "r-1",
    "username": "ann",
    "token": "s3cret",
}
LATE = "not authorised: no longer trusted"


def refused(error: str) -> tuple[int, Any]:
    """
    The answer to L{RUN} that says so.
    """
    return 200, {"script": "hello", "exit": -1, "error": error, "reqid": "r-1"}


class AskedTests(ResourceTestCase):
    """
    Which requests ask the hook, and what.
    """

    def test_run(self) -> None:
        """
        A run is asked about with all that the caller has said.
        """
        self.ask("POST", "/run", RUN)
        expected = HookContext(
            action="run",
            script="hello",
            args=("a", "b c"),
            username="ann",
            token="s3cret",
            reqid="r-1",
            **CALLER,
        )
        self.assertEqual(self.authoriser.asked, [expected])
        [run] = self.runner.started
        run.exits(0)

    def test_capabilities(self) -> None:
        """
        What the agent offers is asked about with the caller's identity alone.
        """
        self.assertEqual(self.answer("GET", "/capabilities")[0], 200)
        expected = HookContext(action="discovery", **CALLER)
        self.assertEqual(self.authoriser.asked, [expected])

    def test_rotate(self) -> None:
        """
        A change of trust is asked about with what is to change.
        """
        self.authoriser.verdict = Denied("bad credentials", 2)
        body = {"serial": "0A", "action": "remove", "token": "s3cret"}
        self.assertEqual(
            self.answer("POST", "/rotate-serial", body),
            (403, {"error": "not authorised: bad credentials"}),
        )
        expected = HookContext(
            action="rotate", args=("remove", "0A"), token="s3cret", **CALLER
        )
        self.assertEqual(self.authoriser.asked, [expected])
        self.assertEqual(self.agent.policy.trusted, TrustedMap({"d1": "hq"}))

    def test_notAsked(self) -> None:
        """
        A ping is not asked about, nor is what is refused without a hook: it
        shall see no words of whoever is not trusted.
        """
        self.ask("POST", "/ping")
        self.ask("POST", "/run", {"script": "bye"})
        self.ask("POST", "/run", {"script": "hello", "args": 1})
        for certificate in (STRANGER, SIBLING, None):
            self.ask("POST", "/run", RUN, certificate=certificate)
            self.ask("GET", "/capabilities", certificate=certificate)
            self.ask("POST", "/rotate-serial", {"serial": "a"}, certificate=certificate)
        self.assertEqual(self.authoriser.asked, [])


class DeniedTests(ResourceTestCase):
    """
    What the hook denies.
    """

    def setUp(self) -> None:
        super().setUp()
        self.authoriser.verdict = Denied("insufficient privilege", 3)

    def test_run(self) -> None:
        """
        A script does not start; the caller hears the hook's reason, and the
        log has it.
        """
        reason = "not authorised: insufficient privilege"
        self.assertEqual(self.answer("POST", "/run", RUN), refused(reason))
        line = (
            f"ACTION=deny DISPATCHER=hq PEER={PEER} "
            f'REASON="{reason}" REQID=r-1 SCRIPT=hello'
        )
        self.assertEqual(self.log.taken(), [line])
        self.assertEqual((self.runner.started, len(self.agent.runs.table)), ([], 0))

    def test_capabilities(self) -> None:
        """
        What the agent offers stays its own, and so does the reason.
        """
        answer = self.answer("GET", "/capabilities")
        self.assertEqual(answer, (403, {"error": "not authorised"}))
        line = (
            f"ACTION=capabilities-deny DISPATCHER=hq PEER={PEER} PEER_SERIAL=d1 "
            'REASON="insufficient privilege"'
        )
        self.assertEqual(self.log.taken(), [line])

    def test_ping(self) -> None:
        """
        A ping is answered all the same.
        """
        self.assertEqual(self.answer("POST", "/ping")[0], 200)


class MeanwhileTests(ResourceTestCase):
    """
    What happens while a hook thinks.
    """

    def setUp(self) -> None:
        super().setUp()
        self.thinking: Deferred[Verdict] = Deferred()
        self.authoriser.verdict = self.thinking

    def assertRefused(self, error: str, **changes: Any) -> None:
        """
        Change the policy while the hook thinks: its yes comes too late.
        """
        _, answers = self.ask("POST", "/run", RUN)
        self.assertEqual(answers.given, [])
        self.evolve(**changes)
        self.thinking.callback(Allowed())
        self.assertEqual(answers.given, [refused(error)])
        self.assertEqual(self.runner.started, [])

    def test_others(self) -> None:
        """
        Other requests do not wait.
        """
        _, answers = self.ask("POST", "/run", RUN)
        self.assertEqual(self.answer("POST", "/ping")[0], 200)
        self.authoriser.verdict = Allowed()
        self.assertEqual(self.answer("GET", "/capabilities")[0], 200)
        self.assertEqual(answers.given, [])
        self.thinking.callback(Denied())

    def test_counted(self) -> None:
        """
        A run that the hook thinks about is one of those that may go on at the
        same time: no caller can have hooks without end.
        """
        self.evolve(settings=attrs.evolve(self.agent.policy.settings, max_runs=1))
        self.ask("POST", "/run", RUN)
        busy = self.answer("POST", "/run", {"script": "hello"})
        self.assertEqual(busy[1]["error"], "busy: 1 runs are going on already")
        self.assertEqual(len(self.authoriser.asked), 1)
        self.thinking.callback(Denied())
        self.assertEqual(len(self.agent.runs.table), 0)

    def test_notPermitted(self) -> None:
        """
        A script that has been taken from the allowlist does not start.
        """
        self.assertRefused("script not permitted", allowlist=Allowlist())

    def test_notTrusted(self) -> None:
        """
        A dispatcher that is no longer trusted has nothing done.
        """
        self.assertRefused(LATE, trusted=TrustedMap({"d2": "lab"}))

    def test_revoked(self) -> None:
        """
        Nor has one whose certificate has been revoked.
        """
        self.assertRefused(LATE, revoked=frozenset({"d1"}))

    def test_expired(self) -> None:
        """
        Nor has one whose certificate has expired.
        """
        self.time = HQ.not_after
        _, answers = self.ask("POST", "/run", RUN)
        self.time += DAY
        self.thinking.callback(Allowed())
        self.assertEqual(answers.given, [refused(LATE)])

    def test_capabilities(self) -> None:
        """
        The same holds for what the agent offers.
        """
        _, answers = self.ask("GET", "/capabilities")
        self.evolve(trusted=TrustedMap({"d1": "lab"}))
        self.thinking.callback(Allowed())
        self.assertEqual(answers.given, [(403, {"error": "not authorised"})])
