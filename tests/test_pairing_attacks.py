# SPDX-License-Identifier: AGPL-3.0-only
"""
What an active man in the middle can try during a pairing, played through with a
real relay over real TLS in memory: C{docs/pairing.md}.
"""

from __future__ import annotations

import json

import attrs

from ctrlexec import pki
from ctrlexec.agent.enrolment import Declined, Paired
from ctrlexec.certificates import AgentRole
from ctrlexec.codes import commitment
from ctrlexec.errors import Conflict, CtrlExecError, PkiError, TransportError
from ctrlexec.protocol.agreement import Terms
from ctrlexec.protocol.messages import PairApproved
from tests.authority import OTHER_KEY, data
from tests.relays import ROGUE, BetweenTestCase, Relay, Said
from tests.wired import CA, OTHER_CA, TODAY, credentials


def rogue_approval(asked: Said) -> Said:
    """
    What makes an agent obey somebody else, whatever it was approved for.
    """
    cert = pki.issue(
        pki.read_csr(asked["csr"].encode()),
        ca_cert=OTHER_CA,
        ca_key=OTHER_KEY,
        role=AgentRole("agent-one"),
        common_name="agent-one",
        days=2,
        now=TODAY,
    )
    return {
        "status": "approved",
        "cert": cert.decode(),
        "ca": OTHER_CA.decode(),
        "nonce": asked["nonce"],
        "dispatcher_serial": ROGUE.info.serial,
        "dispatcher_id": "hq",
    }


class SwapTests(BetweenTestCase):
    """
    A relay lets the agent's request through unchanged, and swaps the CA.
    """

    def relay(self, *, introduces: bool) -> Relay:
        """
        @param introduces: whether it also says that it is the dispatcher.
        """
        asked: list[Said] = []

        def ask(path: str, said: Said) -> Said:
            asked.append(said)
            return said

        def answer(said: Said) -> Said:
            if said["status"] == "approved":
                return rogue_approval(asked[0])
            if "nonce_d" in said and introduces:
                mine = {"ca": ROGUE.ca.decode(), "cert": ROGUE.cert.decode()}
                return {**said, **mine}
            return said

        return Relay(ask, answer)

    def test_asItIs(self) -> None:
        """
        The dispatcher's own introduction does not fit the connection that the
        agent has, and the agent shows its nonce to nobody.
        """
        result = self.pairs(self.relay(introduces=False))
        error = self.failureResultOf(result, PkiError).value
        self.assertIn("another certificate than it shows", str(error))
        self.assertEqual(list(self.trust.requests()), [])
        self.assertNothingStored()

    def test_introduced(self) -> None:
        """
        With an introduction of its own both screens show another code, and the
        person at the agent sees it.
        """
        result = self.pairs(self.relay(introduces=True))
        ((awaited, screen),) = self.person.compared
        self.assertEqual(len(screen), 1)
        self.assertNotIn(awaited.code, screen)
        self.assertEqual(self.successResultOf(result), Declined(approved=False))
        self.assertNothingStored()

    def test_approvedUnseen(self) -> None:
        """
        Even an operator who approves without a look gives the relay nothing
        while the person at the agent looks.
        """
        result = self.pairs(self.relay(introduces=True))
        self.approves()
        self.assertEqual(self.successResultOf(result), Declined(approved=False))
        self.assertNothingStored()

    def test_pinned(self) -> None:
        """
        An agent that knows the CA says nothing to the relay at all.
        """
        ca = self.trust.ca_fingerprint()
        result = self.pairs(self.relay(introduces=True), Terms(authority=ca))
        self.failureResultOf(result, PkiError)
        self.assertEqual(list(self.trust.requests()), [])
        self.assertNothingStored()

    def test_pinnedChain(self) -> None:
        """
        Nor does it help to show the right CA, which is no secret, behind a
        certificate that it did not sign.
        """
        real = self.trust.authority.ca_certificate()
        shows = attrs.evolve(ROGUE, ca=real)
        ca = self.trust.ca_fingerprint()
        result = self.pairs(Relay(), Terms(authority=ca), shows=shows)
        error = self.failureResultOf(result, PkiError).value
        self.assertIn("not signed by its CA", str(error))
        self.assertNothingStored()

    def test_oldExchange(self) -> None:
        """
        That the attack is a real one: in the exchange of the original both
        screens agree, and the agent obeys the relay from then on.
        """
        strip = _stripping(self.relay(introduces=True))
        result = self.pairs(strip, Terms(legacy=True))
        ((awaited, screen),) = self.person.compared
        self.assertEqual([awaited.code], screen)
        self.assertTrue(awaited.legacy)
        self.approves(legacy=True)
        self.assertIsInstance(self.successResultOf(result), Paired)
        self.assertEqual(self.agent_settings.ca.read_bytes(), OTHER_CA)


