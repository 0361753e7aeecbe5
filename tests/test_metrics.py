# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of what Prometheus is told: L{ctrlexec.api.metrics}.
"""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.defer import Deferred
from zope.interface.verify import verifyObject

from ctrlexec import __version__
from ctrlexec.api.metrics import CERTIFICATES, OTHER, SCRIPTS, Counting
from ctrlexec.dispatcher.accounts import answered
from ctrlexec.dispatcher.records import AgentRecord
from ctrlexec.dispatcher.results import Outcome, RunRow
from ctrlexec.errors import TransportError
from ctrlexec.events import (
    ApiOverloaded,
    Authorised,
    Event,
    NotAuthorised,
    RunAnswered,
    RunBusy,
    RunNotSubmitted,
    RunSettled,
    RunSubmitted,
)
from ctrlexec.interfaces import IEventSink
from ctrlexec.pki import DispatcherRole
from ctrlexec.protocol.messages import RunAnswer, RunRefused
from ctrlexec.values import openssl_time
from tests.apis import ApiCase, asking
from tests.authority import DAY, NOW, issued
from tests.dispatching import Recorder

RUN = {"hosts": ["web-1", "web-2"], "script": "backup", "username": "ann"}


class MetricsTests(ApiCase):
    """
    C{GET /metrics}
    """

    def values(self, name: str) -> dict[str, float]:
        """
        The samples of a name, by their labels.
        """
        text = self.ask("GET", "/metrics").body.decode()
        return {
            ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name
        }

    def emit(self, event: Event) -> None:
        """
        Something happens.
        """
        self.dispatcher.events.emit(event)

    def test_runs(self) -> None:
        """
        Runs are counted by script and outcome, and timed.
        """
        self.agents.answers = {"web-2": TransportError("no such luck")}
        for _ in range(2):
            self.ask("POST", "/run", RUN)
        self.emit(RunAnswered("backup", "web-1", "2500ms", "r", exit=7))
        self.assertEqual(
            self.values("ctrl_exec_runs_total"),
            {
                "outcome=ok,script=backup": 2.0,
                "outcome=unknown,script=backup": 2.0,
                "outcome=failed,script=backup": 1.0,
            },
        )
        self.assertEqual(
            self.values("ctrl_exec_run_seconds_sum"), {"script=backup": 2.5}
        )
        self.assertEqual(
            self.values("ctrl_exec_run_seconds_bucket")["le=1.0,script=backup"], 4.0
        )

    def test_outcomes(self) -> None:
        """
        Each outcome has its word, those of runs included that nobody waits for.
        """
        for outcome in Outcome:
            row = RunRow(host="web-1", script="a", reqid="r", outcome=outcome, exit=1)
            self.emit(answered(row))
        for event in (
            RunSubmitted("b", "web-1", "1ms", "r"),
            RunBusy("b", "web-1", "1ms", "r", "already running"),
            RunNotSubmitted("b", "web-1", "1ms", "r", "nobody", "unreachable"),
        ):
            self.emit(event)
        counted = self.values("ctrl_exec_runs_total")
        expected = {f"outcome={each.value},script=a" for each in Outcome}
        for word in ("accepted", "busy", "unreachable"):
            expected.add(f"outcome={word},script=b")
        self.assertEqual(set(counted), expected)
        self.assertEqual({*counted.values()}, {1.0})
        self.emit(RunSettled("b", "web-1", "failed", "r"))
        counted = self.values("ctrl_exec_runs_total")
        self.assertEqual(counted["outcome=failed,script=b"], 1.0)

    def test_inProgress(self) -> None:
        """
        What goes on is told: orders, and clients that follow a run.
        """
        waiting: Deferred[RunAnswer] = Deferred()
        self.agents.answers = {"web-1": waiting}
        self.wire().send(asking("POST", "/run", RUN))

        async def follow() -> None:
            await Deferred()

        for _ in range(2):
            self.streams.begin(follow, None).addErrback(lambda failure: None)
        self.assertEqual(self.values("ctrl_exec_orders_in_progress"), {"": 1.0})
        self.assertEqual(self.values("ctrl_exec_api_streams_in_progress"), {"": 2.0})
        waiting.callback(RunRefused("enough"))
        self.streams.end()
        self.assertEqual(self.values("ctrl_exec_orders_in_progress"), {"": 0.0})
        self.assertEqual(self.values("ctrl_exec_api_streams_in_progress"), {"": 0.0})

    def test_names(self) -> None:
        """
        A script that no host has is no label, nor is one too many.
        """
        self.agents.answers = {"web-1": RunRefused("script not permitted")}
        for number in range(9):
            order = {"hosts": ["web-1"], "script": f"guess-{number}"}
            self.ask("POST", "/run", order)
        self.assertEqual(
            self.values("ctrl_exec_runs_total"), {f"outcome=denied,script={OTHER}": 9.0}
        )
        for number in range(SCRIPTS + 5):
            self.emit(RunAnswered(f"s{number}", "web-1", "1ms", "r", exit=0))
        counted = self.values("ctrl_exec_runs_total")
        self.assertEqual(len(counted), SCRIPTS + 2)
        self.assertEqual(counted[f"outcome=ok,script={OTHER}"], 5.0)

    def test_nobody(self) -> None:
        """
        Nothing in it tells who asked, or by which id.
        """
        reqid = self.ask("POST", "/run", RUN).json()["reqid"]
        self.ask("GET", f"/status/{reqid}")
        text = self.ask("GET", "/metrics").body.decode()
        for secret in ("ann", reqid, "192.0.2.9"):
            self.assertNotIn(secret, text)

    def test_decisions(self) -> None:
        """
        What the hook says is counted by what it was asked.
        """
        self.emit(Authorised("run", "ann", "192.0.2.9"))
        self.emit(NotAuthorised("api", "ann", "192.0.2.9", reason="denied"))
        self.assertEqual(
            self.values("ctrl_exec_auth_decisions_total"),
            {"action=run,result=pass": 1.0, "action=api,result=deny": 1.0},
        )

    def test_requests(self) -> None:
        """
        Requests are counted by status, those under way and those too many.
        """
        self.ask("GET", "/health")
        self.ask("GET", "/nowhere")
        self.emit(ApiOverloaded("192.0.2.9", 64))
        self.assertEqual(
            self.values("ctrl_exec_api_requests_total"),
            {"status=200": 1.0, "status=404": 1.0},
        )
        self.assertEqual(self.values("ctrl_exec_api_overloads_total"), {"": 1.0})
        self.assertEqual(self.values("ctrl_exec_api_requests_in_progress"), {"": 1.0})

    def test_pings(self) -> None:
        """
        Pings are counted by what came of them.
        """
        self.agents.answers = {"web-2": TransportError("no such luck")}
        self.ask("POST", "/ping", RUN)
        self.assertEqual(
            self.values("ctrl_exec_pings_total"),
            {"outcome=ok": 1.0, "outcome=error": 1.0},
        )

    def test_agents(self) -> None:
        """
        Agents are counted by state, the unreadable ones among them.
        """
        registry = self.dispatcher.stores.registry
        registry.put(AgentRecord("web-3", serial_status="current"))
        (self.dispatcher.settings.registry_dir / "web-4.json").write_text("{")
        self.assertEqual(
            self.values("ctrl_exec_agents"),
            {"state=unknown": 2.0, "state=current": 1.0, "state=unreadable": 1.0},
        )

    def test_certificates(self) -> None:
        """
        When certificates end is told, as far as it is known; of many agents,
        only of those whose end comes first.
        """
        own = "ctrl_exec_certificate_expiry_timestamp_seconds"
        self.assertEqual(self.values(own), {})
        cert = self.dispatcher.settings.cert
        cert.parent.mkdir()
        cert.write_bytes(issued(DispatcherRole("ops"), days=10))
        self.assertEqual(self.values(own), {"": (NOW + 10 * DAY).timestamp()})
        registry = self.dispatcher.stores.registry
        registry.put(AgentRecord("odd", expiry="some day"))
        for number in range(CERTIFICATES + 1):
            ends = openssl_time(NOW + number * DAY)
            registry.put(AgentRecord(f"a{number}", expiry=ends))
        theirs = self.values("ctrl_exec_agent_certificate_expiry_timestamp_seconds")
        self.assertEqual(len(theirs), CERTIFICATES)
        self.assertEqual(theirs["agent=a0"], NOW.timestamp())
        self.assertNotIn(f"agent=a{CERTIFICATES}", theirs)

    def test_build(self) -> None:
        """
        The version is there.
        """
        self.assertEqual(
            self.values("ctrl_exec_build_info"), {f"version={__version__}": 1.0}
        )

    def test_sink(self) -> None:
        """
        What is counted is logged as well.
        """
        recorder = Recorder()
        sink = Counting(recorder, self.metrics)
        verifyObject(IEventSink, sink)
        sink.emit(ApiOverloaded("192.0.2.9", 64))
        self.assertEqual(recorder.actions, ["api-overload"])
