# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of runs with a life through the API: what becomes of the members of an
order, of a client that leaves, of a key that comes twice, and of a cancel.
"""

from __future__ import annotations

from typing import Any

from ctrlexec.dispatcher.orders import Rolling, RunOrder
from ctrlexec.dispatcher.results import CancelRow, Outcome, Report, RunRow
from ctrlexec.errors import Conflict, NotAuthorised, NotFound
from ctrlexec.protocol.run_messages import Signalled
from ctrlexec.values import Portion
from tests.apis import Wire, asking
from tests.scripted_dispatchers import REQID, RUN, ScriptedCase, row

CANCEL = f"/runs/{REQID}/cancel"


class OrderTests(ScriptedCase):
    """
    C{POST /run}
    """

    most = 50

    def order(self, *lines: str, **members: Any) -> RunOrder:
        """
        What is made of a body.
        """
        wire = self.wire().send(asking("POST", "/run", {**RUN, **members}, *lines))
        self.assertEqual(wire.replies(), [])
        return self.script.orders[-1]

    def refused(self, *lines: str, **members: Any) -> str:
        """
        Why there is no order.
        """
        reply = self.ask("POST", "/run", {**RUN, **members}, *lines)
        self.assertEqual(reply.status, 400, members)
        self.assertEqual(self.script.orders, [])
        return str(reply.json()["detail"])

    def test_plain(self) -> None:
        """
        Who says nothing of all this gets what they always got.
        """
        order = self.order(timeout=None, on_disconnect=None, batch=None, canary=None)
        self.assertEqual(
            (
                order.asynchronous,
                order.follow,
                order.timeout_seconds,
                order.on_disconnect,
                order.rolling,
                order.key,
            ),
            (False, False, None, "keep", None, ""),
        )

    def test_asynchronous(self) -> None:
        """
        C{async} is what Perl takes for yes or no.
        """
        yes: tuple[object, ...] = (True, 1, "yes", 2, -1, [], {}, "true", 0.5, "0.0")
        no: tuple[object, ...] = (False, 0, 0.0, "", "0", None)
        for value in (*yes, *no):
            order = self.order(**{"async": value})
            is_yes = not any(value is each for each in no)
            self.assertIs(order.asynchronous, is_yes, value)

    def test_timeout(self) -> None:
        """
        A time limit is more than nothing, and at most thirty days.
        """
        for value in (0.5, 30, 30 * 86_400):
            self.assertEqual(self.order(timeout=value).timeout_seconds, value)
        self.script.orders.clear()
        bads: tuple[object, ...] = (0, -1, 30 * 86_400 + 1, "30s", True, [], 10**300)
        for bad in bads:
            self.assertIn("timeout", self.refused(timeout=bad))

    def test_onDisconnect(self) -> None:
        """
        There are two things that can happen when a caller leaves.
        """
        for value in ("keep", "cancel"):
            self.assertEqual(self.order(on_disconnect=value).on_disconnect, value)
        self.script.orders.clear()
        for bad in ("kill", "", 1, True, ["keep"]):
            self.assertIn("on_disconnect", self.refused(on_disconnect=bad))

    def test_rolling(self) -> None:
        """
        An order can go over its hosts in lots.
        """
        order = self.order(batch="25%", batch_wait=1.5, canary=2, max_failures=0)
        self.assertEqual(
            order.rolling,
            Rolling(
                canary=2,
                batch=Portion(25, percent=True),
                wait_seconds=1.5,
                max_failures=Portion(0),
            ),
        )
        self.assertEqual(self.order(batch=3).rolling, Rolling(batch=Portion(3)))
        self.assertEqual(self.order(canary=1).rolling, Rolling(canary=1))
        failures = Rolling(max_failures=Portion(0, percent=True))
        self.assertEqual(self.order(max_failures="0%").rolling, failures)

    def test_badRolling(self) -> None:
        """
        What is no number and no portion of the hosts is refused.
        """
        for member, bad in (
            *(("batch", bad) for bad in (0, -1, "0%", "101%", "3", "25%\n", "", 1.5)),
            *(("max_failures", bad) for bad in (-1, "-1%", "1000%", "x", [1], True)),
            *(("canary", bad) for bad in (-1, "1", 1.5, "10%", True)),
            *(("batch_wait", bad) for bad in (-1, "1", 30 * 86_400 + 1)),
        ):
            self.refused(**{member: bad})

    def test_key(self) -> None:
        """
        A key is some printable characters; a dispatcher is given it as it is.
        """
        for key in ("a", "a" * 255, '"8e03978e-40d5"', "a b ~!"):
            self.assertEqual(self.order(f"Idempotency-Key: {key}").key, key)
        self.script.orders.clear()
        for bad in ("", " ", "a" * 256, "ü", "a\tb", "a\x7f"):
            detail = self.refused(f"Idempotency-Key: {bad}")
            self.assertIn("Idempotency-Key", detail)
            self.assertTrue(detail.isprintable())

    def test_otherRoutes(self) -> None:
        """
        Where nothing is begun a key means nothing.
        """
        self.assertEqual(
            self.ask("GET", "/health", None, "Idempotency-Key: \x01\x02").status, 200
        )

    def test_conflict(self) -> None:
        """
        A key that was used for another order is no good for this one.
        """
        self.script.refusal = Conflict("the key was used for another run")
        reply = self.ask("POST", "/run", RUN, "Idempotency-Key: a")
        self.assertEqual(
            (reply.status, reply.body),
            (
                422,
                b'{"ok":false,"error":"unprocessable content",'
                b'"detail":"the key was used for another run"}',
            ),
        )


class AnswerTests(ScriptedCase):
    """
    What C{POST /run} answers.
    """

    def answer(self, *rows: RunRow, stopped: bool = False, **members: Any) -> Any:
        """
        The status and the body of what is answered when this comes of a run.
        """
        wire = self.wire().send(asking("POST", "/run", {**RUN, **members}))
        self.script.reports[-1].callback(
            Report(rows, ("beware",) if stopped else (), REQID, stopped)
        )
        reply = wire.reply()
        return reply.status, reply.json()

    def test_states(self) -> None:
        """
        Each row says in a word what became of it, and why, if there is a why.
        """
        late = row(
            exit=126, outcome=Outcome.TIMED_OUT, stdout="a", reason="timed out after 3s"
        )
        away = row("web-2", exit=-1, outcome=Outcome.UNREACHABLE, error="nobody")
        status, fields = self.answer(late, away)
        self.assertEqual(status, 200)
        first, second = fields["results"]
        self.assertEqual(
            (first["exit"], first["stdout"], first["state"], first["reason"]),
            (126, "a", "timed out", "timed out after 3s"),
        )
        self.assertEqual((second["state"], second["error"]), ("unreachable", "nobody"))
        self.assertNotIn("reason", second)
        self.assertNotIn("stopped", fields)

    def test_stopped(self) -> None:
        """
        Hosts that were left out because others have failed are among the rows.
        """
        left = row("web-2", exit=-1, outcome=Outcome.NOT_STARTED, error="not started")
        _, fields = self.answer(row(exit=1, outcome=Outcome.FAILED), left, stopped=True)
        self.assertIs(fields["stopped"], True)
        self.assertEqual(fields["warnings"], ["beware"])
        self.assertEqual(
            [each["state"] for each in fields["results"]], ["failed", "not started"]
        )

    def test_replayed(self) -> None:
        """
        An answer that was given before says so in its header, and no other does.
        """
        for asynchronous in (False, True):
            for replayed, said in ((False, None), (True, "true")):
                body = {**RUN, "async": asynchronous}
                wire = self.wire().send(asking("POST", "/run", body))
                report = Report([row()], reqid=REQID, replayed=replayed)
                self.script.reports[-1].callback(report)
                fields = wire.reply().fields
                self.assertEqual(fields.get("idempotency-replayed"), said)

    def test_asynchronous(self) -> None:
        """
        Who does not wait for the end hears which hosts have taken it.
        """
        status, fields = self.answer(
            row(outcome=Outcome.ACCEPTED, exit=-1),
            row("web-2", outcome=Outcome.BUSY, exit=-1, error="already running"),
            row("web-3", outcome=Outcome.DENIED, exit=-1, error="not permitted"),
            **{"async": True},
        )
        self.assertEqual(status, 202)
        self.assertEqual(
            (fields["ok"], fields["reqid"], fields["async"]), (True, REQID, True)
        )
        found = [
            (each["host"], each["status"], each.get("error"))
            for each in fields["results"]
        ]
        self.assertEqual(
            found,
            [
                ("web-1", "accepted", None),
                ("web-2", "busy", "already running"),
                ("web-3", "error", "not permitted"),
            ],
        )
        for each in fields["results"]:
            self.assertEqual((each["script"], each["reqid"]), ("backup", REQID))
            self.assertEqual(each["rtt"], "0ms")


class LeavingTests(ScriptedCase):
    """
    Clients that leave before they are answered.
    """

    def begun(self, on_disconnect: str) -> Wire:
        """
        A run that goes on.
        """
        order = {**RUN, "on_disconnect": on_disconnect, "username": "ann"}
        return self.wire().send(asking("POST", "/run", order))

    def test_kept(self) -> None:
        """
        That they leave is no reason to end anything.
        """
        self.begun("keep").leave()
        self.assertEqual(self.script.cancelled, [])
        self.assertTrue(self.script.watchers[0].wanted())
        self.assertEqual(len(self.work), 1)

    def test_cancelled(self) -> None:
        """
        Unless they have said so: then the run is cancelled in their name, and
        nobody else is asked.
        """
        wire = self.begun("cancel")
        self.assertTrue(self.script.watchers[0].wanted())
        wire.leave()
        self.assertEqual(self.script.cancelled, [("ann", REQID, ())])
        self.assertFalse(self.script.watchers[0].wanted())
        self.script.reports[0].callback(Report((row(),), reqid=REQID))
        self.assertEqual((len(self.work), self.faults), (0, []))

    def test_answered(self) -> None:
        """
        Who has the answer may leave.
        """
        wire = self.begun("cancel")
        wire.transport.room = 0
        self.script.reports[0].callback(Report((row(),), reqid=REQID))
        wire.leave()
        self.assertEqual(self.script.cancelled, [])

    def test_denied(self) -> None:
        """
        What the hook says to that counts; any other failure is in the log.
        """
        wire = self.begun("cancel")
        self.script.refusal = NotAuthorised("no", 1)
        wire.leave()
        self.assertEqual(self.faults, [])
        wire = self.wire()
        self.script.refusal = None
        wire.send(asking("POST", "/run", {**RUN, "on_disconnect": "cancel"}))
        self.script.refusal = NotFound("it is odd")
        wire.leave()
        (fault,) = self.faults
        fault.trap(NotFound)


class CancelTests(ScriptedCase):
    """
    C{POST /runs/REQID/cancel}
    """

    def test_cancelled(self) -> None:
        """
        The answer lists what was ended on each host.
        """
        self.script.endings = (
            CancelRow(
                host="web-1",
                reqid=REQID,
                rtt_ms=7,
                state="cancelled",
                signalled=(Signalled(17, "sleep", "TERM"),),
            ),
            CancelRow(host="web-2", reqid=REQID, error="nobody is there"),
        )
        reply = self.ask("POST", CANCEL)
        self.assertEqual(
            (reply.status, reply.json()),
            (
                200,
                {
                    "ok": True,
                    "reqid": REQID,
                    "results": [
                        {
                            "host": "web-1",
                            "reqid": REQID,
                            "state": "cancelled",
                            "signalled": [
                                {"pid": 17, "command": "sleep", "signal": "TERM"}
                            ],
                            "rtt": "7ms",
                        },
                        {
                            "host": "web-2",
                            "reqid": REQID,
                            "error": "nobody is there",
                            "rtt": "0ms",
                        },
                    ],
                },
            ),
        )
        self.assertEqual(self.script.cancelled, [("", REQID, ())])

    def test_some(self) -> None:
        """
        It can be about some of the hosts, and in somebody's name.
        """
        for hosts in (["web-1"], [], None):
            body = {"hosts": hosts, "username": "ann"}
            self.assertEqual(self.ask("POST", CANCEL, body).status, 200)
        self.assertEqual(
            self.script.cancelled,
            [("ann", REQID, ("web-1",)), ("ann", REQID, ()), ("ann", REQID, ())],
        )

    def test_nobody(self) -> None:
        """
        A run that is not there, and one that the caller may not end, look the
        same, and like what C{/status} says.
        """
        for refusal in (NotFound("x"), NotAuthorised("no", 1)):
            self.script.refusal = refusal
            reply = self.ask("POST", CANCEL)
            self.assertEqual(
                (reply.status, reply.json()["detail"]),
                (404, f"no result for reqid {REQID}"),
            )

    def test_bad(self) -> None:
        """
        What makes no sense is refused, and a web page may end nothing.
        """
        for body in ({"hosts": "web-1"}, {"hosts": [1]}, {"hosts": ["a\0"]}, b"["):
            self.assertEqual(self.ask("POST", CANCEL, body).status, 400)
        page = self.ask("POST", CANCEL, {}, "Sec-Fetch-Site: cross-site")
        self.assertEqual(page.status, 403)
        self.assertEqual(self.ask("GET", CANCEL).fields["allow"], "POST")
        self.assertEqual(self.script.cancelled, [])