def _stripping(relay: Relay) -> Relay:
    """
    The same, without what an original does not know.
    """
    ask = relay.asks
    new = ("pair", "commitment")
    relay.asks = lambda path, said: {
        name: value for name, value in ask(path, said).items() if name not in new
    }
    return relay


class StrippedTests(BetweenTestCase):
    """
    A relay takes the new fields away, so that both sides seem to be old.
    """

    def test_agent(self) -> None:
        """
        The agent does not go on, and says what it was that it was not offered;
        the dispatcher would not have approved it by a key either.
        """
        result = self.pairs(_stripping(Relay()))
        error = self.failureResultOf(result, CtrlExecError).value
        self.assertIn("knows the old exchange only", str(error))
        self.assertEqual(self.person.compared, [])
        self.assertNothingStored()

    def test_dispatcher(self) -> None:
        """
        An agent that would go on is listed as what it seems to be.
        """
        self.pairs(_stripping(Relay()), Terms(legacy=True))
        (waiting,) = self.trust.requests()
        self.assertTrue(waiting.legacy)
        self.assertRaises(Conflict, self.trust.approve, waiting.id)

    def test_answerOnly(self) -> None:
        """
        Nor is it enough to strip the answer alone.
        """
        new = ("pair", "nonce_d", "ca", "cert")

        def answer(said: Said) -> Said:
            return {name: value for name, value in said.items() if name not in new}

        result = self.pairs(Relay(answers=answer))
        self.failureResultOf(result, CtrlExecError)
        self.assertNothingStored()


class RogueTests(BetweenTestCase):
    """
    Somebody plays the dispatcher, and the real one is never asked.
    """

    def test_approvesItself(self) -> None:
        """
        Its approval is worth nothing while no screen of the real dispatcher
        shows the code.
        """
        rogue = Rogue()
        result = self.pairs(rogue)
        ((awaited, screen),) = self.person.compared
        self.assertFalse(awaited.legacy)
        self.assertEqual(screen, [])
        self.assertEqual(self.successResultOf(result), Declined(approved=False))
        self.assertNothingStored()

    def test_believed(self) -> None:
        """
        That nothing else stands in its way: were there a yes, it would do.
        """
        self.person = attrs.evolve(self.person, screen=AnyCode)
        result = self.pairs(Rogue())
        self.assertIsInstance(self.successResultOf(result), Paired)

    def test_agentAsDispatcher(self) -> None:
        """
        An agent of the real CA, whose certificate is good, is no dispatcher.
        """
        shows = credentials(AgentRole("agent-two"))
        rogue = Rogue(ca=CA.decode(), cert=shows.cert.decode())
        result = self.pairs(rogue, shows=shows)
        error = self.failureResultOf(result, PkiError).value
        self.assertIn("not a dispatcher's", str(error))
        self.assertNothingStored()


class AnyCode(list[str]):
    """
    The screen of somebody who always says yes.
    """

    def __contains__(self, code: object) -> bool:
        return True


class Rogue(Relay):
    """
    A dispatcher that approves whoever asks.
    """

    def __init__(self, ca: str = OTHER_CA.decode(), cert: str = "") -> None:
        super().__init__()
        self._shown = {"ca": ca, "cert": cert or ROGUE.cert.decode()}

    def _asked(self, path: str, said: Said) -> None:
        pending = {"status": "pending", "reqid": "deadbeefdeadbeef"}
        if path == "/pair":
            self._first = said
            opened = {**pending, **self._shown, "pair": 2, "nonce_d": "d2" * 32}
            self.agent.answer(opened)
        else:
            self.agent.answer(pending)
            self.agent.answer(rogue_approval(self._first))


