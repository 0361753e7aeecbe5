# SPDX-License-Identifier: AGPL-3.0-only
"""
Agents for tests: a directory with their files, callers, and what they log.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import attrs
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from ctrlexec.agent.gate import Gate
from ctrlexec.agent.identity import NewIdentity
from ctrlexec.agent.in_force import InForce
from ctrlexec.agent.policy import Overrides, Policy, load_agent_settings, load_policy
from ctrlexec.agent.renewal import Renewals, ShownIdentity
from ctrlexec.agent.resource import AgentResource
from ctrlexec.agent.run_archive import RunArchive
from ctrlexec.agent.run_store import RunStore
from ctrlexec.agent.run_table import RunTable
from ctrlexec.agent.running import Runs
from ctrlexec.agent.settings import AgentSettings
from ctrlexec.agent.trust import TrustedMap
from ctrlexec.certificates import AgentRole, CertificateInfo, DispatcherRole, Role
from ctrlexec.events import Event
from ctrlexec.hooks import Allowed, HookContext, Verdict
from ctrlexec.interfaces import IAuthoriser, IEventSink
from ctrlexec.protocol.exchange import LongAnswer, Visit
from ctrlexec.protocol.messages import PairApproved
from ctrlexec.protocol.server import Exchange, Peer, Request
from ctrlexec.tls import Credentials
from tests.authority import CA, DAY, KEY, NOW, issued
from tests.fake_scripts import FakeScripts

T = TypeVar("T")
SCRIPT = "#!/bin/sh\nexit 0\n"


@implementer(IEventSink)
@attrs.frozen
class Recorded:
    """
    A log that a test reads.

    @ivar lines: all that was logged.
    """

    lines: list[str] = attrs.field(factory=list)

    def emit(self, event: Event) -> None:
        """
        Write it down.
        """
        self.lines.append(event.line())

    def taken(self) -> list[str]:
        """
        What was logged since the last time.
        """
        lines = self.lines[:]
        self.lines.clear()
        return lines


def in_this_thread(work: Callable[..., T], *args: Any) -> Deferred[T]:
    """
    Do what belongs in a thread here and now.
    """
    return maybeDeferred(work, *args)


@implementer(IAuthoriser)
@attrs.define
class FakeAuthoriser:
    """
    Answers as the test says, and remembers what it was asked.

    @ivar verdict: the answer, or what it comes of later.
    """

    verdict: Verdict | Deferred[Verdict] = attrs.field(factory=Allowed)
    asked: list[HookContext] = attrs.field(factory=list)

    async def ask(self, context: HookContext) -> Verdict:
        """
        Give the answer of the moment.
        """
        self.asked.append(context)
        if isinstance(self.verdict, Deferred):
            return await self.verdict
        return self.verdict


def agent_directory(
    directory: Path, *, conf: str = "", scripts: dict[str, str] | None = None
) -> Path:
    """
    Make the directory of an agent: settings, an allowlist and its scripts.

    @param conf: further lines of C{agent.conf}.
    @param scripts: the source of each script, by name; empty means that the
        allowlist names a file that is not there.
    @return: C{agent.conf}.
    """
    scripts = {"hello": SCRIPT} if scripts is None else scripts
    (directory / "bin").mkdir(parents=True)
    lines = ""
    for name, source in scripts.items():
        path = directory / "bin" / name
        lines += f"{name} = {path}\n"
        if source:
            path.write_text(source)
            path.chmod(0o755)
    (directory / "scripts.conf").write_text(lines)
    file = directory / "agent.conf"
    file.write_text(
        f"name = agent-one\nbind = 127.0.0.1\nlog = {directory}/log\n"
        f"state_dir = {directory}/state\n{conf}"
    )
    return file


def agent_settings(directory: Path, *, conf: str = "") -> AgentSettings:
    """
    The settings of an agent in a directory that is made for it.
    """
    file = agent_directory(directory, conf=conf)
    return load_agent_settings(file, Overrides())[0]


def holder(
    role: Role | None, *, serial: str = "d1", days: float = 1
) -> CertificateInfo:
    """
    What a connection says of the certificate of its peer.
    """
    name = role.name if isinstance(role, AgentRole) else "ctrl-exec"
    return CertificateInfo(name, serial, NOW - DAY, NOW + days * DAY, role, "0" * 64)


def tree(directory: Path) -> dict[str, bytes]:
    """
    All files below a directory.
    """
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


SHOWN = Credentials.from_pem(key=KEY, cert=issued(AgentRole("agent-one")), ca=CA)
HQ = holder(DispatcherRole("hq"))
STRANGER = holder(DispatcherRole("lab"), serial="e1")
SIBLING = holder(AgentRole("agent-two"), serial="a2")
PEER = "192.0.2.1"

NO_MATCH = (403, {"error": "serial mismatch", "status": "forbidden"})


def visit(address: str = PEER) -> Visit:
    """
    A connection that nobody has to end.
    """
    return Visit(address, lambda: None)


@attrs.define(eq=False)
class Told:
    """
    An answer that is made while it is read, by a peer that reads when the test
    says so.

    @ivar awaited: somebody has said that there is more of it.
    @ivar over: all of it was read.
    @ivar aborted: there will be no end of it.
    """

    answer: LongAnswer
    awaited: bool = False
    over: bool = False
    aborted: bool = False

    def ready(self) -> None:
        """
        See L{ctrlexec.protocol.exchange.Streaming}.
        """
        self.awaited = True

    def abort(self) -> None:
        """
        See L{ctrlexec.protocol.exchange.Streaming}.
        """
        self.aborted = True

    def pieces(self) -> list[bytes]:
        """
        Read all that there is.
        """
        found = []
        self.awaited = False
        while not self.over and (piece := self.answer.pull()) != b"":
            if piece is None:
                self.over = True
            else:
                found.append(piece)
        return found

    def events(self) -> list[Any]:
        """
        The same as the events of a stream.
        """
        return [json.loads(line) for line in b"".join(self.pieces()).splitlines()]


@attrs.frozen
class Answers:
    """
    What was answered: statuses and JSON.

    @ivar long: those that are made while they are read.
    """

    given: list[tuple[int, Any]] = attrs.field(factory=list)
    long: list[Told] = attrs.field(factory=list)

    def write(self, code: int, body: bytes, more: bool) -> None:
        """
        Take an answer.
        """
        self.given.append((code, json.loads(body)))

    def begin(self, answer: LongAnswer) -> Told:
        """
        Take one that is long.
        """
        self.long.append(Told(answer))
        return self.long[-1]


class ResourceTestCase(SynchronousTestCase):
    """
    An agent that trusts C{hq} and may run C{hello}.
    """

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        file = agent_directory(self.directory, conf="[tags]\nsite = lab\n")
        policy, _ = load_policy(file, Overrides())
        self.log, self.runner, self.time = Recorded(), FakeScripts(), NOW
        self.authoriser = FakeAuthoriser()
        self.clock, self.timers = Clock(), Clock()
        self.in_force = InForce(
            attrs.evolve(policy, trusted=TrustedMap({"d1": "hq"})),
            self.authoriser,
            self.log,
            Gate(self.log, self.clock.seconds),
            self.now,
            in_this_thread,
        )
        self.agent = self.another_agent()

    def another_agent(self) -> AgentResource:
        """
        An agent that has started, with the files of the one before.
        """
        store = RunStore(self.in_force.policy.settings.async_runs_dir)
        archive = RunArchive(self.in_force, store, RunTable(self.clock.seconds))
        runs = Runs(self.in_force, self.runner, archive, {"PATH": "/bin"})
        shown = ShownIdentity(SHOWN)
        agent = AgentResource(
            self.in_force,
            runs,
            Renewals(shown, self.log, in_this_thread, self.now),
            self.timers,
        )
        runs.start(self.timers)
        return agent

    def now(self) -> datetime:
        """
        The time, as the test has it.
        """
        return self.time

    def evolve(self, **changes: Any) -> Policy:
        """
        Put another policy in force, as a reload does.
        """
        self.in_force.policy = attrs.evolve(self.agent.policy, **changes)
        return self.agent.policy

    def ask(
        self,
        method: str,
        path: str,
        body: object = b"",
        certificate: CertificateInfo | None = HQ,
        *,
        streams: bool = True,
    ) -> tuple[Exchange, Answers]:
        """
        Send a request; what is no bytes is sent as JSON.

        @param streams: whether the peer can read a stream.
        """
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        answers = Answers()
        exchange = Exchange(
            Request(method, path, raw),
            Peer(PEER, certificate),
            answers.write,
            answers.begin,
            streams,
        )
        self.agent.handle(exchange)
        return exchange, answers

    def answer(self, *request: Any, **who: Any) -> tuple[int, Any]:
        """
        Send a request that is answered at once.
        """
        _, answers = self.ask(*request, **who)
        [answer] = answers.given
        return answer


APPROVAL = PairApproved(
    cert=issued(AgentRole("agent-one")).decode(),
    ca=CA.decode(),
    nonce="0" * 32,
    dispatcher_serial="00:D1",
    dispatcher_id="hq",
)


def approved(
    approval: PairApproved, name: str = "agent-one", key: bytes = KEY
) -> NewIdentity:
    """
    What an agent makes of an approval.
    """
    return NewIdentity.approved(approval, name=name, key=key, now=NOW)[0]
