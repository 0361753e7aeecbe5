# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.renewal} and L{ctrlexec.dispatcher.maintenance}:
when agents are renewed, and what is written down about it. It is over 400 lines
for what went wrong, which stands beside what went well.
"""

from __future__ import annotations

from typing import Any

import attrs

from ctrlexec.certificates import AgentRole, read_certificate
from ctrlexec.dispatcher.authority import Authority
from ctrlexec.dispatcher.maintenance import Maintained
from ctrlexec.dispatcher.operations import Dispatcher
from ctrlexec.dispatcher.orders import Selection
from ctrlexec.dispatcher.records import AgentRecord
from ctrlexec.dispatcher.renewal import is_due
from ctrlexec.dispatcher.results import PingRow
from ctrlexec.errors import (
    CtrlExecError,
    NotFound,
    PkiError,
    ProtocolError,
    RequestRejected,
    TransportError,
)
from ctrlexec.pki import KeyType, generate_key, make_csr
from ctrlexec.protocol.messages import PingAnswer, RenewCsr, RenewDone
from ctrlexec.values import from_openssl_time, openssl_time
from tests.authority import DAY, NOW
from tests.operating import ALICE, CLIENT, DispatcherCase, Seen

OLD = "Feb 22 22:32:05 2029 GMT"
SOON = openssl_time(NOW + 100 * DAY)


def row(days: float, **others: Any) -> PingRow:
    """
    An agent whose certificate lasts so long from now on.
    """
    return PingRow(
        host="web-1", reqid="1", expiry=openssl_time(NOW + days * DAY), **others
    )


class DueTests(DispatcherCase):
    """
    L{is_due}
    """

    def assertDue(self, due: bool, ping: PingRow, lasts: int = 100) -> None:
        """
        Whether it is, where certificates last so many days from now on.
        """
        self.assertEqual(is_due(ping, NOW, NOW + lasts * DAY), due, ping)

    def test_half(self) -> None:
        """
        It is where less than half is left.
        """
        self.assertDue(False, row(50))
        self.assertDue(True, row(49.9))
        self.assertDue(True, row(-5))

    def test_asked(self) -> None:
        """
        And where the agent wants it, even if something waits there: ours shows
        what waits.
        """
        self.assertDue(True, row(60, renewal_due=True))
        self.assertDue(True, row(60, renewal_due=True, staged=True))

    def test_staged(self) -> None:
        """
        It is not where one waits for the agent to be restarted.
        """
        self.assertDue(False, row(10, staged=True))

    def test_end(self) -> None:
        """
        Nor where it would gain nothing, because the CA ends: else each ping
        would renew each agent.
        """
        self.assertDue(False, row(10), lasts=10)
        self.assertDue(False, row(10, renewal_due=True), lasts=10)

    def test_unknown(self) -> None:
        """
        Nor where nobody knows, unless the agent does; nor without an answer.
        """
        for expiry in ("unknown", "", "?"):
            self.assertDue(False, attrs.evolve(row(1), expiry=expiry))
            self.assertDue(True, attrs.evolve(row(1, renewal_due=True), expiry=expiry))
        self.assertDue(False, row(1, error="gone"))


class RenewalCase(DispatcherCase):
    """
    A dispatcher that may sign; the certificate of C{web-1} ends soon.
    """

    def setUp(self) -> None:
        super().setUp()
        self.done(self.dispatcher.setup_ca(ALICE))
        self.done(self.dispatcher.setup_identity(ALICE, confirmed=True))
        self.dispatcher = self.signing(self.dispatcher)
        self.agents.pings = {"web-1": PingAnswer("web-1", "0.1.0", SOON)}
        self.written.events.clear()

    def signing(self, dispatcher: Dispatcher) -> Dispatcher:
        """
        The same, in a command line.
        """
        process = attrs.evolve(dispatcher.process, signs=True)
        return attrs.evolve(dispatcher, process=process)

    def certificate(self) -> bytes:
        """
        The certificate that an agent was given.
        """
        ((_, order),) = self.agents.orders
        return order.cert.encode()


class PingTests(RenewalCase):
    """
    A ping renews by the way
    """

    def test_renewed(self) -> None:
        """
        An agent that is due gets a certificate for its own new key, under the
        name that the registry has for it, and the registry learns when it ends.
        """
        rows = {row.host: row for row in self.ping("web-1", "web-2")}
        self.assertEqual(self.agents.renewed, ["web-1"])
        info = read_certificate(self.certificate())
        self.assertEqual(info.role, AgentRole("web-1"))
        self.assertEqual(info.common_name, "web-1")
        expiry = openssl_time(info.not_after)
        self.assertEqual(self.record("web-1").expiry, expiry)
        self.assertEqual((rows["web-1"].expiry, rows["web-2"].expiry), (expiry, OLD))
        self.assertEqual(
            self.written.actions, ["renew", "renew-complete", "ping", "ping"]
        )
        again = is_due(rows["web-1"], NOW, NOW + 825 * DAY)
        self.assertFalse(again)

    def test_renamed(self) -> None:
        """
        One that is called otherwise here keeps the name in its certificate, as
        it could not be renewed otherwise.
        """
        self.register(AgentRecord(hostname="web-1", identity="old-1"))
        self.ping("web-1")
        info = read_certificate(self.certificate())
        self.assertEqual(info.role, AgentRole("old-1"))

    def test_api(self) -> None:
        """
        The API renews nobody, even if it could.
        """
        process = attrs.evolve(self.dispatcher.process, signs=False)
        self.dispatcher = attrs.evolve(self.dispatcher, process=process)
        self.ping("web-1", caller=ALICE)
        self.assertEqual(self.agents.renewed, [])

    def test_noKey(self) -> None:
        """
        Who has no key of the CA pings all the same.
        """
        self.dispatcher.settings.ca_key.unlink()
        (row,) = self.ping("web-1")
        self.assertTrue(row.ok)
        self.assertEqual(self.agents.renewed, [])

    def test_unregistered(self) -> None:
        """
        A host that is in no registry is renewed by nobody: who knows which it
        is.
        """
        text = "unregistered_hosts = connect\n"
        self.dispatcher = self.signing(self.configured(text))
        self.agents.pings = {"db-1": PingAnswer("db-1", "0.1.0", SOON)}
        self.assertTrue(self.ping("db-1")[0].ok)
        self.assertEqual(self.agents.renewed, [])


class FailedTests(RenewalCase):
    """
    A renewal that failed is never recorded as done
    """

    def assertFailed(self, action: str, words: str) -> None:
        """
        The ping is what it was, the registry knows of no new certificate, the
        log and the operator do.
        """
        seen: Seen[PingRow] = Seen()
        selection = Selection(("web-1",))
        report = self.done(self.dispatcher.ping(ALICE, selection, seen))
        (row,) = report.rows
        self.assertEqual((row.ok, row.expiry), (True, SOON))
        self.assertEqual(self.record("web-1").expiry, "")
        (warning,) = report.warnings
        self.assertIn("web-1: its certificate is not renewed", warning)
        failed = [each for each in self.written.events if each.level == 3]
        (event,) = failed
        self.assertEqual(event.action, action)
        self.assertIn(words, event.fields()["ERROR"])

    def test_older(self) -> None:
        """
        An agent of the older line knows no renewal; its ping is good.
        """
        self.agents.requests = {"web-1": ProtocolError("the agent answered 404")}
        self.assertFailed("renew", "404")
        self.assertEqual(self.agents.orders, [])

    def test_refused(self) -> None:
        """
        One that does not take its certificate says so with status 200.
        """
        error = ProtocolError("renewed cert does not verify")
        self.agents.takes = {"web-1": error}
        self.assertFailed("renew-complete", "does not verify")

    def test_lost(self) -> None:
        """
        One that does not answer may have it or not; it is asked again, and who
        revokes the agent revokes that certificate, too.
        """
        self.agents.takes = {"web-1": TransportError("read timeout after 60s")}
        self.assertFailed("renew-complete", "timeout")
        given = {read_certificate(self.certificate()).serial}
        self.assertEqual(self.record("web-1").serials, given)

    def test_revokedMeanwhile(self) -> None:
        """
        An agent that holds its answer back until it is revoked stays so.
        """

        async def renew_complete(*_: Any) -> RenewDone:
            registry = self.dispatcher.stores.registry
            registry.change("web-1", lambda each: attrs.evolve(each, revoked="now"))
            return RenewDone()

        self.patch(type(self.agents), "renew_complete", renew_complete)
        self.ping("web-1")
        self.assertEqual(self.record("web-1").revoked, "now")

    def test_request(self) -> None:
        """
        A request that is none, or a weak one, is not signed.
        """
        for csr in ("", "x", make_csr(generate_key(KeyType.EC), "a").decode() * 2):
            self.written.events.clear()
            self.agents.requests = {"web-1": RenewCsr(csr)}
            self.assertFailed("renew", "request")
        self.assertEqual(self.agents.orders, [])

    def test_fault(self) -> None:
        """
        A fault of ours is told as one, and the host has its answer.
        """

        async def broken(*_: Any) -> RenewCsr:
            raise RuntimeError("odd")

        self.patch(type(self.agents), "renew", broken)
        self.assertFailed("renew", "internal error: RuntimeError('odd')")

    def test_unpaired(self) -> None:
        """
        An agent that is unpaired meanwhile is not brought back by it.
        """
        registry = self.dispatcher.stores.registry

        async def renew_complete(*_: Any) -> RenewDone:
            registry.remove("web-1")
            return RenewDone()

        self.patch(type(self.agents), "renew_complete", renew_complete)
        self.ping("web-1")
        self.assertRaises(NotFound, registry.get, "web-1")


class RenewTests(RenewalCase):
    """
    C{ctrl-exec renew}
    """

    def test_now(self) -> None:
        """
        An operator renews an agent whether or not it is due.
        """
        renewed = self.done(self.dispatcher.renew(ALICE, "web-2"))
        self.assertEqual(renewed.host, "web-2")
        self.assertEqual(self.record("web-2").expiry, renewed.expiry)
        self.assertIsNone(self.agents.since)

    def test_expired(self) -> None:
        """
        One whose certificate has ended proves itself with that, as long as it
        is the last that the registry knows of.
        """
        end = openssl_time(NOW - 5 * DAY)
        self.register(AgentRecord(hostname="web-1", expiry=end))
        self.done(self.dispatcher.renew(ALICE, "web-1", even_expired=True))
        self.assertEqual(self.agents.since, from_openssl_time(end))
        self.assertGreater(from_openssl_time(self.record("web-1").expiry), NOW)

    def test_unknownEnd(self) -> None:
        """
        Where nobody knows which was the last, none will do.
        """
        working = self.dispatcher.renew(ALICE, "web-1", even_expired=True)
        self.failed(working, PkiError)
        self.assertEqual(self.agents.renewed, [])

    def test_stranger(self) -> None:
        """
        A name that is in no registry is not asked.
        """
        self.failed(self.dispatcher.renew(ALICE, "db-1"), NotFound)

    def test_failed(self) -> None:
        """
        What went wrong is told.
        """
        self.agents.requests = {"web-1": RenewCsr("x")}
        self.failed(self.dispatcher.renew(ALICE, "web-1"), RequestRejected)


class MaintainTests(RenewalCase):
    """
    C{ctrl-exec maintain}
    """

    def maintained(self) -> Maintained:
        """
        Look after everything.
        """
        return self.done(self.dispatcher.maintain(ALICE))

    def test_renewed(self) -> None:
        """
        All are pinged, and who is due is renewed; who is off is no failure.
        """
        self.agents.answers = {"web-2": TransportError("gone")}
        done = self.maintained()
        self.assertEqual((done.agents, done.pinged), (2, 1))
        self.assertEqual((done.renewed, done.silent), (("web-1",), ("web-2",)))
        self.assertTrue(done.ok)
        self.assertEqual(self.written.actions[-1], "maintain")

    def test_failed(self) -> None:
        """
        A renewal that failed is one.
        """
        self.agents.requests = {"web-1": ProtocolError("the agent answered 404")}
        done = self.maintained()
        self.assertFalse(done.ok)
        self.assertIn("404", done.failed[0])

    def test_phase(self) -> None:
        """
        What breaks a part of it is told as that part's.
        """

        def refuse(reactor: object) -> Any:
            raise PkiError("no identity")

        self.dispatcher = attrs.evolve(self.dispatcher, agents=refuse)
        done = self.maintained()
        self.assertEqual(done.failed, ("ping: no identity",))
        (event,) = self.written.events
        self.assertEqual(event.fields(), {"PHASE": "ping", "ERROR": "no identity"})

    def test_noKey(self) -> None:
        """
        Who can sign nothing is told so, and who may.
        """
        Authority(self.dispatcher.settings).settings.ca_key.unlink()
        error = self.failed(self.dispatcher.maintain(ALICE), PkiError)
        self.assertIn("root", error.hint)
        self.assertEqual(self.agents.asked, [])

    def test_hook(self) -> None:
        """
        Nothing passes by a hook.
        """
        self.dispatcher = self.configured("auth_hook = /no/such/hook")
        for caller in (ALICE, CLIENT):
            for working in (
                self.dispatcher.maintain(caller),
                self.dispatcher.renew(caller, "web-1"),
            ):
                self.failed(working, CtrlExecError)
        self.assertEqual((self.agents.asked, self.agents.renewed), ([], []))
