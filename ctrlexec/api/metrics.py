# SPDX-License-Identifier: AGPL-3.0-only
"""
What Prometheus is told: counters, which the events of the log drive, and gauges,
which are looked up when somebody asks.

No label tells who asked for what: there are no user names and no request ids.
Nor can a caller make labels: a script is named once it has run somewhere.
"""

from __future__ import annotations

import heapq
import re
from collections import Counter as Tally
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import attrs
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from zope.interface import implementer

from ctrlexec import __version__
from ctrlexec.certificates import read_certificate
from ctrlexec.dispatcher.records import AgentRecord
from ctrlexec.errors import InvalidValue, PkiError
from ctrlexec.events import (
    ApiOverloaded,
    ApiRequested,
    Authorised,
    Event,
    NotAuthorised,
    Pinged,
    RunAnswered,
    RunBusy,
    RunNotSubmitted,
    RunSettled,
    RunSubmitted,
)
from ctrlexec.interfaces import IEventSink, IRegistry
from ctrlexec.values import from_openssl_time

CONTENT_TYPE = CONTENT_TYPE_LATEST
#: How many scripts have a name here; the rest are one.
SCRIPTS = 200
#: The certificates of how many agents are told of one by one: those that end
#: first.
CERTIFICATES = 1000
OTHER = "other"

#: From a script that does nothing to one that the dispatcher has given up on.
_BUCKETS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 300.0)
_RTT = re.compile(r"([0-9]{1,15})ms")


@attrs.frozen(kw_only=True)
class Live:
    """
    What is going on.

    @ivar requests: how many are worked on.
    @ivar orders: how many runs are carried out, whoever waits for them.
    @ivar streams: how many runs are followed for clients.
    """

    requests: int
    orders: int
    streams: int


class Metrics:
    """
    The counters of a process.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._scripts: set[str] = set()
        self._runs = Counter(
            "ctrl_exec_runs",
            "Scripts that agents were asked to run, one a host.",
            ["script", "outcome"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "ctrl_exec_run_seconds",
            "How long agents took to answer to that.",
            ["script"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._pings = Counter(
            "ctrl_exec_pings",
            "Agents that were pinged.",
            ["outcome"],
            registry=self.registry,
        )
        self._decisions = Counter(
            "ctrl_exec_auth_decisions",
            "What the auth hook, or the lack of one, has said.",
            ["action", "result"],
            registry=self.registry,
        )
        self._requests = Counter(
            "ctrl_exec_api_requests",
            "Requests to the API that are over.",
            ["status"],
            registry=self.registry,
        )
        build = Gauge(
            "ctrl_exec_build_info", "What runs.", ["version"], registry=self.registry
        )
        build.labels(__version__).set(1)
        self._overloads = Counter(
            "ctrl_exec_api_overloads",
            "Requests and connections that were one too many.",
            registry=self.registry,
        )

    def count(self, event: Event) -> None:
        """
        Something has happened.
        """
        match event:
            case RunAnswered(script=script, exit=status, rtt=rtt, state=state):
                name = self._named(script, known=status is not None)
                self._runs.labels(name, state or _outcome(status)).inc()
                self._seconds.labels(name).observe(_seconds(rtt))
            case RunSubmitted(script=script, status=outcome):
                self._runs.labels(self._named(script, known=True), outcome).inc()
            case RunBusy(script=script, status=outcome):
                self._runs.labels(self._named(script, known=True), outcome).inc()
            case RunSettled(script=script, state=outcome):
                self._runs.labels(self._named(script, known=True), outcome).inc()
            case RunNotSubmitted(script=script, state=outcome):
                self._runs.labels(self._named(script, known=False), outcome).inc()
            case Pinged(error=error):
                self._pings.labels("error" if error else "ok").inc()
            case Authorised(authaction=action) | NotAuthorised(authaction=action):
                self._decisions.labels(action, event.result).inc()
            case ApiRequested(status=status):
                self._requests.labels(str(status)).inc()
            case ApiOverloaded():
                self._overloads.inc()

    def exposition(self, registry: IRegistry, cert: Path, live: Live) -> bytes:
        """
        All of it, in Prometheus' text format. It reads the registry, so it may
        block.

        @param cert: the dispatcher's own certificate.
        """
        gauges = _Gauges((*_agents(registry), _own_expiry(cert), *_in_progress(live)))
        return generate_latest(self.registry) + generate_latest(gauges)

    def _named(self, script: str, *, known: bool) -> str:
        if known and len(self._scripts) < SCRIPTS:
            self._scripts.add(script)
        return script if script in self._scripts else OTHER


@implementer(IEventSink)
@attrs.frozen
class Counting:
    """
    Counts what is logged.
    """

    sink: IEventSink
    metrics: Metrics

    def emit(self, event: Event) -> None:
        """
        See L{IEventSink.emit}.
        """
        self.metrics.count(event)
        self.sink.emit(event)


def _outcome(status: int | None) -> str:
    """
    Where nobody says it in a word.
    """
    if status is None:
        return "error"
    return "failed" if status else "ok"


def _seconds(rtt: str) -> float:
    found = _RTT.fullmatch(rtt)
    return int(found[1]) / 1000 if found else 0.0


# --- looked up -----------------------------------------------------------


@attrs.frozen
class _Gauges:
    families: Sequence[GaugeMetricFamily]

    def collect(self) -> Iterator[GaugeMetricFamily]:
        yield from self.families


def _in_progress(live: Live) -> Iterator[GaugeMetricFamily]:
    for name, words, count in (
        ("api_requests", "Requests under way.", live.requests),
        ("api_streams", "Clients that follow a run.", live.streams),
        ("orders", "Runs that are waited for, on all of their hosts.", live.orders),
    ):
        yield GaugeMetricFamily(f"ctrl_exec_{name}_in_progress", words, value=count)


def _agents(registry: IRegistry) -> Iterator[GaugeMetricFamily]:
    records, unreadable = registry.records()
    agents = GaugeMetricFamily(
        "ctrl_exec_agents",
        "Paired agents, by what they know of our serial.",
        labels=["state"],
    )
    states = Tally(record.serial_status for record in records)
    states["unreadable"] += len(unreadable)
    for state, count in sorted(states.items()):
        agents.add_metric([state], count)
    yield agents
    theirs = GaugeMetricFamily(
        "ctrl_exec_agent_certificate_expiry_timestamp_seconds",
        f"When agents' certificates end; the {CERTIFICATES} that do so first.",
        labels=["agent"],
    )
    for ends, agent in heapq.nsmallest(CERTIFICATES, _ends(records)):
        theirs.add_metric([agent], ends)
    yield theirs


def _own_expiry(cert: Path) -> GaugeMetricFamily:
    own = GaugeMetricFamily(
        "ctrl_exec_certificate_expiry_timestamp_seconds",
        "When the dispatcher's own certificate ends.",
    )
    # Where it can not be read there is no sample: nobody knows.
    with suppress(OSError, PkiError):
        info = read_certificate(cert.read_bytes())
        own.add_metric([], info.not_after.timestamp())
    return own


def _ends(records: Sequence[AgentRecord]) -> Iterator[tuple[float, str]]:
    for record in records:
        try:
            yield from_openssl_time(record.expiry).timestamp(), record.hostname
        except InvalidValue:
            continue
