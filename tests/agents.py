# SPDX-License-Identifier: AGPL-3.0-only
"""
Agents for tests: a directory with their files, callers, and what they log.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import attrs
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from ctrlexec.agent.allowlist import Script
from ctrlexec.agent.gate import Gate
from ctrlexec.agent.identity import NewIdentity
from ctrlexec.agent.policy import Overrides, Policy, load_agent_settings, load_policy
from ctrlexec.agent.renewal import Renewals, ShownIdentity
from ctrlexec.agent.resource import AgentResource
from ctrlexec.agent.runs import RunOutcome
from ctrlexec.agent.settings import AgentSettings
from ctrlexec.agent.trust import TrustedMap
from ctrlexec.certificates import AgentRole, CertificateInfo, DispatcherRole, Role
from ctrlexec.events import Event
from ctrlexec.hooks import Allowed, HookContext, Verdict
from ctrlexec.interfaces import IAuthoriser, IEventSink, IScriptRunner
from ctrlexec.protocol.exchange import Visit
from ctrlexec.protocol.messages import PairApproved
from ctrlexec.protocol.server import Exchange, Peer, Request
from ctrlexec.tls import Credentials
from tests.authority import CA, DAY, KEY, NOW, issued

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


@attrs.frozen
class Started:
    """
    A script that was started, and ends when the test says so.
    """

    script: Script
    context: bytes
    args: tuple[str, ...]
    ended: Deferred[RunOutcome]


@implementer(IScriptRunner)
@attrs.frozen
class FakeRunner:
    """
    Starts nothing, and remembers it.
    """

    started: list[Started] = attrs.field(factory=list)

    async def run(
        self, script: Script, context: bytes, args: Sequence[str]
    ) -> RunOutcome:
        """
        Wait for the test to end it.
        """
        run = Started(script, context, tuple(args), Deferred())
        self.started.append(run)
        return await run.ended


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


@attrs.frozen
class Answers:
    """
    What was answered: statuses and JSON.
    """

    given: list[tuple[int, Any]] = attrs.field(factory=list)

    def write(self, code: int, body: bytes, more: bool) -> None:
        """
        Take an answer.
        """
        self.given.append((code, json.loads(body)))


class ResourceTestCase(SynchronousTestCase):
    """
    An agent that trusts C{hq} and may run C{hello}.
    """

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        file = agent_directory(self.directory, conf="[tags]\nsite = lab\n")
        policy, _ = load_policy(file, Overrides())
        self.log, self.runner, self.time = Recorded(), FakeRunner(), NOW
        self.authoriser = FakeAuthoriser()
        self.clock = Clock()
        self.agent = AgentResource(
            attrs.evolve(policy, trusted=TrustedMap({"d1": "hq"})),
            self.runner,
            self.log,
            Renewals(ShownIdentity(SHOWN), self.log, in_this_thread, self.now),
            self.now,
            Gate(self.log, self.clock.seconds),
            in_thread=in_this_thread,
            authoriser=self.authoriser,
        )

    def now(self) -> datetime:
        """
        The time, as the test has it.
        """
        return self.time

    def evolve(self, **changes: Any) -> Policy:
        """
        Put another policy in force, as a reload does.
        """
        self.agent.policy = attrs.evolve(self.agent.policy, **changes)
        return self.agent.policy

    def ask(
        self,
        method: str,
        path: str,
        body: object = b"",
        certificate: CertificateInfo | None = HQ,
    ) -> tuple[Exchange, Answers]:
        """
        Send a request; what is no bytes is sent as JSON.
        """
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        answers = Answers()
        exchange = Exchange(
            Request(method, path, raw), Peer(PEER, certificate), answers.write
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
