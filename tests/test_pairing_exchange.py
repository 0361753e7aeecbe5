# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.protocol.pairing} and
L{ctrlexec.protocol.pairing_dispatcher}: both machines, in every state.

It has over 400 lines: the two sides of one exchange, with and without what ours
add to it.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import attrs
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.certificates import ca_fingerprint, key_der
from ctrlexec.codes import Parties, commitment
from ctrlexec.pki import confirmation_code, parse_certificate, read_csr
from ctrlexec.protocol import codec_pairing, limits
from ctrlexec.protocol.agreement import Awaited, Met, Opening, Terms
from ctrlexec.protocol.http import response_head
from ctrlexec.protocol.messages import (
    REJECTED,
    TIMED_OUT,
    PairApproved,
    PairDecision,
    PairFailed,
    PairOpened,
    PairPending,
    PairRequest,
)
from ctrlexec.protocol.pairing import (
    AgentSide,
    Outcome,
    Unfinished,
    Unprotected,
    Untrusted,
)
from ctrlexec.protocol.pairing_dispatcher import (
    NEVER_REVEALED,
    DispatcherInputs,
    dispatcher_side,
)
from tests.authority import DAY
from tests.dispatching import CSR, NONCE
from tests.wired import AGENT, CA, DISPATCHER, OTHER_CA, TODAY

NONCE_A, NONCE_D = "a1" * 32, "d2" * 32
REQUEST = PairRequest("agent-one", CSR, NONCE, commitment=commitment(NONCE_A))
OPENING = Opening(REQUEST, NONCE_A)
LEGACY = attrs.evolve(OPENING, terms=Terms(legacy=True))
MET = Met(DISPATCHER.cert, TODAY)
APPROVED = PairApproved("CERT", CA.decode(), NONCE, "4f", "hq")
PENDING = PairPending("9f21")
OPENED = PairOpened("9f21", NONCE_D, CA.decode(), DISPATCHER.cert.decode())
FULL = PairFailed("pairing queue full")


def http(body: bytes, code: int = 200) -> bytes:
    """
    A response as a dispatcher of any kind writes it.
    """
    return response_head(code, len(body), minor=0, keep_alive=False) + body


FIRST = http(codec_pairing.encode_pair_first(PENDING))
INTRODUCED = http(codec_pairing.encode_pair_first(OPENED))
FAILED = http(codec_pairing.encode_pair_first(FULL))


def second(decision: PairDecision = APPROVED) -> bytes:
    """
    The second response.
    """
    return http(codec_pairing.encode_pair_decision(decision))


@attrs.define
class Witness:
    """
    Both an applicant and a listener, who remembers what it was told.
    """

    told: list[tuple[str, object]] = attrs.field(factory=list)
    react: Callable[[], None] = lambda: None

    def send(self, data: bytes) -> None:
        """
        See L{ctrlexec.protocol.pairing.Applicant}.
        """
        self.told.append(("send", data))
        self.react()

    def waiting(self, awaited: Awaited) -> None:
        """
        See L{ctrlexec.protocol.pairing.Applicant}.
        """
        self.told.append(("waiting", awaited))
        self.react()

    def ended(self, outcome: Outcome) -> None:
        """
        See L{ctrlexec.protocol.pairing.Applicant}.
        """
        self.told.append(("ended", outcome))
        self.react()

    def say(self, answer: object) -> None:
        """
        See L{ctrlexec.protocol.pairing.Listener}.
        """
        self.told.append(("say", answer))
        self.react()

    def settled(self, decision: PairDecision | None) -> None:
        """
        See L{ctrlexec.protocol.pairing.Listener}.
        """
        self.told.append(("settled", decision))
        self.react()


WAITING = ("waiting", Awaited("9f21", confirmation_code(CSR.encode()), True, ""))
CODE = Parties(
    key_der(read_csr(CSR.encode()).public_key),
    "agent-one",
    key_der(parse_certificate(CA).public_key()),
    key_der(parse_certificate(DISPATCHER.cert).public_key()),
    NONCE_A,
    NONCE_D,
).code
PROTECTED = ("waiting", Awaited("9f21", CODE, False, ca_fingerprint(CA)))


