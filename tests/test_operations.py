# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.operations} and of L{ctrlexec.dispatcher.asking}:
runs, pings and discoveries.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred

from ctrlexec.dispatcher.orders import RunOrder, Selection
from ctrlexec.errors import (
    CtrlExecError,
    InvalidValue,
    NotAuthorised,
    Unconfirmed,
    UnknownAgents,
)
from ctrlexec.events import (
    Discovered,
    Dispatched,
    LockAcquired,
    LockReleased,
    Pinged,
    RunAnswered,
)
from ctrlexec.protocol.messages import (
    Capabilities,
    PingRequest,
    RunAnswer,
    RunFinished,
    RunRefused,
    RunRequest,
    ScriptInfo,
)
from ctrlexec.values import Target
from tests.operating import ALICE, CLIENT, DispatcherCase, Seen


class RunTests(DispatcherCase):
    """
    Scripts are run on the hosts that were named.
    """

    def test_asked(self) -> None:
        """
        Each agent is asked where the registry says, all under one request id.
        """
        rows = self.run_on("web-1", "web-2")
        targets, requests = zip(*self.agents.asked, strict=True)
        self.assertEqual(
            targets,
            (Target("web-1", "10.0.0.1", 7443), Target("web-2", "web-2", 8443)),
        )
        reqid = rows["web-1"].reqid
        self.assertRegex(reqid, "^[0-9a-f]{16}$")
        expected = RunRequest("backup", ("a b",), reqid, "alice", "s3cret")
        self.assertEqual(set(requests), {expected})
        self.assertTrue(all(row.ok for row in rows.values()))

    def test_port(self) -> None:
        """
        A port that was typed goes before that of the record.
        """
        self.run_on("web-2:9000")
        self.assertEqual(self.agents.asked[0][0], Target("web-2", "web-2", 9000))

    def test_unknown(self) -> None:
        """
        A name that nobody has is a row, with a way out; the others run.
        """
        rows = self.run_on("nobody", "web-1")
        self.assertEqual(
            (rows["nobody"].exit, rows["nobody"].error), (-1, "unknown agent")
        )
        self.assertIn("list-agents", rows["nobody"].hint)
        self.assertTrue(rows["web-1"].ok)
        self.assertEqual(self.agents.names, ["web-1"])

    def test_brokenRecord(self) -> None:
        """
        So is a record that is cut in half; it is named.
        """
        path = self.home / "state/agents/web-2.json"
        path.write_bytes(path.read_bytes()[:20])
        rows = self.run_on("web-1", "web-2")
        self.assertIn("web-2.json", rows["web-2"].error or "")
        self.assertEqual(rows["web-2"].hint, "")
        self.assertTrue(rows["web-1"].ok)

    def test_unregistered(self) -> None:
        """
        As in the older line, if that is wanted, a name is a host.
        """
        self.dispatcher = self.configured("unregistered_hosts = connect")
        self.run_on("nobody:8000")
        target = Target("nobody", "nobody", 8000, registered=False)
        self.assertEqual(self.agents.asked[0][0], target)

    def test_once(self) -> None:
        """
        A host that is named twice is asked once, however it is spelled.
        """
        report = self.successResultOf(
            self.begin("web-1", "web-1:7443", "web-2", "web-1", "x", "x")
        )
        self.assertEqual(self.agents.names, ["web-1", "web-2"])
        self.assertEqual([row.host for row in report.rows].count("x"), 1)
        said = " ".join(report.warnings)
        self.assertIn("web-1 was named more than once", said)
        self.assertIn("x was named more than once", said)

    def test_outcomes(self) -> None:
        """
        What agents say and what they do not say are rows.
        """
        self.agents.answers = {
            "web-1": RunFinished("backup", 3, "", "oh", ""),
            "web-2": RunRefused("script not permitted"),
        }
        rows = self.run_on("web-1", "web-2")
        self.assertEqual((rows["web-1"].exit, rows["web-1"].stderr), (3, "oh"))
        self.assertEqual(rows["web-2"].error, "script not permitted")

    def test_parallel(self) -> None:
        """
        No more are asked at once than the settings allow.
        """
        slow: Deferred[RunAnswer] = Deferred()
        self.agents.answers = {"web-1": slow}
        self.dispatcher = self.configured("max_parallel = 1")
        working = self.begin("web-1", "web-2")
        self.assertEqual(self.agents.names, ["web-1"])
        self.clock.advance(2)
        slow.callback(RunRefused("no"))
        rows = self.successResultOf(working).rows
        self.assertEqual([row.rtt_ms for row in rows], [2000, 0])

    def test_events(self) -> None:
        """
        The order is written down before anybody is asked, then each answer;
        the token never.
        """
        slow: Deferred[RunAnswer] = Deferred()
        self.agents.answers = {"web-1": slow, "web-2": CtrlExecError("lost")}
        working = self.begin("web-1", "web-2")
        slow.callback(RunFinished("backup", 3, "", "", ""))
        reqid = self.successResultOf(working).reqid
        self.assertEqual(
            self.written.events,
            [
                LockAcquired("web-1,web-2", "backup", reqid),
                Dispatched("backup", "web-1,web-2", reqid, "alice"),
                LockReleased("web-2", "backup", reqid),
                RunAnswered(
                    "backup", "web-2", "0ms", reqid, error="lost", state="unknown"
                ),
                LockReleased("web-1", "backup", reqid),
                RunAnswered("backup", "web-1", "0ms", reqid, exit=3, state="failed"),
            ],
        )
        self.assertNotIn("s3cret", repr(self.written.events) + repr(ALICE))

    def test_badScript(self) -> None:
        """
        A name that no script can have is asked of nobody.
        """
        self.failureResultOf(self.begin("web-1", script="../sh"), InvalidValue)
        self.assertEqual((self.agents.asked, self.written.events), ([], []))

    def test_badArguments(self) -> None:
        """
        Neither is an argument that JSON or an argv can not carry.
        """
        for arg in ("\udcff", "a\0b"):
            order = RunOrder(
                selection=Selection(("web-1",)), script="backup", args=(arg,)
            )
            self.failed(self.dispatcher.run(ALICE, order, Seen()), InvalidValue)
        self.assertEqual(self.agents.asked, [])

    def test_gone(self) -> None:
        """
        When whoever asked has left, nobody else is asked.
        """
        slow: Deferred[RunAnswer] = Deferred()
        self.agents.answers = {"web-1": slow}
        self.dispatcher = self.configured("max_parallel = 1")
        working = self.begin("web-1", "web-2")
        self.seen.wants = False
        slow.callback(RunFinished("backup", 0, "", "", ""))
        self.assertEqual(len(self.successResultOf(working).rows), 1)
        self.assertEqual(self.seen.hosts, ["web-1"])

    def test_manyHosts(self) -> None:
        """
        More hosts than the settings allow are refused before anything else.
        """
        self.dispatcher = self.configured("max_hosts = 1")
        error = self.failureResultOf(self.begin("web-1", "web-2"), InvalidValue).value
        self.assertIn("1 at most", str(error))
        self.assertEqual(self.agents.asked, [])
        looking = self.dispatcher.select(ALICE, Selection(("web-*",)))
        self.failed(looking, InvalidValue)

    def test_unconfirmed(self) -> None:
        """
        More hosts than somebody would type by hand need a yes.
        """
        self.dispatcher = self.configured("confirm_hosts = 1")
        error = self.failureResultOf(self.begin("web-*"), Unconfirmed).value
        self.assertEqual((error.hosts, self.agents.asked), (2, []))
        self.assertEqual(len(self.run_on("web-*", confirmed=True)), 2)

    def test_confirmedUpTo(self) -> None:
        """
        As many as the settings say do not.
        """
        self.dispatcher = self.configured("confirm_hosts = 2")
        self.assertEqual(len(self.run_on("web-1", "web-2")), 2)

    def test_strict(self) -> None:
        """
        The API refuses an order that names strangers, all of it.
        """
        working = self.begin("x", "web-1", "y", caller=CLIENT)
        self.failureResultOf(working, NotAuthorised)
        self.dispatcher = self.configured("api_auth_default = allow")
        working = self.begin("x", "web-1", "y", caller=CLIENT)
        error = self.failureResultOf(working, UnknownAgents).value
        self.assertEqual((error.names, self.agents.asked), (("x", "y"), []))


