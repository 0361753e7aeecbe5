# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of what the API makes of orders: of bodies that make no sense, of scripts
that run already, of clients that leave, and of too many at once.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred

from ctrlexec.dispatcher.locks import Held, Holder
from ctrlexec.protocol.messages import (
    RunAnswer,
    RunFinished,
    RunRefused,
)
from tests.apis import ApiCase, asking

RUN = {"hosts": ["web-1"], "script": "backup"}
REQID = "0123456789abcdef"


class BodyTests(ApiCase):
    """
    Bodies that make no sense: each with a test.
    """

    def refused(self, body: object, path: str = "/run") -> str:
        """
        Why a body is refused; no agent was asked.
        """
        reply = self.ask("POST", path, body)
        self.assertEqual(reply.status, 400, reply.body)
        fields = reply.json()
        self.assertEqual((fields["ok"], fields["error"]), (False, "bad request"))
        self.assertEqual(self.agents.asked, [])
        return str(fields["detail"])

    def test_notJson(self) -> None:
        """
        Neither is it JSON, nor an object, or it is much too deep.
        """
        deep = b"[" * 10_000 + b"]" * 10_000
        nested = b'{"hosts":' + deep + b',"script":"a"}'
        within = b'{"a":' * 10_000 + b"1" + b"}" * 10_000
        for body in (b"{", b"[]", b"1", b'"a"', b"\xff", b"NaN", deep, nested, within):
            self.assertIn("JSON", self.refused(body))

    def test_deep(self) -> None:
        """
        What is just not too deep to be read is no fault of ours, either, wherever
        in a body it stands.
        """
        for depth in range(200, 1000, 50):
            deep = b"[" * depth + b"]" * depth
            for member in (b"args", b"hosts", b"script"):
                self.refused(b'{"%s":%s}' % (member, deep))
            reply = self.ask("GET", "/health", b'{"unknown":%s}' % deep)
            self.assertIn(reply.status, (200, 400))

    def test_types(self) -> None:
        """
        A member of another type than it should be is named.
        """
        for member, value in (
            ("hosts", "web-1"),
            ("hosts", {"web-1": 1}),
            ("hosts", [1]),
            ("hosts", [["web-1"]]),
            ("script", 1),
            ("args", "a"),
            ("args", [1]),
            ("args", [None]),
            ("username", 1),
            ("token", {}),
        ):
            self.assertIn(member, self.refused({**RUN, member: value}))

    def test_names(self) -> None:
        """
        No name has a NUL or another control character in it, no argument a NUL.
        """
        for member, value in (
            ("hosts", ["web-1\0"]),
            ("hosts", ["web-1\n"]),
            ("hosts", ["web-\x1b[2J"]),
            ("hosts", [""]),
            ("script", "back\0up"),
            ("script", "back\nup"),
            ("script", "../backup"),
            ("script", "backup\n"),
            ("args", ["a\0b"]),
            ("username", "ann\0"),
            ("token", "a\0b"),
        ):
            detail = self.refused({**RUN, member: value})
            self.assertTrue(detail.isprintable(), detail)

    def test_surrogates(self) -> None:
        """
        Text that no encoding can carry on is refused.
        """
        for body in (
            b'{"hosts":["web-1"],"script":"a","args":["\\ud800"]}',
            b'{"hosts":["web-1"],"script":"a","token":"\\ud800"}',
            b'{"hosts":["\\ud800"],"script":"a"}',
        ):
            self.refused(body)

    def test_missing(self) -> None:
        """
        No host is not every host.
        """
        for body in ({}, {"script": "a"}, {"hosts": ["web-1"]}, {**RUN, "hosts": []}):
            self.refused(body)
        for nobody in (b"{}", b'{"hosts":[]}', b'{"hosts":null}'):
            self.refused(nobody, "/ping")

    def test_tooMany(self) -> None:
        """
        There is a bound on hosts, which 10,000 of them are within.
        """
        hosts = [f"h{number}" for number in range(10_001)]
        detail = self.refused({**RUN, "hosts": hosts})
        self.assertIn("10000 at most", detail)
        reply = self.ask("POST", "/run", {**RUN, "hosts": hosts[1:]})
        self.assertEqual(reply.status, 404)

    def test_async(self) -> None:
        """
        What is no yes for the original is none here.
        """
        order: dict[str, object]
        for value in ("yes", 2, [True]):
            order = {**RUN, "async": value}
            self.assertEqual(self.ask("POST", "/run", order).status, 202)
        for nothing in (False, None, 0, "", "0"):
            order = {**RUN, "async": nothing}
            self.assertEqual(self.ask("POST", "/run", order).status, 200)

    def test_together(self) -> None:
        """
        What makes no sense together is refused, as the command line does.
        """
        for members, words in (
            ({"async": True, "batch": 1}, "async: cannot go together with batch"),
            ({"async": True, "canary": 1}, "async: cannot go together with canary"),
            ({"async": 1, "max_failures": 1}, "together with max_failures"),
            ({"async": 1, "on_disconnect": "cancel"}, "together with on_disconnect"),
            ({"batch_wait": 1}, "batch_wait: needs batch or canary"),
            ({"batch_wait": 1, "canary": 0}, "batch_wait: needs batch or canary"),
        ):
            self.assertIn(words, self.refused({**RUN, **members}))
        order = {**RUN, "async": True, "on_disconnect": "keep"}
        self.assertEqual(self.ask("POST", "/run", order).status, 202)

    def test_twoKeys(self) -> None:
        """
        Nobody can tell which of two keys was meant; and what a key is is said.
        """
        for lines, words in (
            (("Idempotency-Key: a", "idempotency-key: b"), "is given more than once"),
            (("Idempotency-Key: ü",), "must be 1 to 255 printable ASCII characters"),
        ):
            reply = self.ask("POST", "/run", RUN, *lines)
            self.assertEqual(reply.status, 400)
            self.assertEqual(reply.json()["detail"], f"Idempotency-Key: {words}")

    def test_unknownMembers(self) -> None:
        """
        Members that we do not know are ignored, as the original does.
        """
        self.assertEqual(self.ask("POST", "/run", {**RUN, "colour": "red"}).status, 200)

    def test_twice(self) -> None:
        """
        The same host twice is asked once, and that is said.
        """
        reply = self.ask("POST", "/run", {**RUN, "hosts": ["web-1", "web-1"]}).json()
        self.assertEqual([row["host"] for row in reply["results"]], ["web-1"])
        self.assertEqual(
            reply["warnings"], ["web-1 was named more than once; it is asked once"]
        )
        self.assertEqual(self.agents.names, ["web-1"])

    def test_unknown(self) -> None:
        """
        One stranger among the hosts, and nobody is asked.
        """
        for path in ("/run", "/ping", "/discovery"):
            hosts = ["web-1", "web-9", "web-2", "x"]
            reply = self.ask("POST", path, {"hosts": hosts, "script": "backup"})
            self.assertEqual(reply.status, 404)
            self.assertEqual(
                reply.body,
                b'{"ok":false,"error":"unknown agent",'
                b'"detail":"not a registered agent: web-9, x"}',
            )
        self.assertEqual(self.agents.asked, [])

    def test_cutRecord(self) -> None:
        """
        A registry record that is cut in half is reported by name; the others
        work.
        """
        broken = self.dispatcher.settings.registry_dir / "web-1.json"
        broken.write_text('{"hostname": "we')
        hosts = ["web-1", "web-2"]
        reply = self.ask("POST", "/run", {**RUN, "hosts": hosts}).json()
        first, second = sorted(reply["results"], key=lambda row: str(row["host"]))
        self.assertEqual((first["host"], first["exit"]), ("web-1", -1))
        self.assertIn("web-1.json", first["error"])
        self.assertEqual((second["host"], second["exit"]), ("web-2", 0))


