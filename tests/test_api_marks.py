# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of the ids of server-sent events: L{ctrlexec.api.marks}.
"""

from __future__ import annotations

import re
import string
from base64 import urlsafe_b64decode, urlsafe_b64encode

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.api.definitions import BadRequest
from ctrlexec.api.marks import MOST_CHARACTERS, Mark, Progress
from ctrlexec.dispatcher.orders import Seen

REQID = "0123456789abcdef"
HOSTS = [f"web-{number}" for number in range(30)]

steps = st.lists(
    st.tuples(
        st.sampled_from(HOSTS),
        st.sampled_from(("stdout", "stderr", "end")),
        st.integers(0, 2**53 - 1),
    )
)


def resumed(progress: Progress, hosts: list[str] = HOSTS) -> Progress:
    """
    What another API makes of an id.
    """
    return Progress(REQID, hosts, Mark.read(progress.spelled(), REQID))


class MarkTests(SynchronousTestCase):
    """
    L{Progress} and L{Mark}
    """

    @given(steps)
    def test_resumed(self, told: list[tuple[str, str, int]]) -> None:
        """
        Whatever somebody has heard, the id says so: to whomever, and whatever
        order the hosts are in there.
        """
        progress = Progress(REQID, HOSTS, Mark())
        expected: dict[str, dict[str, int]] = {}
        ended: set[str] = set()
        for host, what, end in told:
            if what == "end":
                progress.end(host)
                ended.add(host)
            elif host not in ended:
                progress.heard(host, what, end)
                expected.setdefault(host, {})[what] = end
        found = resumed(progress, HOSTS[::-1])
        seen = {host: Seen(**ends) for host, ends in expected.items()}
        for host in ended:
            seen.pop(host, None)
        self.assertEqual(found.seen, seen)
        self.assertEqual({each for each in HOSTS if found.has_ended(each)}, ended)
        self.assertEqual(found.spelled(), resumed(found).spelled())

    def harmless(self, text: str) -> None:
        """
        It is an id, or is refused.
        """
        try:
            mark = Mark.read(text, REQID)
        except BadRequest as refused:
            self.assertIn("Last-Event-ID", str(refused))
        else:
            self.assertIsInstance(Progress(REQID, HOSTS, mark).spelled(), str)

    @given(st.text(string.ascii_letters + string.digits + "-_", max_size=60))
    def test_anything(self, text: str) -> None:
        """
        Whatever looks like an id is one, or is refused.
        """
        self.harmless(text)

    @given(st.binary(max_size=40))
    def test_forged(self, data: bytes) -> None:
        """
        So is what begins as one of ours does, and goes on in any way.
        """
        genuine = urlsafe_b64decode(Progress(REQID, HOSTS, Mark()).spelled() + "==")
        self.harmless(urlsafe_b64encode(genuine[:5] + data).decode().rstrip("="))

    def refused(self, text: str, reqid: str = REQID) -> None:
        """
        It is no id.
        """
        self.assertRaises(BadRequest, Mark.read, text, reqid)

    def test_another(self) -> None:
        """
        The id of another run is none of this one, nor is any other text.
        """
        text = Progress(REQID, HOSTS, Mark()).spelled()
        Mark.read(text, REQID)
        self.refused(text, "fedcba9876543210")
        for bad in ("", "a", "=", "ä", text + "!", text + "\n", text[:-2], "x" * 9000):
            self.refused(bad)

    def test_done(self) -> None:
        """
        The last id says that there is nothing else.
        """
        text = Progress(REQID, HOSTS, Mark()).done()
        self.assertTrue(Mark.read(text, REQID).is_done)
        self.refused(text + "AA")

    def test_short(self) -> None:
        """
        An id is short: of one host some characters, of ten thousand that have
        ended about one for six of them.
        """
        progress = Progress(REQID, ["web-1"], Mark())
        progress.heard("web-1", "stdout", 100_000)
        self.assertLess(len(progress.spelled()), 20)
        many = [f"web-{number}" for number in range(10_000)]
        progress = Progress(REQID, many, Mark())
        for host in many:
            progress.end(host)
        self.assertLess(len(progress.spelled()), 1_700)
        self.assertEqual(resumed(progress, many).left, ())

    def test_bounded(self) -> None:
        """
        However many hosts are in the middle of their output, it fits into a
        header; those that do not fit are told from their beginning.
        """
        many = [f"web-{number}" for number in range(10_000)]
        progress = Progress(REQID, many, Mark())
        for host in many:
            progress.heard(host, "stdout", 5_000_000)
        text = progress.spelled()
        self.assertLessEqual(len(text), MOST_CHARACTERS)
        self.assertTrue(re.fullmatch("[A-Za-z0-9_-]+", text))
        found = resumed(progress, many).seen
        self.assertGreater(len(found), 500)
        self.assertLess(len(found), 10_000)
        self.assertEqual({*found.values()}, {Seen(5_000_000, 0)})

    def test_left(self) -> None:
        """
        Who has some results need only ask about the rest; who has none, or all,
        asks about the run.
        """
        progress = Progress(REQID, ["b", "a", "b"], Mark())
        self.assertEqual(progress.left, ())
        progress.end("a")
        self.assertEqual(progress.left, ("b",))
        progress.end("b")
        self.assertEqual(progress.left, ())

    def test_strangers(self) -> None:
        """
        A host that is not the run's leaves no trace, nor does an offset that
        nobody can have.
        """
        progress = Progress(REQID, HOSTS, Mark())
        before = progress.spelled()
        progress.heard("db-1", "stdout", 7)
        progress.end("db-1")
        progress.heard("web-1", "stdout", 2**53)
        progress.heard("web-1", "stdout", -1)
        self.assertEqual(progress.spelled(), before)
        self.assertFalse(progress.has_ended("db-1"))
