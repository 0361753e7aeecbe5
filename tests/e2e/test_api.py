# SPDX-License-Identifier: AGPL-3.0-only
"""
The API under C{twistd}, in front of a real agent, asked by a plain HTTP client.
"""

from __future__ import annotations

import json
import os
import socket
from typing import ClassVar

from tests.e2e.apis import RUN, ApiTestCase
from tests.e2e.installation import (
    PATIENCE_SECONDS,
    AgentHome,
    hang_up,
)

#: Writes down what it is asked, and allows those who have the token.
HOOK = """\
#!/bin/sh
cat >> HOME/asked
echo >> HOME/asked
printf '%s %s\\n' "$ENVEXEC_ACTION" "$ENVEXEC_HOSTS" >> HOME/actions
[ "$ENVEXEC_TOKEN" = s3cret ] || exit 2
"""


class RequestTests(ApiTestCase):
    """
    What can be asked.
    """

    def test_routes(self) -> None:
        """
        One connection is enough to find out all that there is, and to run a
        script and look at it again.
        """
        client = self.client()
        self.assertIs(client.ask("GET", "/health").json()["ok"], True)
        first = client.connection.sock
        ran = client.ask("POST", "/run", {**RUN, "args": ["a b"]}).json()
        (result,) = ran["results"]
        self.assertEqual((result["exit"], result["stderr"]), (3, "complaint\n"))
        self.assertTrue(result["stdout"].endswith("<a b>\n"))
        stored = client.ask("GET", f"/status/{ran['reqid']}").json()
        self.assertEqual(stored["results"], ran["results"])
        pinged = client.ask("POST", "/ping", {"hosts": ["agent-one"]}).json()
        self.assertIs(pinged["results"][0]["staged"], False)
        offered = client.ask("GET", "/discovery").json()["hosts"]["agent-one"]
        self.assertEqual(
            [each["name"] for each in offered["scripts"]], ["show", "wait"]
        )
        live = client.ask("GET", "/openapi-live.json").json()
        self.assertEqual(
            live["components"]["schemas"]["Script"]["enum"], ["show", "wait"]
        )
        self.assertIs(client.connection.sock, first, "the connection was kept")
        metrics = client.ask("GET", "/metrics").body.decode()
        for line in (
            'ctrl_exec_runs_total{outcome="failed",script="show"} 1.0',
            'ctrl_exec_agents{state="current"} 1.0',
            'ctrl_exec_run_seconds_count{script="show"} 1.0',
        ):
            self.assertIn(f"\n{line}\n", metrics)
        self.assertNotIn(ran["reqid"], metrics)
        self.await_line(self.log, "METHOD=GET PATH=/metrics PEER=127.0.0.1 STATUS=200")

    def test_badInput(self) -> None:
        """
        What makes no sense is refused, and the next request is as good as ever.
        """
        client = self.client()
        deep = b"[" * 10_000 + b"]" * 10_000
        for body in (
            b"{",
            b"[]",
            deep,
            b'{"hosts":' + deep + b',"script":"show"}',
            {**RUN, "hosts": "agent-one"},
            {**RUN, "args": [1]},
            {**RUN, "hosts": ["agent\0one"]},
            {**RUN, "hosts": ["agent\x1bone"]},
            {**RUN, "script": "sh\now"},
            {**RUN, "token": "a\0"},
            {**RUN, "hosts": [f"h{number}" for number in range(10_001)]},
            {**RUN, "hosts": []},
        ):
            reply = client.ask("POST", "/run", body)
            self.assertEqual((reply.status, reply.json()["ok"]), (400, False), reply)
        reply = client.ask("POST", "/run", {**RUN, "hosts": ["agent-one", "x"]})
        self.assertEqual(
            (reply.status, reply.body),
            (
                404,
                b'{"ok":false,"error":"unknown agent",'
                b'"detail":"not a registered agent: x"}',
            ),
        )
        twice = client.ask("POST", "/run", {**RUN, "hosts": ["agent-one"] * 2}).json()
        self.assertEqual((len(twice["results"]), len(twice["warnings"])), (1, 1))
        self.assertEqual(len(self.agent.lines("ACTION=run-start")), 1)
        problem = client.ask("GET", "/nowhere", Accept="application/problem+json")
        self.assertEqual(problem.fields["content-type"], "application/problem+json")
        self.assertEqual(problem.json()["title"], "Not Found")

    def test_tooLarge(self) -> None:
        """
        A client that sends a byte too much gets to read why, even if it sends
        all of it first.
        """
        for head in (b"Content-Length: 1048577", b"Transfer-Encoding: chunked"):
            with socket.create_connection(("127.0.0.1", self.port)) as talk:
                talk.settimeout(PATIENCE_SECONDS)
                talk.sendall(b"POST /run HTTP/1.1\r\n" + head + b"\r\n\r\n")
                data = b" " * 1_048_577
                chunk = b"100001\r\n" + data + b"\r\n0\r\n\r\n"
                talk.sendall(chunk if b"chunked" in head else data)
                answer = b"".join(iter(lambda: talk.recv(65_536), b""))
            self.assertTrue(answer.startswith(b"HTTP/1.1 413 Content Too Large\r\n"))
            self.assertTrue(
                answer.endswith(
                    b'\r\n\r\n{"ok":false,"error":"payload too large",'
                    b'"detail":"body exceeds 1048576 bytes"}'
                )
            )

    def test_clientGone(self) -> None:
        """
        A run whose client leaves goes on; it is locked until its end, and kept.
        """
        self.waiting().connection.close()
        self.await_line(self.log, "STATUS=499")
        self.assertEqual(self.locks(), ["agent-one"])
        again = self.client().ask("POST", "/run", {**RUN, "script": "wait"})
        self.assertEqual(
            (again.status, again.body),
            (
                409,
                b'{"ok":false,"error":"locked","code":4,'
                b'"conflicts":["agent-one:wait"]}',
            ),
        )
        self.let_go()
        line = self.await_line(self.log, "ACTION=run ")
        (reqid,) = (word[6:] for word in line.split() if word.startswith("REQID="))
        self.await_line(self.log, "ACTION=lock-release")
        stored = self.client().ask("GET", f"/status/{reqid}")
        while stored.status == 404:
            stored = self.client().ask("GET", f"/status/{reqid}")
        self.assertEqual(stored.json()["results"][0]["stdout"], "done\n")
        self.assertEqual(self.locks(), [])

    def test_noAuthorityKey(self) -> None:
        """
        The API does without the key of the CA.
        """
        self.api.terminate()
        self.end(self.api)
        (self.home / "ca.key").unlink()
        self.api = self.serve()
        reply = self.client().ask("POST", "/run", RUN)
        self.assertEqual(reply.json()["results"][0]["exit"], 3)