class OldExchangeTests(SynchronousTestCase):
    """
    L{AgentSide}, where the dispatcher speaks the exchange of the original, and
    that will do.
    """

    def setUp(self) -> None:
        self.witness = Witness()
        self.side = AgentSide(LEGACY, "dispatcher.example", MET, self.witness)

    def assertTold(self, *expected: object) -> None:
        """
        The applicant was told this and no more, and nothing that follows is
        told any more once the exchange has ended.
        """
        self.assertEqual(self.witness.told, list(expected))
        self.side.received(FIRST + second())
        self.side.stopped("late")
        self.assertEqual(self.witness.told, list(expected))

    def test_opening(self) -> None:
        """
        The bytes that the original sends too, and two fields that it does not
        know: HTTP/1.0, and a length.
        """
        head, _, body = self.side.opening.partition(b"\r\n\r\n")
        self.assertEqual(
            head.split(b"\r\n"),
            [
                b"POST /pair HTTP/1.0",
                b"Host: dispatcher.example",
                b"Content-Type: application/json",
                b"Content-Length: %d" % len(body),
                b"Connection: close",
            ],
        )
        self.assertEqual(
            json.loads(body),
            {
                "hostname": "agent-one",
                "csr": CSR,
                "nonce": NONCE,
                "pair": 2,
                "commitment": commitment(NONCE_A),
            },
        )

    def test_approved(self) -> None:
        """
        Pending, then approved.
        """
        self.side.received(FIRST)
        self.assertEqual(self.witness.told, [WAITING])
        self.side.received(second())
        self.assertTold(WAITING, ("ended", APPROVED))

    def test_denied(self) -> None:
        """
        Pending, then denied.
        """
        self.side.received(FIRST)
        self.side.received(second(REJECTED))
        self.assertTold(WAITING, ("ended", REJECTED))

    def test_failed(self) -> None:
        """
        Nothing to decide.
        """
        self.side.received(FAILED)
        self.assertTold(("ended", FULL))

    @given(st.lists(st.integers(0, len(FIRST + second())), max_size=6))
    def test_anySplit(self, cuts: list[int]) -> None:
        """
        However the two answers are cut or joined, they are the same two.
        """
        stream = FIRST + second()
        self.setUp()
        ends = [*sorted(cuts), len(stream)]
        for start, end in zip([0, *ends], ends, strict=False):
            self.side.received(stream[start:end])
        self.assertTold(WAITING, ("ended", APPROVED))

    def test_nonce(self) -> None:
        """
        Somebody else's approval, and one without a nonce, are no approval.
        """
        for nonce in ("", NONCE[:-1], NONCE.upper(), "f" * 32):
            self.setUp()
            self.side.received(FIRST + second(attrs.evolve(APPROVED, nonce=nonce)))
            reason = "nonce mismatch in pairing result"
            self.assertTold(WAITING, ("ended", Unfinished(reason)))

    def test_approvedAtOnce(self) -> None:
        """
        An approval that nobody waited for is none, whoever sends it.
        """
        self.side.received(second())
        reason = (
            "the dispatcher's answer makes no sense: "
            "the answer is not a pairing listener's"
        )
        self.assertTold(("ended", Unfinished(reason)))

    def test_pendingTwice(self) -> None:
        """
        The second answer is a decision.
        """
        self.side.received(FIRST + FIRST)
        reason = (
            "the dispatcher's answer makes no sense: "
            "the answer is not a pairing decision"
        )
        self.assertTold(WAITING, ("ended", Unfinished(reason)))

    def test_stopped(self) -> None:
        """
        A connection that is lost before the first or the second answer.
        """
        self.side.stopped("gone")
        self.assertTold(("ended", Unfinished("gone")))
        self.setUp()
        self.side.received(FIRST + second()[:-1])
        self.side.stopped("gone")
        self.assertEqual(self.witness.told, [WAITING, ("ended", Unfinished("gone"))])

    def test_rubbish(self) -> None:
        """
        What is no answer ends the exchange, in words for the person who waits.
        """
        known = {
            b"SSH-2.0-OpenSSH\r\n": "not an HTTP answer",
            http(b"{}", 404): "HTTP 404 Not Found",
            http(b"<html>"): "the answer is not a JSON object",
            http(b"{}"): "the answer is not a pairing listener's",
            b"HTTP/1.0 200 OK\r\nContent-Length: 9999999\r\n\r\n": "request too large",
        }
        for data, reason in known.items():
            self.setUp()
            self.side.received(data)
            reason = f"the dispatcher's answer makes no sense: {reason}"
            self.assertTold(("ended", Unfinished(reason)))

    def test_endless(self) -> None:
        """
        A dispatcher that never stops sending is not listened to for ever.
        """
        self.side.received(FIRST + b"HTTP/1.0 200 OK\r\n\r\n")
        self.side.received(b"x" * (limits.PAIRING_ANSWER_BYTES + 1))
        self.assertEqual(len(self.witness.told), 2)

    @given(st.binary())
    def test_anything(self, data: bytes) -> None:
        """
        Any bytes at all lead to one end.
        """
        self.setUp()
        self.side.received(data)
        self.side.stopped("gone")
        self.assertEqual([what for what, _ in self.witness.told], ["ended"])

    def test_reentrant(self) -> None:
        """
        Who is told may give up at once, and is told its end once.
        """
        self.witness.react = lambda: self.side.stopped("no patience")
        self.side.received(FIRST + second())
        self.assertTold(WAITING, ("ended", Unfinished("no patience")))


