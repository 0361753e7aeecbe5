# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.authorisation}.
"""

from __future__ import annotations

import attrs
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from ctrlexec.dispatcher.authorisation import Authorisation, Question
from ctrlexec.dispatcher.orders import Caller, Door
from ctrlexec.errors import NotAuthorised
from ctrlexec.hooks import Allowed, Denied, HookContext, Verdict
from ctrlexec.interfaces import IAuthoriser
from ctrlexec.values import Submitter, iso_time
from tests.authority import NOW
from tests.dispatching import Recorder

OPERATOR = Caller(username="alice", token="s3cret")
CLIENT = Caller(username="bob", token="t0ken", source_ip="192.0.2.9", door=Door.API)
RUN = Question(
    action="run",
    hosts=("web-1", "web-2"),
    script="backup",
    args=("--full",),
    reqid="0123456789abcdef",
)


@implementer(IAuthoriser)
@attrs.define
class Hook:
    """
    Says what a test wants it to.
    """

    says: Verdict
    asked: list[HookContext] = attrs.field(factory=list)

    async def ask(self, context: HookContext) -> Verdict:
        """
        See L{IAuthoriser}.
        """
        self.asked.append(context)
        return self.says


class AuthorisationTests(SynchronousTestCase):
    """
    Who may do what.
    """

    def require(
        self,
        caller: Caller,
        question: Question = RUN,
        hook: IAuthoriser | None = None,
        *,
        api_allows: bool = False,
    ) -> NotAuthorised | None:
        """
        @return: the error, or C{None} where the caller may do it.
        """
        authorisation = Authorisation(hook, api_allows, lambda: NOW, Recorder())
        working = Deferred.fromCoroutine(authorisation.require(caller, question))
        outcome: list[NotAuthorised | None] = []
        working.addCallbacks(
            outcome.append, lambda failure: outcome.append(failure.value)
        )
        return outcome[0]

    def test_commandLine(self) -> None:
        """
        Without a hook, whoever can start the command line may do everything.
        """
        self.assertIsNone(self.require(OPERATOR))

    def test_api(self) -> None:
        """
        Without a hook, the API denies, unless its settings say otherwise.
        """
        error = self.require(CLIENT)
        assert error is not None
        self.assertEqual((error.reason, error.code), ("no auth hook configured", 1))
        self.assertIsNone(self.require(CLIENT, api_allows=True))

    def test_hook(self) -> None:
        """
        A hook is asked with all that is known, whichever way somebody came.
        """
        for caller in (OPERATOR, CLIENT):
            hook = Hook(Allowed())
            self.assertIsNone(self.require(caller, RUN, hook))
            self.assertEqual(
                hook.asked,
                [
                    HookContext(
                        action="run",
                        source_ip=caller.source_ip,
                        timestamp=iso_time(NOW),
                        script="backup",
                        hosts=("web-1", "web-2"),
                        args=("--full",),
                        username=caller.username,
                        token=caller.token,
                        reqid="0123456789abcdef",
                    )
                ],
            )

    def test_denied(self) -> None:
        """
        What the hook says is what the caller is told; the command line is told
        what was asked, too.
        """
        hook = Hook(Denied("bad credentials", 2))
        error = self.require(CLIENT, RUN, hook, api_allows=True)
        assert error is not None
        self.assertEqual((error.reason, error.code), ("bad credentials", 2))
        self.assertIn("'run'", error.hint)

    def test_submitter(self) -> None:
        """
        Who asks for a status is asked about together with whose run it was.
        """
        hook = Hook(Allowed())
        submitter = Submitter("carol", "192.0.2.7")
        self.require(CLIENT, Question(action="status", submitter=submitter), hook)
        self.assertEqual(hook.asked[0].submitter, submitter)
