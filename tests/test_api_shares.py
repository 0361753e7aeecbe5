# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of how many runs the API follows for one caller.
"""

from __future__ import annotations

from tests.apis import Reply, asking
from tests.scripted_dispatchers import REQID, ScriptedCase, Stream

PATH = f"/runs/{REQID}/events"
MOST = 4


class ShareTests(ScriptedCase):
    """
    There is no hook that has looked at what callers say of themselves.
    """

    def setUp(self) -> None:
        super().setUp()
        self.recorded("web-1")
        self.streams.most = MOST

    def refused(self, *lines: str, body: object = None) -> Reply:
        """
        Somebody who has enough.
        """
        reply = self.ask("GET", PATH, body, *lines)
        self.assertEqual((reply.status, reply.fields["retry-after"]), (429, "1"))
        return reply

    def test_share(self) -> None:
        """
        One caller has half of them at most, whatever they call themselves, and is
        told so; when one of them is over there may be another.
        """
        streams = [self.follow() for _ in range(MOST // 2)]
        reply = self.refused("Authorization: Bearer made-up", body={"username": "x"})
        self.assertEqual(
            reply.body,
            b'{"ok":false,"error":"too many requests",'
            b'"detail":"you follow 2 runs already"}',
        )
        self.assertEqual(
            self.logged("api-overload"), ["ACTION=api-overload LIVE=2 PEER=192.0.2.9"]
        )
        streams[0].wire.leave()
        self.assertEqual(self.follow().head()[0], "HTTP/1.1 200 OK")

    def test_problem(self) -> None:
        """
        In the form that they ask for.
        """
        for _ in range(MOST // 2):
            self.follow()
        reply = self.refused("Accept: application/problem+json")
        self.assertIn(b'"status":429', reply.body)
        self.assertIn(b'"title":"Too Many Requests"', reply.body)


class HookedShareTests(ShareTests):
    """
    There is a hook, so a token is somebody.
    """

    settings = "auth_hook = hook\n"

    def setUp(self) -> None:
        super().setUp()
        hook = self.directory / "hook"
        hook.write_text("#!/bin/sh\n")
        hook.chmod(0o755)

    def follow(self, last: str | None = None, *lines: str) -> Stream:
        """
        A client that the hook lets in.
        """
        stream = super().follow(last, *lines)
        self.reactor.processes[-1].exits(0)
        return stream

    def refused(self, *lines: str, body: object = None) -> Reply:
        """
        The hook lets them in, too.
        """
        wire = self.wire().send(asking("GET", PATH, body, *lines))
        self.reactor.processes[-1].exits(0)
        reply = wire.reply()
        self.assertEqual((reply.status, reply.fields["retry-after"]), (429, "1"))
        return reply

    def test_share(self) -> None:
        """
        Two with a token each have a share each, wherever they come from.
        """
        who = [f"Authorization: Bearer {each}" for each in "ab"]
        for each in who * (MOST // 2):
            self.assertEqual(self.follow(None, each).head()[0], "HTTP/1.1 200 OK")
        self.streams.most = MOST + 1
        self.refused(who[0])
