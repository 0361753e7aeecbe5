# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.operations}.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.dispatcher.operations import (
    Caller,
    Dispatcher,
    RunOrder,
    agents_over_tls,
)
from ctrlexec.dispatcher.queue import FilePairingQueue
from ctrlexec.dispatcher.records import AgentRecord
from ctrlexec.dispatcher.registry import FileRegistry
from ctrlexec.dispatcher.results import PingRow, RunRow
from ctrlexec.dispatcher.settings import DispatcherSettings
from ctrlexec.errors import Conflict, CtrlExecError, InvalidValue, PkiError
from ctrlexec.events import Dispatched, Pinged, RunAnswered
from ctrlexec.protocol.messages import (
    PingRequest,
    RunAnswer,
    RunFinished,
    RunRefused,
    RunRequest,
)
from ctrlexec.settings import read_settings
from ctrlexec.values import HostPort, Target
from tests.authority import DAY, NOW
from tests.dispatching import Recorder, request
from tests.fake_agents import FakeAgents

ALICE = Caller("alice", "s3cret")


def settings_in(directory: Path, text: str = "") -> DispatcherSettings:
    """
    Settings of a dispatcher that lives in one directory.
    """
    text = f"ca_dir = ca\nstate_dir = state\ndispatcher_id = ops\n{text}"
    return read_settings(
        DispatcherSettings, text, file="ctrl-exec.conf", base=directory
    )[0]