class PingTests(DispatcherCase):
    """
    Agents are asked whether they are there.
    """

    def test_answers(self) -> None:
        """
        Each has a request id of its own; errors and unknown names are rows.
        """
        self.agents.answers = {"web-2": CtrlExecError("lost", hint="search")}
        rows = {row.host: row for row in self.ping("web-1", "web-2", "nobody", "web-1")}
        self.assertEqual(len(rows), 3)
        self.assertTrue(rows["web-1"].ok)
        self.assertEqual((rows["web-2"].error, rows["web-2"].hint), ("lost", "search"))
        self.assertEqual(rows["nobody"].error, "unknown agent")
        requests = [
            each for _, each in self.agents.asked if isinstance(each, PingRequest)
        ]
        self.assertEqual(len({each.reqid for each in requests}), 2)

    def test_events(self) -> None:
        """
        Each answer is written down.
        """
        self.agents.answers = {"web-2": CtrlExecError("lost")}
        one, two = self.ping("web-1", "web-2")
        self.assertEqual(
            self.written.events,
            [
                Pinged("web-1", "0ms", one.reqid, result="ok"),
                Pinged("web-2", "0ms", two.reqid, error="lost"),
            ],
        )


class DiscoveryTests(DispatcherCase):
    """
    Agents are asked what they offer, and the registry remembers it.
    """

    def test_all(self) -> None:
        """
        Where nobody is named everybody is asked.
        """
        rows = self.discover().rows
        self.assertEqual([row.host for row in rows], ["web-1", "web-2"])
        self.assertEqual(
            self.written.events,
            [
                Discovered("web-1", "0ms", scripts=1),
                Discovered("web-2", "0ms", scripts=1),
            ],
        )

    def test_noted(self) -> None:
        """
        Tags and the names of scripts are noted; the rest of the record stays.
        """
        offered = Capabilities(
            "web-2", "0.1.0", (ScriptInfo("restart", "/r", False),), {"env": "prod"}
        )
        self.agents.offers = {"web-2": offered}
        self.discover("web-2")
        record = self.record("web-2")
        self.assertEqual((record.tags, record.scripts), ({"env": "prod"}, ("restart",)))
        self.assertEqual(record.port, 8443)
        agents, _ = self.done(self.dispatcher.list_agents(ALICE, {"env": "prod"}))
        self.assertEqual([agent.hostname for agent in agents], ["web-2"])

    def test_idempotent(self) -> None:
        """
        It is noted which scripts may be run any number of times: nothing but
        true in the sidecar says so.
        """
        said = {"yes": True, "no": False, "odd": "true", "one": 1}
        scripts = tuple(
            ScriptInfo(name, f"/{name}", True, schema={"idempotent": value})
            for name, value in said.items()
        )
        bare = ScriptInfo("bare", "/bare", True)
        offered = Capabilities("web-2", "0.1.0", (*scripts, bare))
        self.agents.offers = {"web-2": offered}
        self.discover("web-2")
        self.assertEqual(self.record("web-2").idempotent, ("yes",))

    def test_silent(self) -> None:
        """
        Who does not answer keeps what was noted before.
        """
        self.discover("web-1")
        self.agents.answers = {"web-1": CtrlExecError("lost")}
        (row,) = self.discover("web-1").rows
        self.assertEqual(row.error, "lost")
        self.assertEqual(self.record("web-1").tags, {"role": "web"})

    def test_brokenRecord(self) -> None:
        """
        A record that is cut in half is reported by its name, the others work.
        """
        path = self.home / "state/agents/web-2.json"
        path.write_bytes(path.read_bytes()[:20])
        rows = {row.host: row for row in self.discover().rows}
        self.assertIn("web-2.json", rows["web-2"].error or "")
        self.assertTrue(rows["web-1"].ok)