class HookTests(ApiTestCase):
    """
    A hook, and what it is asked.
    """

    more: ClassVar = {"auth_hook": "hook"}

    def configure(self, **more: object) -> None:
        super().configure(**more)
        hook = self.home / "hook"
        hook.write_text(HOOK.replace("HOME", str(self.home)))
        hook.chmod(0o755)

    def paired(self, *names: str) -> list[AgentHome]:
        os.environ["ENVEXEC_TOKEN"] = "s3cret"
        self.addCleanup(os.environ.pop, "ENVEXEC_TOKEN", None)
        return super().paired(*names)

    def asked(self) -> list[str]:
        """
        What the hook was asked since the last time.
        """
        file = self.home / "actions"
        lines = file.read_text().splitlines() if file.exists() else []
        file.write_text("")
        return lines

    def test_gates(self) -> None:
        """
        Each request is asked about twice, with the caller's token: from the
        header on every route, or from the body.
        """
        del os.environ["ENVEXEC_TOKEN"]
        client, bearer = self.client(), {"Authorization": "Bearer s3cret"}
        self.asked()
        ran = client.ask("POST", "/run", RUN, **bearer).json()
        self.assertEqual(self.asked(), ["api ", "run agent-one"])
        for method, path, actions in (
            ("POST", "/ping", ["api ", "ping agent-one"]),
            ("POST", "/discovery", ["api ", "ping agent-one"]),
            ("GET", "/discovery", ["api ", "ping agent-one"]),
            ("GET", f"/status/{ran['reqid']}", ["api ", "status agent-one"]),
            ("GET", "/openapi.json", ["api "]),
            ("GET", "/openapi-live.json", ["api ", "ping agent-one"]),
            ("GET", "/metrics", ["api "]),
            ("GET", "/health", ["api "]),
            ("GET", "/", ["api "]),
        ):
            body = RUN if method == "POST" else None
            self.assertEqual(client.ask(method, path, body, **bearer).status, 200, path)
            self.assertEqual(self.asked(), actions)
            denied = client.ask(method, path, body)
            self.assertEqual(
                (denied.status, denied.body),
                (403, b'{"ok":false,"error":"bad credentials","code":2}'),
            )
            self.assertEqual(self.asked(), ["api "])
        self.assertEqual(
            client.ask("POST", "/run", {**RUN, "token": "s3cret"}).status, 200
        )
        for path in ("/healthz", "/readyz"):
            self.asked()
            self.assertEqual(client.ask("GET", path).status, 200)
            self.assertEqual(self.asked(), [])
        self.assertNotIn("s3cret", self.log.read_text())
        contexts = (self.home / "asked").read_text().splitlines()
        status = next(c for c in map(json.loads, contexts) if c["action"] == "status")
        self.assertEqual(
            (status["reqid"], status["submitter"], status["source_ip"]),
            (
                ran["reqid"],
                {"username": "", "source_ip": "127.0.0.1"},
                "127.0.0.1",
            ),
        )


class DeniedTests(ApiTestCase):
    """
    No hook, and no word about that in the settings.
    """

    more: ClassVar = {"auth_deny_generic": "no"}

    def test_denied(self) -> None:
        """
        Nobody may do anything, and may be told no reason either.
        """
        reply = self.client().ask("POST", "/run", RUN)
        self.assertEqual(
            (reply.status, reply.body),
            (403, b'{"ok":false,"error":"no auth hook configured","code":1}'),
        )
        self.configure(auth_deny_generic="yes")
        hang_up(self.api)
        self.await_line(self.log, "ACTION=reload STATUS=ok", self.api)
        reply = self.client().ask("POST", "/run", RUN)
        self.assertEqual(
            (reply.status, reply.body), (403, b'{"ok":false,"error":"forbidden"}')
        )
        self.assertEqual(self.agent.lines("ACTION=run-start"), [])