class DispatcherCase(SynchronousTestCase):
    """
    Has a dispatcher with two agents in its registry.
    """

    def setUp(self) -> None:
        self.home = Path(self.mktemp()).absolute()
        self.home.mkdir()
        self.agents = FakeAgents()
        self.written = Recorder()
        self.clock = Clock()
        self.dispatcher = self.configured()
        self.register(AgentRecord(hostname="web-1", ip="10.0.0.1", lookup_by="ip"))
        self.register(AgentRecord(hostname="web-2", port=8443))

    def configured(self, text: str = "") -> Dispatcher:
        """
        A dispatcher with settings of its own.
        """
        settings = settings_in(self.home, text)
        return Dispatcher(
            settings=settings,
            registry=FileRegistry(settings.registry_dir),
            events=self.written,
            agents=self.connect,
            now=lambda: NOW,
        )

    def connect(self, reactor: IReactorTime) -> FakeAgents:
        """
        What speaks to the agents.
        """
        self.assertIs(reactor, self.clock)
        return self.agents

    def register(self, record: AgentRecord) -> None:
        """
        Add an agent.
        """
        self.dispatcher.registry.put(record)

    def begin(self, *hosts: str, script: str = "backup") -> Deferred[Sequence[RunRow]]:
        """
        Begin a run.
        """
        self.arrived: list[RunRow] = []
        order = RunOrder([HostPort.parse(host) for host in hosts], script, ("a b",))
        return Deferred.fromCoroutine(
            self.dispatcher.run(ALICE, order, self.clock, self.arrived.append)
        )

    def run_on(self, *hosts: str, script: str = "backup") -> dict[str, RunRow]:
        """
        Run a script where no answer is waited for.
        """
        rows = self.successResultOf(self.begin(*hosts, script=script))
        self.assertEqual(rows, self.arrived)
        return {row.host: row for row in rows}

    def ping(self, *hosts: str) -> Sequence[PingRow]:
        """
        Ping hosts.
        """
        parsed = [HostPort.parse(host) for host in hosts]
        working = self.dispatcher.ping(ALICE, parsed, self.clock, lambda row: None)
        return self.successResultOf(Deferred.fromCoroutine(working))


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
        self.run_on("web-1", "web-1:7443", "web-2", "web-1", "x", "x")
        self.assertEqual(self.agents.names, ["web-1", "web-2"])
        self.assertEqual([row.host for row in self.arrived].count("x"), 1)

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
        rows = self.successResultOf(working)
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
        reqid = self.successResultOf(working)[0].reqid
        self.assertEqual(
            self.written.events,
            [
                Dispatched("backup", "web-1,web-2", reqid, "alice"),
                RunAnswered("backup", "web-2", "0ms", reqid, error="lost"),
                RunAnswered("backup", "web-1", "0ms", reqid, exit=3),
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
            order = RunOrder([HostPort("web-1")], "backup", [arg])
            working = self.dispatcher.run(ALICE, order, self.clock, self.fail)
            self.failureResultOf(Deferred.fromCoroutine(working), InvalidValue)
        self.assertEqual(self.agents.asked, [])

    def test_hook(self) -> None:
        """
        A hook that can not be called yet lets nobody through.
        """
        self.dispatcher = self.configured("auth_hook = /etc/ctrl-exec/auth-hook")
        refused = self.failureResultOf(self.begin("web-1"), CtrlExecError)
        self.assertIn("/etc/ctrl-exec/auth-hook", str(refused.value))
        pinging = self.dispatcher.ping(
            ALICE, [HostPort("web-1")], self.clock, self.fail
        )
        self.failureResultOf(Deferred.fromCoroutine(pinging), CtrlExecError)
        self.assertEqual((self.agents.asked, self.written.events), ([], []))


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
        requests = [request for _, request in self.agents.asked]
        self.assertEqual({type(each) for each in requests}, {PingRequest})
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


class TrustTests(DispatcherCase):
    """
    Changes of trust reach the files.
    """

    def setUp(self) -> None:
        super().setUp()
        self.dispatcher.setup_ca(ALICE)
        self.dispatcher.setup_identity(ALICE, confirmed=True)
        self.request = request(hostname="web-3")
        self.queue = FilePairingQueue(self.dispatcher.settings.pairing_dir, 10)
        self.assertTrue(self.queue.add(self.request))

    def test_approve(self) -> None:
        """
        Who is approved is registered as it is to be reached, and the decision
        waits for the listener.
        """
        self.assertEqual(self.dispatcher.list_requests(ALICE), [self.request])
        approval = self.dispatcher.approve(
            ALICE, self.request.id, lookup_by="ip", ip="10.9.9.9", port=7000
        )
        self.assertFalse(approval.replaced)
        record = self.dispatcher.registry.get("web-3")
        self.assertEqual((record.address(), record.port), ("10.9.9.9", 7000))
        self.assertEqual(self.dispatcher.list_requests(ALICE), [])
        self.assertFalse(self.dispatcher.is_delivered(ALICE, self.request.id))
        self.queue.remove(self.request.id)
        self.assertTrue(self.dispatcher.is_delivered(ALICE, self.request.id))
        names = [agent.hostname for agent in self.dispatcher.list_agents()[0]]
        self.assertEqual(names, ["web-1", "web-2", "web-3"])
        self.assertEqual(self.written.actions[-1], "pair-approve")

    def test_deny(self) -> None:
        """
        Who is denied is not registered.
        """
        self.assertEqual(self.dispatcher.deny(ALICE, self.request.id).hostname, "web-3")
        self.assertNotIn("web-3", self.dispatcher.registry.names())
        self.assertRaises(Conflict, self.dispatcher.approve, ALICE, self.request.id)

    def test_identity(self) -> None:
        """
        Agents are at stake when the identity is replaced, so that needs a
        word.
        """
        self.assertEqual(self.dispatcher.agents_at_stake(ALICE), 2)
        with self.assertRaises(Conflict):
            self.dispatcher.setup_identity(ALICE, confirmed=False)

    def test_connects(self) -> None:
        """
        With the identity that was made, agents can be spoken to.
        """
        agents_over_tls(self.dispatcher.settings, NOW, self.clock)

    def test_expired(self) -> None:
        """
        With one that has ended, nobody is asked: each agent could only say
        that the handshake failed.
        """
        with self.assertRaises(PkiError) as caught:
            agents_over_tls(self.dispatcher.settings, NOW + 826 * DAY, self.clock)
        self.assertIn("ended on Jun  7 ", str(caught.exception))
        self.assertIn("setup-ctrl-exec", caught.exception.hint)

    def test_noIdentity(self) -> None:
        """
        Without one, the operator is told what makes it.
        """
        self.dispatcher.settings.cert.unlink()
        with self.assertRaises(PkiError) as caught:
            agents_over_tls(self.dispatcher.settings, NOW, self.clock)
        self.assertIn("ctrl-exec.crt", str(caught.exception))
        self.assertIn("setup-ctrl-exec", caught.exception.hint)