class AgentTests(SynchronousTestCase):
    """
    L{AgentSide}, where both are ours.
    """

    def setUp(self) -> None:
        self.start(OPENING)

    def start(self, opening: Opening, met: Met = MET) -> None:
        """
        Begin, with somebody to watch.
        """
        self.witness = Witness()
        self.side = AgentSide(opening, "dispatcher.example", met, self.witness)

    def assertUntrusted(self, *words: str) -> None:
        """
        It ended with these words, and the nonce was not shown.
        """
        ((what, outcome),) = self.witness.told
        assert isinstance(outcome, Untrusted)
        self.assertEqual(what, "ended")
        for word in words:
            self.assertIn(word, outcome.reason)

    def test_approved(self) -> None:
        """
        The agent reveals its nonce once it has the dispatcher's, and not
        before; then it waits with the code of both, and takes the approval.
        """
        self.assertNotIn(NONCE_A.encode(), self.side.opening)
        self.side.received(INTRODUCED)
        ((_, said),) = self.witness.told
        assert isinstance(said, bytes)
        head, _, body = said.partition(b"\r\n\r\n")
        self.assertTrue(head.startswith(b"POST /pair-reveal HTTP/1.0\r\n"))
        self.assertEqual(json.loads(body), {"reqid": "9f21", "nonce_a": NONCE_A})
        self.side.received(FIRST)
        self.assertEqual(self.witness.told[1:], [PROTECTED])
        self.side.received(second())
        self.assertEqual(self.witness.told[2:], [("ended", APPROVED)])

    def test_oldAnswer(self) -> None:
        """
        The answer of the original, or one that somebody has stripped, is not
        enough where nobody said that it is.
        """
        self.side.received(FIRST + second())
        self.assertEqual(self.witness.told, [("ended", Unprotected())])

    def test_oursAnyway(self) -> None:
        """
        Whoever would take the old exchange still gets ours where they can.
        """
        self.start(LEGACY)
        self.side.received(INTRODUCED + FIRST)
        self.assertEqual(self.witness.told[1:], [PROTECTED])

    def test_anotherCertificate(self) -> None:
        """
        The dispatcher is the one at the other end of the connection, and no
        other one that somebody relays.
        """
        self.start(OPENING, Met(AGENT.cert, TODAY))
        self.side.received(INTRODUCED)
        self.assertUntrusted("another certificate than it shows")

    def test_noDispatcher(self) -> None:
        """
        An agent of the same CA does not act as its dispatcher.
        """
        self.start(OPENING, Met(AGENT.cert, TODAY))
        self.introduces(cert=AGENT.cert.decode())
        self.assertUntrusted("not a dispatcher's")

    def test_otherCa(self) -> None:
        """
        Nor does a dispatcher whose certificate is of another CA than it says.
        """
        self.introduces(ca=OTHER_CA.decode())
        self.assertUntrusted("was not signed by its CA")

    def test_notInDate(self) -> None:
        """
        Nor one whose certificate has ended.
        """
        self.start(OPENING, attrs.evolve(MET, now=DISPATCHER.info.not_after + DAY))
        self.side.received(INTRODUCED)
        self.assertUntrusted("not in date")

    def test_pinned(self) -> None:
        """
        With a fingerprint, one CA will do and no other.
        """
        self.start(attrs.evolve(OPENING, terms=Terms(authority=ca_fingerprint(CA))))
        self.side.received(INTRODUCED + FIRST)
        self.assertEqual(self.witness.told[1:], [PROTECTED])
        pin = ca_fingerprint(OTHER_CA)
        self.start(attrs.evolve(OPENING, terms=Terms(authority=pin)))
        self.side.received(INTRODUCED)
        self.assertUntrusted(pin)

    def test_pinnedOld(self) -> None:
        """
        That holds for the approval of the old exchange too.
        """
        pin = ca_fingerprint(OTHER_CA)
        self.start(attrs.evolve(OPENING, terms=Terms(True, pin)))
        self.side.received(FIRST + second())
        _, (_, outcome) = self.witness.told
        self.assertIsInstance(outcome, Untrusted)

    def test_approvalOfAnotherCa(self) -> None:
        """
        The approval carries the CA that the code covers: a swapped one is
        never stored.
        """
        self.side.received(INTRODUCED + FIRST)
        self.side.received(second(attrs.evolve(APPROVED, ca=OTHER_CA.decode())))
        _, outcome = self.witness.told[-1]
        assert isinstance(outcome, Untrusted)
        self.assertIn("the CA is", outcome.reason)

    def test_failed(self) -> None:
        """
        The dispatcher can say no to the commitment, and to the nonce.
        """
        self.side.received(FAILED)
        self.assertEqual(self.witness.told, [("ended", FULL)])
        self.setUp()
        self.side.received(INTRODUCED + FAILED)
        self.assertEqual(self.witness.told[1:], [("ended", FULL)])

    def test_twice(self) -> None:
        """
        A dispatcher introduces itself once, and goes on with the request that
        it has begun with.
        """
        other = http(codec_pairing.encode_pair_first(PairPending("77")))
        for more in (INTRODUCED, other):
            self.setUp()
            self.side.received(INTRODUCED + more)
            _, outcome = self.witness.told[-1]
            self.assertIsInstance(outcome, Unfinished)

    @given(st.binary())
    def test_anything(self, data: bytes) -> None:
        """
        Any bytes in place of the certificates lead to one end.
        """
        self.setUp()
        self.introduces(ca=data.decode("latin-1"))
        self.side.stopped("gone")
        self.assertEqual([what for what, _ in self.witness.told], ["ended"])

    def introduces(self, **changes: str) -> None:
        """
        The dispatcher says something else about itself.
        """
        opened = attrs.evolve(OPENED, **changes)
        self.side.received(http(codec_pairing.encode_pair_first(opened)))


