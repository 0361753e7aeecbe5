# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of the API's routes: request bytes with answer bytes.
"""

from __future__ import annotations

import os
from typing import NoReturn

import attrs

from ctrlexec import __version__
from ctrlexec.api.app import Api
from ctrlexec.api.definitions import OPERATIONS
from ctrlexec.errors import TransportError
from ctrlexec.protocol.messages import (
    RunRefused,
)
from ctrlexec.values import Submitter
from tests.apis import ApiCase
from tests.authority import NOW

RUN = {"hosts": ["web-1"], "script": "backup"}
REQID = "0123456789abcdef"
NOT_FOUND = b'{"ok":false,"error":"not found","detail":"no result for reqid %s"}'


class RouteTests(ApiCase):
    """
    Each route, where all is well.
    """

    def test_routes(self) -> None:
        """
        There is a route for each definition, and no other.
        """
        rules = Api.app.url_map.iter_rules()
        found = {
            (method, rule.rule.replace("<path:reqid>", "{reqid}"))
            for rule in rules
            for method in (rule.methods or set()) - {"HEAD"}
        }
        self.assertEqual(found, {(each.method, each.path) for each in OPERATIONS})

    def test_index(self) -> None:
        """
        The index lists them.
        """
        index = self.ask("GET", "/").json()
        self.assertEqual((index["ok"], index["version"]), (True, __version__))
        self.assertEqual(len(index["operations"]), len(OPERATIONS))
        self.assertIn(
            {"method": "POST", "path": "/run", "summary": "Run a script on hosts."},
            index["operations"],
        )

    def test_health(self) -> None:
        """
        PROTOCOL.md section 8: C{{"ok":true,"version"}}.
        """
        expected = f'{{"ok":true,"version":"{__version__}"}}'
        reply = self.ask("GET", "/health")
        self.assertEqual((reply.status, reply.body), (200, expected.encode()))

    def test_run(self) -> None:
        """
        A run answers with its id and a result for each host.
        """
        self.agents.answers = {"web-2": RunRefused("script not permitted")}
        order = {"hosts": ["web-1", "web-2"], "script": "backup", "args": ["a b", "ü"]}
        reply = self.ask("POST", "/run", order)
        reqid = reply.json()["reqid"]
        self.assertEqual(
            reply.body.decode(),
            f'{{"ok":true,"reqid":"{reqid}","results":['
            '{"host":"web-1","script":"backup","exit":0,"stdout":"web-1\\n",'
            f'"stderr":"","rtt":"0ms","reqid":"{reqid}","state":"ok"}},'
            '{"host":"web-2","script":"backup","exit":-1,'
            f'"error":"script not permitted","rtt":"0ms","reqid":"{reqid}",'
            '"state":"denied"}]}',
        )
        self.assertRegex(reqid, "^[0-9a-f]{16}$")
        _, sent = self.agents.asked[0]
        self.assertEqual(getattr(sent, "args", None), ("a b", "ü"))

    def test_runOfMany(self) -> None:
        """
        No person has to say yes to a program's order.
        """
        self.api.dispatcher = self.made("confirm_hosts = 1\napi_auth_default = allow\n")
        self.assertEqual(
            self.ask("POST", "/run", {"hosts": ["web-*"], "script": "a"}).status, 200
        )

    def test_ping(self) -> None:
        """
        A ping answers with a result for each host, C{staged} among it.
        """
        self.agents.answers = {"web-2": TransportError("no such luck")}
        reply = self.ask("POST", "/ping", {"hosts": ["web-1", "web-2"]})
        reqid = reply.json()["results"][0]["reqid"]
        self.assertEqual(
            reply.body.decode(),
            '{"ok":true,"results":[{"host":"web-1","status":"ok","version":"0.1.0",'
            f'"expiry":"Feb 22 22:32:05 2029 GMT","rtt":"0ms","reqid":"{reqid}",'
            '"staged":false},{"host":"web-2","status":"error",'
            '"error":"no such luck","rtt":"0ms"}]}',
        )

    def test_discovery(self) -> None:
        """
        A discovery asks whom it names, or else everybody.
        """
        one = (
            b'"web-1":{"status":"ok","host":"web-1","version":"0.1.0","scripts":'
            b'[{"name":"backup","path":"/opt/backup","executable":true}],'
            b'"tags":{"role":"web"},"rtt":"0ms"}'
        )
        reply = self.ask("POST", "/discovery", {"hosts": ["web-1"]})
        self.assertEqual(reply.body, b'{"ok":true,"hosts":{' + one + b"}}")
        for method, body in (("GET", None), ("POST", {}), ("POST", {"hosts": []})):
            self.assertEqual(
                [*self.ask(method, "/discovery", body).json()["hosts"]],
                ["web-1", "web-2"],
            )

    def test_status(self) -> None:
        """
        What became of a run is told again, without who gave the order.
        """
        run = self.ask("POST", "/run", {**RUN, "username": "ann"}).json()
        reply = self.ask("GET", f"/status/{run['reqid']}")
        record = reply.json()
        self.assertEqual(
            {key: record[key] for key in ("ok", "reqid", "script", "hosts", "results")},
            {"ok": True, "script": "backup", "hosts": ["web-1"], **run},
        )
        self.assertIsInstance(record["completed"], int)
        self.assertNotIn(b"submitter", reply.body)
        stored = self.dispatcher.stores.runs.get(run["reqid"], 0)
        self.assertEqual(stored.submitter, Submitter("ann", "192.0.2.9"))

    def test_openapi(self) -> None:
        """
        Both documents are there; the live one knows hosts and scripts.
        """
        static = self.ask("GET", "/openapi.json").json()
        self.assertEqual(static["info"]["version"], __version__)
        live = self.ask("GET", "/openapi-live.json").json()
        self.assertRegex(live["info"]["version"], r"\+[0-9]+$")
        self.assertEqual(live["components"]["schemas"]["Script"]["enum"], ["backup"])
        self.assertEqual(
            live["x-ctrl-exec-scripts"]["backup"][0]["hosts"], ["web-1", "web-2"]
        )

    def test_metrics(self) -> None:
        """
        Prometheus gets its text.
        """
        reply = self.ask("GET", "/metrics")
        self.assertTrue(reply.fields["content-type"].startswith("text/plain"))
        self.assertIn(b"\nctrl_exec_api_requests_in_progress 1.0\n", reply.body)

    def test_probes(self) -> None:
        """
        Probes tell nothing but yes and no.
        """
        for path in ("/healthz", "/readyz"):
            reply = self.ask("GET", path)
            self.assertEqual((reply.status, reply.body), (200, b'{"ok":true}'))
        self.is_ready = False
        reply = self.ask("GET", "/readyz")
        self.assertEqual((reply.status, reply.body), (503, b'{"ok":false}'))
        self.assertEqual(self.ask("GET", "/healthz").status, 200)

    def test_logged(self) -> None:
        """
        Each request is a line of the log.
        """
        self.ask("POST", "/ping?token=s3cret", {"hosts": ["web-1"]})
        (line,) = self.logged("api-request")
        self.assertEqual(
            line,
            "ACTION=api-request LEN=20 METHOD=POST PATH=/ping PEER=192.0.2.9 "
            "STATUS=200",
        )


class MissingTests(ApiCase):
    """
    What is not there.
    """

    def test_path(self) -> None:
        """
        A path that leads nowhere is said to, in JSON, whatever it looks like.
        """
        reply = self.ask("GET", "/nowhere")
        self.assertEqual(
            reply.body,
            b'{"ok":false,"error":"not found","detail":"there is no /nowhere"}',
        )
        for path in ("//run", "/run/", "/status", "/status/", "/%2e%2e/run", "/a?b"):
            reply = self.ask("GET", path)
            self.assertEqual((path, reply.status), (path, 404))
            self.assertEqual(reply.fields["content-type"], "application/json")

    def test_encoding(self) -> None:
        """
        A path that is no text is refused.
        """
        self.assertEqual(
            self.ask("GET", "/status/%ff").body,
            b'{"ok":false,"error":"bad request","detail":"the path is not UTF-8"}',
        )

    def test_host(self) -> None:
        """
        What a client calls us does not matter.
        """
        request = b"GET /health HTTP/1.1\r\nHost: \xff\xff..:x\r\n\r\n"
        self.assertEqual(self.wire().send(request).reply().status, 200)

    def test_method(self) -> None:
        """
        A method that a path does not have is told which there are.
        """
        reply = self.ask("GET", "/run")
        self.assertEqual((reply.status, reply.fields["allow"]), (405, "POST"))
        self.assertEqual(
            reply.body,
            b'{"ok":false,"error":"method not allowed","detail":"this takes POST"}',
        )
        self.assertEqual(
            self.ask("DELETE", "/discovery").fields["allow"], "GET, HEAD, POST"
        )
        self.assertEqual(self.ask("BREW", "/health").status, 405)

    def test_status(self) -> None:
        """
        Whatever is no id of a run that there is, is answered alike.
        """
        for given in (REQID, "a.b", "a/b", "x" * 500):
            reply = self.ask("GET", f"/status/{given}")
            self.assertEqual(
                (reply.status, reply.body), (404, NOT_FOUND % given.encode())
            )

    def test_unreadableStatus(self) -> None:
        """
        A record that is cut in half is no secret; where it is, is.
        """
        runs = self.dispatcher.settings.runs_dir
        runs.mkdir(parents=True)
        (runs / f"{REQID}.json").write_text('{"reqid":')
        reply = self.ask("GET", f"/status/{REQID}")
        self.assertEqual(reply.status, 500)
        self.assertEqual(reply.json()["error"], "cannot read result")
        self.assertNotIn(str(self.directory).encode(), reply.body)
        (line,) = self.logged("api-fail")
        self.assertIn(f"{REQID}.json", line)

    def test_swept(self) -> None:
        """
        Who asks for one finds that those that are a day old are gone.
        """
        runs = self.dispatcher.settings.runs_dir
        runs.mkdir(parents=True)
        old = runs / "old.json"
        old.write_text("{}")
        then = NOW.timestamp() - 86_401
        os.utime(old, (then, then))
        self.ask("GET", f"/status/{REQID}")
        self.assertFalse(old.exists())


class FaultTests(ApiCase):
    """
    Faults of ours.
    """

    def test_unexpected(self) -> None:
        """
        The client hears that there was one; the log tells where, and nothing
        that a client may have sent.
        """

        def fails(reactor: object) -> NoReturn:
            raise ZeroDivisionError("s3cret")

        self.api.dispatcher = attrs.evolve(self.dispatcher, agents=fails)
        reply = self.ask("POST", "/ping", {"hosts": ["web-1"]})
        self.assertEqual(reply.status, 500)
        self.assertNotIn(b"s3cret", reply.body)
        (line,) = self.logged("api-fail")
        self.assertRegex(
            line,
            r'^ACTION=api-fail ERROR="ZeroDivisionError at .*test_api_app.py:[0-9]+" '
            r"METHOD=POST PATH=/ping$",
        )
