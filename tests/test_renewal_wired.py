# SPDX-License-Identifier: AGPL-3.0-only
"""
A dispatcher that renews an agent, over real TLS in memory; and one whose
certificate has ended.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.test.iosim import ConnectionCompleter

from ctrlexec.agent.identity import identity
from ctrlexec.certificates import AgentRole, DispatcherRole
from ctrlexec.dispatcher.authority import Authority
from ctrlexec.dispatcher.operations import directly
from ctrlexec.dispatcher.records import AgentRecord
from ctrlexec.dispatcher.registry import FileRegistry
from ctrlexec.dispatcher.renewal import Renewed, Renewing
from ctrlexec.errors import TransportError
from ctrlexec.pki import make_ca
from ctrlexec.protocol.client import AgentClient, Bounds
from ctrlexec.protocol.messages import PingRequest, RenewOrder, RenewRequest
from ctrlexec.tls import (
    Credentials,
    ServerConnections,
    mutual_client,
    mutual_server,
)
from ctrlexec.values import Target, openssl_time
from tests.authority import CA_KEY, DAY, HOUR, OTHER_KEY
from tests.dispatching import Recorder, settings_in
from tests.serving import Caller, ServiceTestCase
from tests.wired import (
    AGENT,
    CA,
    DISPATCHER,
    OTHER_CA,
    TODAY,
    credentials,
    showing,
)
from tests.wires import PONG, TARGET, ClientTestCase, http

AGENT_ONE = Target("agent-one", "127.0.0.1", 7443)
MISMATCH = "certificate or trust mismatch"


class WholeTests(ServiceTestCase):
    """
    Both sides
    """

    def setUp(self) -> None:
        super().setUp()
        settings = settings_in(self.directory / "dispatcher")
        settings.ca_dir.mkdir(parents=True)
        settings.ca.write_bytes(CA)
        settings.ca_key.write_bytes(CA_KEY)
        settings.ca_key.chmod(0o600)
        self.registry = FileRegistry(settings.registry_dir)
        self.registry.put(AgentRecord(hostname="agent-one"))
        self.log = Recorder()
        self.authority = Authority(settings)

    def client(self, shown: Credentials = DISPATCHER) -> AgentClient:
        """
        Somebody who asks the agent.
        """
        return AgentClient(self.reactor, mutual_client(shown), Bounds(10, 60, 100_000))

    def asked(self, asking: Any, connections: int) -> Deferred[Any]:
        """
        Ask, over so many connections.
        """
        asked: Deferred[Any] = Deferred.fromCoroutine(asking)
        for _ in range(connections):
            pump = ConnectionCompleter(self.reactor).succeedOnce()
            assert pump is not None
            pump.flush()
        return asked

    def renewed(self, client: AgentClient) -> Renewed:
        """
        Renew the agent.
        """
        renewing = Renewing(
            client, self.authority, self.registry, self.log, lambda: TODAY, directly
        )
        done: Renewed = self.successResultOf(self.asked(renewing.renew(AGENT_ONE), 2))
        return done

    def test_live(self) -> None:
        """
        New connections meet the new certificate without a restart, of a new
        key; the registry, the agent's files and what it says agree.
        """
        self.started()
        before = self.connected(Caller())
        renewed = self.renewed(self.client())
        held = identity(self.service.resource.policy.settings).load()
        self.assertEqual(held.info.serial, renewed.serial)
        self.assertNotEqual(held.key, AGENT.key)
        asked = self.client().ping(AGENT_ONE, PingRequest("1"))
        answer = self.successResultOf(self.asked(asked, 1))
        self.assertEqual(answer.expiry, openssl_time(held.info.not_after))
        self.assertEqual(self.registry.get("agent-one").expiry, answer.expiry)
        self.assertIn(b"200 OK", before.received)
        self.assertEqual(self.log.actions, ["renew", "renew-complete"])

    def test_expired(self) -> None:
        """
        An agent whose certificate has ended starts, speaks to nobody, and is
        renewed by whoever takes what it had last.
        """
        expired = credentials(AgentRole("agent-one"), now=TODAY - 4 * DAY)
        self.put(expired.key, expired.cert, expired.ca)
        self.started()
        ping = self.client().ping(AGENT_ONE, PingRequest("1"))
        why = self.failureResultOf(self.asked(ping, 1), TransportError)
        self.assertIn(MISMATCH, str(why.value))
        self.renewed(self.client().even_expired(expired.info.not_after))
        ping = self.client().ping(AGENT_ONE, PingRequest("1"))
        self.successResultOf(self.asked(ping, 1))

    def test_agent(self) -> None:
        """
        Another agent of the CA renews nobody, as it can with the original.
        """
        self.started()
        stolen = self.client(credentials(AgentRole("agent-two")))
        for asking in (
            stolen.renew(AGENT_ONE, RenewRequest()),
            stolen.renew_complete(AGENT_ONE, RenewOrder(AGENT.cert.decode())),
        ):
            why = self.failureResultOf(self.asked(asking, 1))
            self.assertIn("serial mismatch", str(why.value))


class ExpiredTests(ClientTestCase):
    """
    L{AgentClient.even_expired}
    """

    def setUp(self) -> None:
        super().setUp()
        self.expired = credentials(AgentRole("agent-one"), now=TODAY - 4 * DAY)
        self.end = self.expired.info.not_after

    def asked(self, shown: Credentials, since: Any = None) -> Deferred[Any]:
        """
        Ask whoever shows this.
        """
        self.setUp()
        self.network.scripted(http(PONG), tls=mutual_server(shown))
        client = self.network.client().even_expired(since or self.end)
        return self.network.ask(client.ping(TARGET, PingRequest("9f")))

    def assertRefused(self, asked: Deferred[Any], words: str) -> None:
        """
        There is no answer, for this reason.
        """
        why = self.failureResultOf(asked, TransportError)
        self.assertIn(words, str(why.value))
        self.network.flush()

    def test_lastOne(self) -> None:
        """
        The certificate that ended last will do, and one that has not ended.
        """
        for shown in (self.expired, AGENT):
            self.successResultOf(self.asked(shown))

    def test_earlier(self) -> None:
        """
        One that ended before it will not: the agent gave that key up, and
        somebody has found it.
        """
        asked = self.asked(self.expired, self.end + HOUR)
        self.assertRefused(asked, "the agent has had a later one")

    def test_other(self) -> None:
        """
        All else is asked of it as ever: its name, its CA, and that it has
        begun.
        """
        past = TODAY - 4 * DAY
        for role in (AgentRole("agent-two"), DispatcherRole("agent-one")):
            asked = self.asked(credentials(role, now=past))
            self.assertRefused(asked, "certificate is")
        foreign = credentials(
            AgentRole("agent-one"), now=past, ca=OTHER_CA, ca_key=OTHER_KEY
        )
        self.assertRefused(self.asked(foreign), MISMATCH)
        early = credentials(AgentRole("agent-one"), now=TODAY + DAY)
        self.assertRefused(self.asked(early), MISMATCH)

    def test_authority(self) -> None:
        """
        A CA that has ended is not one that an agent's certificate is of.
        """
        past = TODAY - 5 * DAY
        ended = make_ca(CA_KEY, common_name="test CA", days=1, now=past)
        roles = AgentRole("agent-one"), DispatcherRole("hq")
        agent, ours = (credentials(role, now=past, ca=ended) for role in roles)
        tls = ServerConnections(showing(agent.cert, agent.key))
        self.network.scripted(http(PONG), tls=tls)
        client = self.network.client(tls=mutual_client(ours)).even_expired(past)
        asked = self.network.ask(client.ping(TARGET, PingRequest("9f")))
        self.assertRefused(asked, MISMATCH)

    def test_onlyThere(self) -> None:
        """
        Who does not ask for it meets nobody whose certificate has ended.
        """
        self.network.scripted(http(PONG), tls=mutual_server(self.expired))
        self.assertRefused(self.ping(), MISMATCH)