class GroundTests(BetweenTestCase):
    """
    A relay asks with a request of its own that has the same six digits in the
    exchange of the original. It took a second to find.
    """

    def setUp(self) -> None:
        super().setUp()
        self.pair = json.loads(data("colliding-requests.json"))

    def relay(self) -> Relay:
        """
        It commits to a nonce of its own.
        """
        mine = {"csr": self.pair["attacker"], "commitment": commitment("ee" * 32)}

        def ask(path: str, said: Said) -> Said:
            if path == "/pair":
                return {**said, **mine}
            return {**said, "nonce_a": "ee" * 32}

        def answer(said: Said) -> Said:
            if "nonce_d" in said:
                shown = {"ca": ROGUE.ca.decode(), "cert": ROGUE.cert.decode()}
                return {**said, **shown}
            return said

        return Relay(ask, answer)

    def test_collides(self) -> None:
        """
        That they do: two keys, one code.
        """
        for name in ("agent", "attacker"):
            code = pki.confirmation_code(self.pair[name].encode())
            self.assertEqual(code, self.pair["code"])
        agent, attacker = (
            pki.read_csr(self.pair[name].encode()) for name in ("agent", "attacker")
        )
        self.assertNotEqual(agent.public_key, attacker.public_key)

    def test_ground(self) -> None:
        """
        In ours the screens differ.
        """
        application = self.apply(Terms())
        request = attrs.evolve(application.opening.request, csr=self.pair["agent"])
        opening = attrs.evolve(application.opening, request=request)
        application = attrs.evolve(application, opening=opening)
        result = self.pairs(self.relay(), application=application)
        ((awaited, screen),) = self.person.compared
        self.assertEqual(len(screen), 1)
        self.assertNotIn(awaited.code, screen)
        self.assertEqual(self.successResultOf(result), Declined(approved=False))
        self.assertNothingStored()

    def test_copiedCommitment(self) -> None:
        """
        Nor does it help to commit to what the agent has committed to, and to
        show its nonce once the agent has.
        """
        relay = self.relay()
        relay.asks = lambda path, said: (
            {**said, "csr": self.pair["attacker"]} if path == "/pair" else said
        )
        result = self.pairs(relay)
        ((awaited, screen),) = self.person.compared
        self.assertNotIn(awaited.code, screen)
        self.successResultOf(result)
        self.assertNothingStored()


class ReplayTests(BetweenTestCase):
    """
    A relay has an approval of an earlier pairing.
    """

    def replays(self, *, with_nonce: bool) -> Relay:
        """
        It sends that as soon as the agent waits.

        @param with_nonce: whether it puts the agent's own nonce into it.
        """
        asked = self.apply(Terms()).opening.request
        old = rogue_approval({"csr": asked.csr, "nonce": asked.nonce})
        self.person = attrs.evolve(self.person, screen=AnyCode)

        class Replay(Rogue):
            def _asked(self, path: str, said: Said) -> None:
                if path == "/pair":
                    super()._asked(path, said)
                    return
                self.agent.answer({"status": "pending", "reqid": "deadbeefdeadbeef"})
                nonce = {"nonce": self._first["nonce"]} if with_nonce else {}
                self.agent.answer({**old, **nonce})

        return Replay()

    def test_nonce(self) -> None:
        """
        It is not for this request.
        """
        result = self.pairs(self.replays(with_nonce=False))
        error = self.failureResultOf(result, TransportError).value
        self.assertIn("nonce mismatch", str(error))
        self.assertNothingStored()

    def test_key(self) -> None:
        """
        With the right nonce it is not for this key.
        """
        result = self.pairs(self.replays(with_nonce=True))
        error = self.failureResultOf(result, PkiError).value
        self.assertIn("another key", str(error))
        self.assertNothingStored()

    def test_dispatcher(self) -> None:
        """
        Nor does the dispatcher deliver one twice: who asks again has another
        id, whatever is left of the first.
        """
        first = self.connects()
        self.trust.approve(first.reqid)
        self.pass_time(0.5)
        assert isinstance(first.outcome, PairApproved)
        again = self.connects()
        self.assertNotEqual(again.reqid, first.reqid)
        self.pass_time(0.5)
        self.assertIsNone(again.outcome)