class DispatcherTests(SynchronousTestCase):
    """
    The dispatcher's side.
    """

    inputs: dict[str, Callable[[DispatcherInputs], None]] = {  # noqa: RUF012
        "opened": lambda side: side.opened(OPENED),
        "queued": lambda side: side.queued(PENDING),
        "refused": lambda side: side.refused(FULL),
        "approved": lambda side: side.decided(APPROVED),
        "denied": lambda side: side.decided(REJECTED),
        "out of time": lambda side: side.out_of_time(),
        "gone": lambda side: side.agent_gone(),
    }

    def told(self, *names: str) -> list[tuple[str, object]]:
        """
        What a listener is told when these things happen.
        """
        witness = Witness()
        side = dispatcher_side(witness)
        for name in names:
            self.inputs[name](side)
        return witness.told

    def test_reading(self) -> None:
        """
        While the request is read it can be queued or refused; what else
        happens is answered to nobody.
        """
        self.assertEqual(self.told("queued"), [("say", PENDING)])
        self.assertEqual(self.told("refused"), [("say", FULL)])
        for name in ("approved", "denied", "out of time", "gone"):
            self.assertEqual(self.told(name), [])

    def test_opened(self) -> None:
        """
        While the agent is to reveal its nonce, no decision is of use, and who
        takes too long is told so.
        """
        opened = ("say", OPENED)
        self.assertEqual(self.told("opened"), [opened])
        for name in ("opened", "approved", "denied", "gone"):
            self.assertEqual(self.told("opened", name), [opened])
        self.assertEqual(self.told("opened", "queued"), [opened, ("say", PENDING)])
        self.assertEqual(self.told("opened", "refused"), [opened, ("say", FULL)])
        late = ("say", NEVER_REVEALED)
        self.assertEqual(self.told("opened", "out of time"), [opened, late])

    def test_queued(self) -> None:
        """
        While the request is queued, the first thing that happens ends it.
        """
        pending = ("say", PENDING)
        known: dict[str, list[tuple[str, object]]] = {
            "opened": [],
            "queued": [],
            "refused": [],
            "approved": [("say", APPROVED), ("settled", APPROVED)],
            "denied": [("say", REJECTED), ("settled", REJECTED)],
            "out of time": [("say", TIMED_OUT), ("settled", TIMED_OUT)],
            "gone": [("settled", None)],
        }
        self.assertEqual(known.keys(), self.inputs.keys())
        for name, expected in known.items():
            self.assertEqual(self.told("queued", name), [pending, *expected])

    def test_over(self) -> None:
        """
        After the end nothing is said, whatever happens and however it ended.
        """
        ends = [["refused"], ["gone"], ["out of time"]]
        ends += [
            ["queued", name] for name in ("approved", "denied", "out of time", "gone")
        ]
        for end in ends:
            expected = self.told(*end)
            for name in self.inputs:
                self.assertEqual(self.told(*end, name), expected, (end, name))

    @given(st.lists(st.sampled_from(sorted(inputs))))
    def test_anyHistory(self, names: list[str]) -> None:
        """
        Whatever happens, in whatever order: pending is said at most once and
        first, one last word at most, and what was queued is settled at most
        once.
        """
        told = self.told(*names)
        words = [answer for what, answer in told if what == "say"]
        first = [word for word in words if word in (OPENED, PENDING)]
        self.assertIn(first, ([], [OPENED], [PENDING], [OPENED, PENDING]))
        self.assertLessEqual(len(words) - len(first), 1)
        self.assertEqual(words[: len(first)], first)
        settled = [told for told in told if told[0] == "settled"]
        self.assertLessEqual(len(settled), 1)
        if settled:
            self.assertIn(PENDING, words)

    def test_decidedEarly(self) -> None:
        """
        A decision from before the request is in the queue is another's.
        """
        self.assertEqual(self.told("approved", "queued"), [("say", PENDING)])

    def test_reentrant(self) -> None:
        """
        An agent that goes while it is answered is settled once.
        """
        witness = Witness()
        side = dispatcher_side(witness)
        side.queued(PENDING)
        witness.react = side.agent_gone
        side.decided(APPROVED)
        self.assertEqual(
            witness.told, [("say", PENDING), ("say", APPROVED), ("settled", APPROVED)]
        )
