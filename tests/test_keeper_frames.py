# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.agent.keeper.frames} and L{ctrlexec.agent.keeper.orders}.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.agent.keeper.frames import (
    Frames,
    NotAFrame,
    frame,
    packed,
    unpacked,
)
from ctrlexec.agent.keeper.orders import LIMITS, Order

FIELDS = st.lists(st.binary(max_size=50), max_size=8)
TEXTS = st.lists(st.binary(max_size=20), min_size=1, max_size=5)


class FramesTests(SynchronousTestCase):
    """
    L{Frames}, L{frame}, L{packed} and L{unpacked}
    """

    @given(st.lists(FIELDS, max_size=5), st.integers(min_value=1, max_value=40))
    def test_what_is_sent_arrives(self, sent: list[list[bytes]], step: int) -> None:
        """
        Frames arrive as they were sent, in whatever pieces.
        """
        stream = b"".join(frame(*fields) for fields in sent)
        frames, found = Frames(), []
        for at in range(0, len(stream), step):
            frames.feed(stream[at : at + step])
            while (fields := frames.next()) is not None:
                found.append(fields)
        self.assertEqual(found, sent)

    @given(st.binary(max_size=200))
    def test_anything_is_read_or_refused(self, data: bytes) -> None:
        """
        Whatever comes, it is fields or no frame, and nothing worse.
        """
        frames = Frames(100)
        frames.feed(data)
        try:
            while frames.next() is not None:
                pass
            unpacked(data)
        except NotAFrame:
            pass

    def test_too_long(self) -> None:
        """
        A frame that is too long is refused before the rest of it has come.
        """
        frames = Frames(10)
        frames.feed((11).to_bytes(4, "big"))
        self.assertRaises(NotAFrame, frames.next)

    def test_longest(self) -> None:
        """
        One that is as long as it may be is not.
        """
        frames = Frames(10)
        frames.feed(frame(b"123456"))
        self.assertEqual(frames.next(), [b"123456"])

    def test_field_is_cut(self) -> None:
        """
        A field that says that it is longer than what is there is none.
        """
        for data in (b"\0\0\0\2x", b"\0\0\0", b"\xff\xff\xff\xffxx"):
            self.assertRaises(NotAFrame, unpacked, data)


class OrderTests(SynchronousTestCase):
    """
    L{Order}
    """

    def order(self, **changes: bytes) -> list[bytes]:
        """
        @return: the fields of a good order, changed.
        """
        order = Order(directory=b"/run", argv=[b"/bin/x"], env={b"A": b"1"})
        names = "directory argv env stdin stdin_timeout max_output timeout grace"
        names += " limits lock obstacle"
        fields = dict(zip(names.split(), order.fields(), strict=True))
        return list((fields | changes).values())

    @given(
        argv=TEXTS,
        env=st.dictionaries(st.binary(max_size=9), st.binary(max_size=9), max_size=4),
        stdin=st.binary(max_size=99),
        stdin_timeout=st.floats(0, 1e9),
        max_output=st.integers(0, 2**63 - 1),
        timeout=st.none() | st.floats(0, 1e9),
        limits=st.dictionaries(st.sampled_from(LIMITS), st.integers(0, 2**63 - 1)),
        lock=st.binary(max_size=9),
    )
    def test_arrives_as_it_was(self, **given: object) -> None:
        """
        An order is the same on both sides.
        """
        order = Order(directory=b"/run", **given)  # type: ignore[arg-type]
        again = Order.of(unpacked(packed(*order.fields())))
        for name in Order.__slots__:
            self.assertEqual(getattr(again, name), getattr(order, name), name)

    def test_good(self) -> None:
        """
        What the bad ones are made of is good.
        """
        self.assertEqual(Order.of(self.order()).argv, [b"/bin/x"])

    def test_bad(self) -> None:
        """
        An order with something that makes no sense is none.
        """
        bad: list[dict[str, bytes]] = [
            {"directory": b""},
            {"argv": b""},
            {"argv": b"\0\0\0\5x"},
            {"env": packed(b"A")},
            {"stdin_timeout": b"nan"},
            {"stdin_timeout": b"-1"},
            {"stdin_timeout": b"soon"},
            {"max_output": b"-1"},
            {"max_output": b"9" * 30},
            {"max_output": b"1.5"},
            {"timeout": b"inf"},
            {"grace": b""},
            {"limits": packed(b"1")},
            {"limits": packed(b"-1", b"", b"", b"")},
        ]
        for changes in bad:
            with self.assertRaises(ValueError, msg=str(changes)):
                Order.of(self.order(**changes))

    def test_fields_of_something_else(self) -> None:
        """
        So are too few fields, or too many.
        """
        for fields in ([], [b"cancel"], [*self.order(), b""]):
            self.assertRaises(ValueError, Order.of, fields)
