# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of the life of a run as a program sees it: through the API, a dispatcher and
its store, with agents that say what a test wants.
"""

from __future__ import annotations

from typing import Any

import attrs
from twisted.internet.defer import Deferred

from ctrlexec.protocol.messages import (
    RunAccepted,
    RunAnswer,
    RunFinished,
    RunRefused,
    RunRequest,
)
from ctrlexec.protocol.run_messages import (
    CancelDone,
    FollowRequest,
    Output,
    RunResult,
    Signalled,
    StateChanged,
    StreamEnded,
)
from tests.apis import ApiCase, Reply, Wire, asking
from tests.scripted_dispatchers import Stream

RUN = {"hosts": ["web-1"], "script": "backup"}
LATER = {**RUN, "async": True}
KEY = "Idempotency-Key: 8e03978e"


class LifeCase(ApiCase):
    """
    An API in front of C{web-1} and C{web-2}.
    """

    most = 10

    def submitted(self, *hosts: str) -> str:
        """
        @return: the id of a run that nobody waits for.
        """
        self.agents.answers = {host: RunAccepted("backup", "") for host in hosts}
        reply = self.ask("POST", "/run", {**LATER, "hosts": [*hosts]})
        self.assertEqual(reply.status, 202)
        return str(reply.json()["reqid"])

    def follow(self, reqid: str) -> Stream:
        """
        A client that follows a run.
        """
        stream = Stream(self.wire().send(asking("GET", f"/runs/{reqid}/events")))
        self.assertEqual(stream.head()[0], "HTTP/1.1 200 OK")
        return stream

    @property
    def requests(self) -> list[RunRequest]:
        """
        What agents were asked to run.
        """
        asked = [request for _, request in self.agents.asked]
        return [each for each in asked if isinstance(each, RunRequest)]


class AsynchronousTests(LifeCase):
    """
    Runs that nobody waits for.
    """

    def status(self, reqid: str) -> Any:
        """
        What is known of a run.
        """
        return self.ask("GET", f"/status/{reqid}").json()

    def test_members(self) -> None:
        """
        What an order says gets as far as the agent.
        """
        self.agents.answers = {"web-1": RunAccepted("backup", "")}
        order = {**LATER, "timeout": 30, "on_disconnect": "keep"}
        self.assertEqual(self.ask("POST", "/run", order).status, 202)
        (request,) = self.requests
        self.assertEqual(
            (request.asynchronous, request.timeout, request.on_disconnect),
            (True, 30, "keep"),
        )

    def test_status(self) -> None:
        """
        Their status is what the agents say now, host by host, until all is
        known.
        """
        reqid = self.submitted("web-1", "web-2")
        running = RunResult(reqid, "backup", "running")
        done = RunResult(reqid, "backup", "done", exit=3, stdout="a\n")
        self.agents.results = {"web-1": [running, done], "web-2": [done]}
        record = self.status(reqid)
        self.assertEqual(
            (record["mode"], record["complete"], record["pending"]),
            ("async", False, ["web-1"]),
        )
        self.assertEqual(
            record["hosts"],
            {
                "web-1": {"status": "running"},
                "web-2": {
                    "status": "done",
                    "exit": 3,
                    "stdout": "a\n",
                    "stderr": "",
                    "state": "failed",
                },
            },
        )
        self.assertNotIn("submitter", record)
        record = self.status(reqid)
        self.assertEqual(
            (record["complete"], record["hosts"]["web-1"]["status"]), (True, "done")
        )
        asked = len(self.agents.traced)
        self.assertEqual(self.status(reqid), record)
        self.assertEqual(len(self.agents.traced), asked)

    def test_events(self) -> None:
        """
        What they write can be heard, from any number of hosts, until they end.
        """
        reqid = self.submitted("web-1", "web-2")
        gate: Deferred[None] = Deferred()
        self.agents.follows = {
            "web-1": [
                [
                    StateChanged(0.0, "running"),
                    Output(0.1, "stdout", "one\n", 4),
                    gate,
                    Output(9.0, "stderr", "oh\n", 3),
                    StreamEnded(9.1, "backup", reqid, 0, "done", "", 4, 3),
                ]
            ],
            "web-2": [[StreamEnded(1.0, "backup", reqid, 143, "cancelled", "no")]],
        }
        stream = self.follow(reqid)
        first = [(each.name, each.data["host"]) for each in stream.events()]
        self.assertEqual(
            sorted(first),
            [("result", "web-2"), ("state", "web-1"), ("stdout", "web-1")],
        )
        gate.callback(None)
        stderr, result, done = stream.events()
        self.assertEqual((stderr.name, stderr.data["end"]), ("stderr", 3))
        self.assertEqual((result.data["state"], result.data["exit"]), ("ok", 0))
        self.assertEqual(done.name, "done")

    def test_resumed(self) -> None:
        """
        Whoever was cut off has the agents go on from there.
        """
        reqid = self.submitted("web-1", "web-2")
        self.agents.follows = {
            "web-1": [[Output(0.1, "stdout", "one\n", 4), Deferred()], [Deferred()]],
            "web-2": [[StreamEnded(1.0, "backup", reqid, 0)]],
        }
        stream = self.follow(reqid)
        last = stream.events()[-1].mark
        stream.wire.leave()
        self.assertEqual(len(self.streams), 0)
        line = f"Last-Event-ID: {last}"
        self.wire().send(asking("GET", f"/runs/{reqid}/events", None, line))
        self.assertEqual(
            self.agents.followed[2:], [("web-1", FollowRequest(reqid, 4, 0))]
        )

    def test_ended(self) -> None:
        """
        A run that is over is told from its record; its agent need not be there.
        """
        self.agents.answers = {"web-1": RunFinished("backup", 7, "a\n", "b\n", "")}
        reqid = self.ask("POST", "/run", RUN).json()["reqid"]
        found = self.follow(reqid).events()
        self.assertEqual(
            [(each.name, each.data.get(each.name)) for each in found],
            [("stdout", "a\n"), ("stderr", "b\n"), ("result", None), ("done", None)],
        )
        self.assertEqual((found[2].data["exit"], found[2].data["state"]), (7, "failed"))
        self.assertNotIn("stdout", found[2].data)
        self.assertEqual(self.agents.followed, [])


class CancelTests(LifeCase):
    """
    Runs that are cancelled.
    """

    def test_cancelled(self) -> None:
        """
        The agents end it, and tell what that took.
        """
        reqid = self.submitted("web-1", "web-2")
        ended = CancelDone(reqid, "cancelled", (Signalled(7, "sleep", "KILL"),))
        self.agents.ends = {"web-1": ended}
        reply = self.ask("POST", f"/runs/{reqid}/cancel", {"hosts": ["web-1"]})
        (result,) = reply.json()["results"]
        self.assertEqual(
            (result["state"], result["signalled"]),
            ("cancelled", [{"pid": 7, "command": "sleep", "signal": "KILL"}]),
        )
        self.assertEqual(self.agents.ended, [("web-1", reqid)])
        foreign = self.ask("POST", f"/runs/{reqid}/cancel", {"hosts": ["db-1"]})
        self.assertEqual(foreign.status, 404)

    def test_clientGone(self) -> None:
        """
        A client that has said so takes its run along: where it was asked for it
        is ended, and nobody else is asked.
        """
        self.api.dispatcher = self.made("max_parallel = 1\napi_auth_default = allow\n")
        waiting: Deferred[RunAnswer] = Deferred()
        self.agents.answers = {"web-1": waiting}
        order = {**RUN, "hosts": ["web-1", "web-2"], "on_disconnect": "cancel"}
        self.wire().send(asking("POST", "/run", order)).leave()
        reqid = self.requests[0].reqid
        self.assertEqual(self.agents.ended, [("web-1", reqid)])
        end = RunFinished("backup", 143, "", "", reqid, "cancelled", "cancelled")
        waiting.callback(end)
        self.assertEqual(len(self.requests), 1)
        results = self.ask("GET", f"/status/{reqid}").json()["results"]
        self.assertEqual(
            [(each["host"], each["state"]) for each in results],
            [("web-1", "cancelled"), ("web-2", "not started")],
        )
        self.assertEqual((len(self.work), self.faults), (0, []))


class KeyTests(LifeCase):
    """
    C{Idempotency-Key}
    """

    def again(self, body: object = RUN, *lines: str) -> Reply:
        """
        The same order again.
        """
        return self.ask("POST", "/run", body, *(lines or (KEY,)))

    def test_again(self) -> None:
        """
        An order that is sent again gets the answer of the first, also from an
        API that was started since.
        """
        first = self.again()
        self.assertEqual(self.again().json()["results"], first.json()["results"])
        self.api.dispatcher = self.made(self.settings)
        self.assertEqual(self.again().json()["reqid"], first.json()["reqid"])
        self.assertEqual(len(self.requests), 1)

    def test_another(self) -> None:
        """
        Another key, another caller, or none at all is another run.
        """
        self.again()
        self.again(RUN, "Idempotency-Key: other")
        self.again({**RUN, "username": "ann"})
        self.again(RUN, KEY, "Authorization: Bearer s3cret")
        self.again(RUN, "X-None: 1")
        self.assertEqual(len(self.requests), 5)

    def test_changed(self) -> None:
        """
        The same key with another order is refused; nothing is started.
        """
        self.again()
        for more in ({"args": ["x"]}, {"timeout": 3}, {"hosts": ["web-2"]}):
            reply = self.again({**RUN, **more})
            self.assertEqual(reply.status, 422)
        self.assertEqual(len(self.requests), 1)

    def test_atOnce(self) -> None:
        """
        Two at the same time are one run, and both get its answer.
        """
        waiting: Deferred[RunAnswer] = Deferred()
        self.agents.answers = {"web-1": waiting}
        wires: list[Wire] = [
            self.wire().send(asking("POST", "/run", RUN, KEY)) for _ in range(3)
        ]
        self.assertEqual(len(self.requests), 1)
        wires[0].leave()
        waiting.callback(RunFinished("backup", 0, "done", "", ""))
        self.reactor.advance(5)
        for wire in wires[1:]:
            (result,) = wire.reply().json()["results"]
            self.assertEqual((result["stdout"], result["state"]), ("done", "ok"))
        self.assertEqual(len(self.requests), 1)

    def test_asynchronous(self) -> None:
        """
        One that nobody waits for is accepted again, and not started again.
        """
        self.agents.answers = {"web-1": RunAccepted("backup", "")}
        first, second = self.again(LATER), self.again(LATER)
        self.assertEqual((first.status, second.status), (202, 202))
        self.assertEqual(first.json()["reqid"], second.json()["reqid"])
        (result,) = second.json()["results"]
        self.assertEqual(result["status"], "accepted")
        self.assertEqual(len(self.requests), 1)

    def test_refused(self) -> None:
        """
        An order that came to nothing leaves its key to the next.
        """
        reply = self.again({**RUN, "hosts": ["db-1"]})
        self.assertEqual(reply.status, 404)
        self.assertEqual(self.again().status, 200)


class RollingTests(LifeCase):
    """
    Orders that go over their hosts in lots.
    """

    def test_stopped(self) -> None:
        """
        Where the canary fails nobody else is asked, and the answer says so.
        """
        self.agents.answers = {"web-1": RunRefused("script not permitted")}
        order = {**RUN, "hosts": ["web-1", "web-2"], "canary": 1}
        fields = self.ask("POST", "/run", order).json()
        self.assertIs(fields["stopped"], True)
        self.assertEqual(
            [each["state"] for each in fields["results"]], ["denied", "not started"]
        )
        self.assertEqual(len(self.requests), 1)

    def test_pause(self) -> None:
        """
        Between two lots is a pause; the answer comes at the end.
        """
        order = {**RUN, "hosts": ["web-1", "web-2"], "batch": "50%", "batch_wait": 3}
        wire = self.wire().send(asking("POST", "/run", order))
        self.assertEqual((len(self.requests), wire.replies()), (1, []))
        for _ in range(31):
            self.reactor.advance(0.1)
        fields = wire.reply().json()
        self.assertEqual([each["state"] for each in fields["results"]], ["ok", "ok"])
        self.assertNotIn("stopped", fields)


class ReloadedTests(LifeCase):
    """
    Settings that are read again meanwhile.
    """

    def test_found(self) -> None:
        """
        An order that was begun before is ended all the same.
        """
        waiting: Deferred[RunAnswer] = Deferred()
        self.agents.answers = {"web-1": waiting}
        self.wire().send(asking("POST", "/run", RUN))
        reqid = self.requests[0].reqid
        fresh = self.made(self.settings)
        live = self.dispatcher.process.live
        process = attrs.evolve(fresh.process, live=live)
        self.api.dispatcher = attrs.evolve(fresh, process=process)
        reply = self.ask("POST", f"/runs/{reqid}/cancel")
        self.assertEqual(reply.json()["results"][0]["state"], "cancelled")
        waiting.callback(RunRefused("enough"))
