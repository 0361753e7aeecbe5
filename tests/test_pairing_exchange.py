# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.protocol.pairing}: both machines, in every state.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import attrs
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.protocol import codec, limits
from ctrlexec.protocol.http import response_head
from ctrlexec.protocol.messages import (
    REJECTED,
    TIMED_OUT,
    PairApproved,
    PairDecision,
    PairFailed,
    PairPending,
    PairRequest,
)
from ctrlexec.protocol.pairing import (
    AgentSide,
    DispatcherInputs,
    Outcome,
    Unfinished,
    dispatcher_side,
)

NONCE = "0123456789abcdef0123456789abcdef"
REQUEST = PairRequest("agent-one", "PEM\n", NONCE)
APPROVED = PairApproved("CERT", "CA", NONCE, "4f", "hq")
PENDING = PairPending("9f21")
FULL = PairFailed("pairing queue full")


def http(body: bytes, code: int = 200) -> bytes:
    """
    A response as a dispatcher of any kind writes it.
    """
    return response_head(code, len(body), minor=0, keep_alive=False) + body


FIRST = http(codec.encode_pair_first(PENDING))
FAILED = http(codec.encode_pair_first(FULL))


def second(decision: PairDecision = APPROVED) -> bytes:
    """
    The second response.
    """
    return http(codec.encode_pair_decision(decision))


@attrs.define
class Witness:
    """
    Both an applicant and a listener, who remembers what it was told.
    """

    told: list[tuple[str, object]] = attrs.field(factory=list)
    react: Callable[[], None] = lambda: None

    def waiting(self, reqid: str) -> None:
        """
        See L{ctrlexec.protocol.pairing.Applicant}.
        """
        self.told.append(("waiting", reqid))
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


WAITING = ("waiting", "9f21")


class AgentTests(SynchronousTestCase):
    """
    L{AgentSide}
    """

    def setUp(self) -> None:
        self.witness = Witness()
        self.side = AgentSide(REQUEST, "dispatcher.example", self.witness)

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
        The bytes that the original sends too: HTTP/1.0, and a length.
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
            {"hostname": "agent-one", "csr": "PEM\n", "nonce": NONCE},
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


class DispatcherTests(SynchronousTestCase):
    """
    The dispatcher's side.
    """

    inputs: dict[str, Callable[[DispatcherInputs], None]] = {  # noqa: RUF012
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

    def test_queued(self) -> None:
        """
        While the request is queued, the first thing that happens ends it.
        """
        pending = ("say", PENDING)
        known: dict[str, list[tuple[str, object]]] = {
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
        self.assertLessEqual(words.count(PENDING), 1)
        self.assertLessEqual(len(words) - words.count(PENDING), 1)
        self.assertEqual(words[:1].count(PENDING), words.count(PENDING))
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