class LockTests(ApiCase):
    """
    Scripts that run already, and clients that do not wait for them.
    """

    def test_locked(self) -> None:
        """
        A lock of anybody's is honoured, and who is in the way is told.
        """
        held = self.dispatcher.stores.locks.take(["web-2"], Holder("backup", "r", "u"))
        assert isinstance(held, Held)
        reply = self.ask("POST", "/run", {**RUN, "hosts": ["web-1", "web-2"]})
        self.assertEqual(reply.status, 409)
        self.assertEqual(
            reply.body,
            b'{"ok":false,"error":"locked","code":4,"conflicts":["web-2:backup"]}',
        )
        self.assertEqual(self.agents.asked, [])

    def test_clientGone(self) -> None:
        """
        A run whose client leaves goes on, on hosts that were not asked yet too;
        it holds its locks until its end, and is kept.
        """
        self.api.dispatcher = self.made("max_parallel = 1\napi_auth_default = allow\n")
        first: Deferred[RunAnswer] = Deferred()
        self.agents.answers = {"web-1": first}
        order = {**RUN, "hosts": ["web-1", "web-2"]}
        wire = self.wire().send(asking("POST", "/run", order))
        wire.leave()
        self.assertEqual(self.agents.names, ["web-1"])
        self.assertEqual(self.ask("POST", "/run", order).status, 409)
        reqid = self.agents.asked[0][1].reqid  # type: ignore[union-attr]
        first.callback(RunFinished("backup", 0, "late", "", reqid))
        self.assertEqual(self.agents.names, ["web-1", "web-2"])
        results = self.ask("GET", f"/status/{reqid}").json()["results"]
        self.assertEqual([row["host"] for row in results], ["web-1", "web-2"])
        self.agents.answers = {}
        self.assertEqual(self.ask("POST", "/run", order).status, 200)
        self.assertEqual(self.faults, [])

    def test_fullDisk(self) -> None:
        """
        Results that can not be kept are answered all the same, with a warning.
        """
        runs = self.dispatcher.settings.runs_dir
        runs.parent.mkdir(exist_ok=True)
        runs.write_text("in the way")
        reply = self.ask("POST", "/run", RUN)
        self.assertEqual(reply.status, 200)
        (warning,) = reply.json()["warnings"]
        self.assertIn("are not kept", warning)


class OverloadTests(ApiCase):
    """
    More requests than are worked on at once.
    """

    most = 2

    def test_cap(self) -> None:
        """
        The one that is too much is told when to come again; probes are not
        turned away, and places become free.
        """
        waiting: Deferred[RunAnswer] = Deferred()
        self.agents.answers = {"web-1": waiting}
        self.wire().send(asking("POST", "/run", RUN))
        self.wire().send(asking("POST", "/run", {**RUN, "script": "other"}))
        reply = self.ask("GET", "/health")
        self.assertEqual((reply.status, reply.fields["retry-after"]), (503, "1"))
        self.assertEqual(
            reply.body,
            b'{"ok":false,"error":"service unavailable",'
            b'"detail":"too many concurrent requests"}',
        )
        self.assertEqual(self.ask("GET", "/healthz").status, 200)
        self.assertEqual(self.ask("GET", "/readyz").status, 200)
        self.assertEqual(
            self.logged("api-overload"), ["ACTION=api-overload LIVE=2 PEER=192.0.2.9"]
        )
        waiting.callback(RunRefused("enough"))
        self.assertEqual(self.ask("GET", "/health").status, 200)
