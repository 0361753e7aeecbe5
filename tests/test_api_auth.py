# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of who may use the API: PROTOCOL.md section 6, NEWER-LINE.md section 13.
"""

from __future__ import annotations

import json
from typing import Any

from ctrlexec.api.definitions import OPERATIONS
from tests.apis import ApiCase, Reply, Wire, asking
from tests.fakes import FakeProcess

RUN = {"hosts": ["web-1"], "script": "backup", "args": ["a b"]}
#: A request for each operation that the hook is asked about.
REQUESTS = [
    (each.method, each.path.replace("{reqid}", "0123456789abcdef"))
    for each in OPERATIONS
    if each.gated
]


class NoHookTests(ApiCase):
    """
    Without a hook, and without a word about that in the settings.
    """

    settings = ""

    def test_denied(self) -> None:
        """
        Nobody may do anything, on no route.
        """
        for method, path in REQUESTS:
            reply = self.ask(method, path, RUN)
            self.assertEqual(
                (reply.status, reply.body),
                (403, b'{"ok":false,"error":"no auth hook configured","code":1}'),
            )
        self.assertEqual(self.agents.asked, [])

    def test_first(self) -> None:
        """
        Who may not ask does not learn whether what they ask makes sense.
        """
        self.assertEqual(self.ask("POST", "/run", b"{").status, 403)

    def test_probes(self) -> None:
        """
        Probes need no permission.
        """
        for path in ("/healthz", "/readyz"):
            self.assertEqual(self.ask("GET", path).status, 200)


class PageTests(ApiCase):
    """
    Pages in the browser of somebody whom the API would let in.
    """

    def test_refused(self) -> None:
        """
        They may do nothing, on no route, whatever they call themselves.
        """
        for line in (
            "Origin: http://elsewhere.example",
            "Origin: http://api",
            "Origin: null",
            "Sec-Fetch-Site: cross-site",
            "Sec-Fetch-Site: same-origin",
        ):
            for method, path in REQUESTS:
                reply = self.ask(method, path, RUN, line)
                self.assertEqual(
                    (reply.status, reply.body),
                    (403, b'{"ok":false,"error":"not for web pages","code":1}'),
                )
        self.assertEqual(self.agents.asked, [])

    def test_typed(self) -> None:
        """
        What a person types into a browser is their own wish.
        """
        reply = self.ask("GET", "/health", None, "Sec-Fetch-Site: none")
        self.assertEqual(reply.status, 200)


class GenericTests(ApiCase):
    """
    C{auth_deny_generic}
    """

    settings = "auth_deny_generic = yes\n"

    def test_denied(self) -> None:
        """
        No reason is given.
        """
        reply = self.ask("GET", "/health")
        self.assertEqual(reply.body, b'{"ok":false,"error":"forbidden"}')


class HookTests(ApiCase):
    """
    With a hook, which does what the test wants.
    """

    settings = "auth_hook = hook\n"

    def setUp(self) -> None:
        super().setUp()
        hook = self.directory / "hook"
        hook.write_text("#!/bin/sh\n")
        hook.chmod(0o755)

    def begun(self, method: str, path: str, body: object = None, *lines: str) -> Wire:
        """
        A request, of which the hook is being asked.
        """
        return self.wire().send(asking(method, path, body, *lines))

    def asked(self) -> dict[str, Any]:
        """
        What the hook has been asked last.
        """
        process = self.reactor.processes[-1]
        process.reads_stdin()
        context: dict[str, Any] = json.loads(process.stdin)
        self.assertEqual(_variables(process)["ACTION"], context["action"])
        return context

    def says(self, code: int) -> None:
        """
        The hook answers.
        """
        self.reactor.processes[-1].exits(code)

    def decided(self, wire: Wire, *codes: int) -> Reply:
        """
        What becomes of a request, when the hook answers with these.
        """
        for code in codes:
            self.says(code)
        return wire.reply()

    def test_twice(self) -> None:
        """
        First the hook is asked about the API, then about the operation.
        """
        order = {**RUN, "username": "ann", "token": "t"}
        wire = self.begun("POST", "/run", order)
        common = {
            "username": "ann",
            "token": "t",
            "source_ip": "192.0.2.9",
            "dispatcher": "",
            "dispatcher_serial": "",
            "submitter": None,
        }
        first = self.asked()
        self.assertEqual(
            {**first, "timestamp": ""},
            {
                **common,
                "action": "api",
                "script": "",
                "hosts": [],
                "args": [],
                "reqid": "",
                "timestamp": "",
            },
        )
        self.says(0)
        second = self.asked()
        self.assertEqual(
            {**second, "timestamp": "", "reqid": ""},
            {
                **common,
                "action": "run",
                "script": "backup",
                "hosts": ["web-1"],
                "args": ["a b"],
                "reqid": "",
                "timestamp": "",
            },
        )
        self.assertEqual(self.agents.asked, [])
        reply = self.decided(wire, 0)
        self.assertEqual(reply.json()["reqid"], second["reqid"])

    def test_actions(self) -> None:
        """
        Discovery is asked about as a ping is; the rest is its own action.
        """
        for method, path, actions in (
            ("POST", "/ping", ["api", "ping"]),
            ("POST", "/discovery", ["api", "ping"]),
            ("GET", "/discovery", ["api", "ping"]),
            ("GET", "/openapi-live.json", ["api", "ping"]),
            ("GET", "/openapi.json", ["api"]),
            ("GET", "/health", ["api"]),
            ("GET", "/", ["api"]),
            ("GET", "/metrics", ["api"]),
        ):
            self.reactor.processes.clear()
            wire = self.begun(method, path, RUN)
            found = []
            for _ in actions:
                found.append(self.asked()["action"])
                self.says(0)
            self.assertEqual((path, found), (path, actions))
            self.assertEqual(wire.reply().status, 200)
            self.assertEqual(len(self.reactor.processes), len(actions))

    def test_bearer(self) -> None:
        """
        On each route a token may come in the header, and counts before the one
        in the body.
        """
        for method, path in REQUESTS:
            body = {**RUN, "token": "body"}
            wire = self.begun(method, path, body, "Authorization: Bearer header")
            self.assertEqual(self.asked()["token"], "header")
            self.assertEqual(self.decided(wire, 2).status, 403)
            wire = self.begun(method, path, body)
            self.assertEqual(self.asked()["token"], "body")
            self.decided(wire, 2)

    def test_reasons(self) -> None:
        """
        The hook's exit status decides on the reason, at either gate.
        """
        for code, reason in (
            (1, "denied"),
            (2, "bad credentials"),
            (3, "insufficient privilege"),
            (9, "hook exited 9"),
        ):
            expected = f'{{"ok":false,"error":"{reason}","code":{code}}}'.encode()
            for codes in ((code,), (0, code)):
                wire = self.begun("POST", "/run", RUN)
                reply = self.decided(wire, *codes)
                self.assertEqual((reply.status, reply.body), (403, expected))
        self.assertEqual(self.agents.asked, [])

    def test_late(self) -> None:
        """
        A hook that does not answer denies.
        """
        wire = self.begun("GET", "/health")
        self.reactor.advance(10)
        self.assertEqual(wire.reply().status, 403)

    def test_status(self) -> None:
        """
        Whose run it was is for the hook to judge; that it says no can not be
        told from there being no such run.
        """
        wire = self.begun("POST", "/run", {**RUN, "username": "ann"})
        reqid = self.decided(wire, 0, 0).json()["reqid"]
        denied = self.begun("GET", f"/status/{reqid}", None, "Authorization: Bearer t")
        self.says(0)
        context = self.asked()
        self.assertEqual(
            (context["action"], context["reqid"], context["submitter"]),
            ("status", reqid, {"username": "ann", "source_ip": "192.0.2.9"}),
        )
        self.assertEqual((context["token"], context["hosts"]), ("t", ["web-1"]))
        variables = _variables(self.reactor.processes[-1])
        self.assertEqual(
            (variables["SUBMITTER"], variables["SUBMITTER_IP"]), ("ann", "192.0.2.9")
        )
        refused = self.decided(denied, 3)
        missing = self.decided(self.begun("GET", "/status/0123456789abcdef"), 0)
        self.assertEqual((refused.status, missing.status), (404, 404))
        self.assertEqual(
            refused.body, missing.body.replace(b"0123456789abcdef", reqid.encode())
        )
        self.assertEqual(
            {**refused.fields, "content-length": "", "date": ""},
            {**missing.fields, "content-length": "", "date": ""},
        )

    def test_unsound(self) -> None:
        """
        A token that no program could be given is refused before the hook.
        """
        for body in (b'{"token":"a\\u0000b"}', b'{"username":"\\ud800"}'):
            self.assertEqual(self.ask("GET", "/health", body).status, 400)
        self.assertEqual(self.reactor.processes, [])

    def test_clientGone(self) -> None:
        """
        A client that leaves while the hook is asked has asked all the same.
        """
        self.begun("POST", "/run", RUN).leave()
        self.says(0)
        self.says(0)
        self.assertEqual(self.agents.names, ["web-1"])


def _variables(process: FakeProcess) -> dict[str, str]:
    """
    What a hook finds in its environment of what it is asked.
    """
    prefix = "ENVEXEC_"
    env = process.env
    assert isinstance(env, dict)
    return {
        name.removeprefix(prefix): value
        for name, value in env.items()
        if name.startswith(prefix)
    }
