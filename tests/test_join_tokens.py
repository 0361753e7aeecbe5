# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.dispatcher.join_tokens} and
L{ctrlexec.dispatcher.token_records}; the contract is for whatever keeps
join tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from ctrlexec.dispatcher.join_tokens import KEPT, FileJoinTokens
from ctrlexec.dispatcher.orders import MOST_USES, TokenOrder
from ctrlexec.dispatcher.token_records import Claim, JoinToken, NotRedeemed
from ctrlexec.errors import InvalidValue, NotFound, StoreError
from ctrlexec.interfaces import IJoinTokens
from ctrlexec.joining import Joining, JoinSecret
from tests.authority import NOW

if TYPE_CHECKING:
    from twisted.trial.unittest import SynchronousTestCase as Base
else:
    Base = object

SECRET = JoinSecret("0123456789abcdef", bytes(range(16)), "sha256:" + "ca" * 32)
JOINING = Joining(b"agent's key", "web-1", b"dispatcher's key", "c0" * 32)


def token(secret: JoinSecret = SECRET, **order: Any) -> JoinToken:
    """
    A token, made at C{NOW}.
    """
    return JoinToken.new(secret, TokenOrder(**order), NOW, "alice")


def claim(number: int = 0, name: str = "web-1") -> Claim:
    """
    A good claim; each number is another request.
    """
    joining = attrs.evolve(JOINING, name=name, commitment=f"{number:064x}"[::-1])
    return Claim(SECRET.id, joining, joining.proof(SECRET.key))


def nothing(token: JoinToken) -> str:
    """
    Nothing else speaks against it.
    """
    return ""


class JoinTokensContract(Base):
    """
    What an L{IJoinTokens} does.
    """

    def tokens(self) -> IJoinTokens:
        """
        @return: an empty one.
        """
        raise NotImplementedError

    def redeemed(
        self,
        tokens: IJoinTokens,
        number: int = 0,
        now: datetime = NOW,
        objection: Callable[[JoinToken], str] = nothing,
        **changes: Any,
    ) -> str:
        """
        @return: why it was not; empty if it was.
        """
        found = tokens.redeem(attrs.evolve(claim(number), **changes), now, objection)
        return found.reason if isinstance(found, NotRedeemed) else ""

    def test_interface(self) -> None:
        """
        It is what it says.
        """
        self.assertTrue(verifyObject(IJoinTokens, self.tokens()))

    def test_keeps(self) -> None:
        """
        What was put in is listed, the oldest first, and not the secret.
        """
        tokens = self.tokens()
        self.assertEqual(tokens.listed(), ([], []))
        old = token(name="web-1", tags={"env": "prod"})
        new = attrs.evolve(
            token(JoinSecret.new(SECRET.authority)), created="2026-03-06T00:00:00Z"
        )
        for each in (new, old):
            tokens.add(each)
        self.assertEqual(tokens.listed(), ([old, new], []))

    def test_once(self) -> None:
        """
        A token for one use lets one in, and a second not.
        """
        tokens = self.tokens()
        tokens.add(token())
        self.assertEqual(self.redeemed(tokens, 1), "")
        self.assertEqual(self.redeemed(tokens, 2), "the token is used up")
        ((kept,), _) = tokens.listed()
        self.assertEqual(kept.left, 0)

    def test_asOftenAsItSays(self) -> None:
        """
        One for three uses lets in three.
        """
        tokens = self.tokens()
        tokens.add(token(uses=3))
        found = [self.redeemed(tokens, number) for number in range(5)]
        self.assertEqual(found, ["", "", "", *["the token is used up"] * 2])

    def test_concurrently(self) -> None:
        """
        Of many at the same moment as many get in as there are uses.
        """
        tokens = self.tokens()
        tokens.add(token(uses=3))
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda n: self.redeemed(tokens, n), range(16)))
        self.assertEqual(found.count(""), 3)

    def test_replayed(self) -> None:
        """
        The same request does not count twice, though uses are left.
        """
        tokens = self.tokens()
        tokens.add(token(uses=3))
        self.assertEqual(self.redeemed(tokens), "")
        self.assertEqual(self.redeemed(tokens), "the request was made before")
        ((kept,), _) = tokens.listed()
        self.assertEqual(kept.left, 2)

    def test_late(self) -> None:
        """
        From its last moment on it is good for nothing.
        """
        tokens = self.tokens()
        tokens.add(token(ttl=timedelta(minutes=5)))
        over = NOW + timedelta(minutes=5)
        self.assertEqual(self.redeemed(tokens, now=over), "the token has expired")
        self.assertEqual(self.redeemed(tokens, now=over - timedelta(seconds=1)), "")

    def test_otherName(self) -> None:
        """
        One that names a host is for that host.
        """
        tokens = self.tokens()
        tokens.add(token(name="web-2"))
        self.assertEqual(self.redeemed(tokens), "the token is for web-2")

    def test_wrongProof(self) -> None:
        """
        Without the secret nobody gets anything, and no use is lost.
        """
        tokens = self.tokens()
        tokens.add(token())
        self.assertEqual(self.redeemed(tokens, proof="0" * 64), "the proof is wrong")
        self.assertEqual(self.redeemed(tokens), "")

    def test_unknown(self) -> None:
        """
        An id that nobody has made is none, nor is one that was revoked.
        """
        tokens = self.tokens()
        self.assertEqual(self.redeemed(tokens), "the token is unknown")
        tokens.add(token())
        tokens.revoke(SECRET.id)
        self.assertEqual(self.redeemed(tokens), "the token is unknown")
        self.assertRaises(NotFound, tokens.revoke, SECRET.id)

    def test_objection(self) -> None:
        """
        What else speaks against it is asked last, and costs no use.
        """
        tokens = self.tokens()
        tokens.add(token())
        asked: list[JoinToken] = []

        def objection(kept: JoinToken) -> str:
            asked.append(kept)
            return "no"

        for proof, reason in (("0" * 64, "the proof is wrong"), (claim().proof, "no")):
            found = self.redeemed(tokens, objection=objection, proof=proof)
            self.assertEqual(found, reason)
        self.assertEqual(len(asked), 1)
        self.assertEqual(self.redeemed(tokens), "")

    def test_noPaths(self) -> None:
        """
        Nothing that is a path is an id.
        """
        for text in ("../x", "a/b", "", "0" * 15, "0123456789ABCDEF"):
            self.assertRaises(InvalidValue, self.tokens().revoke, text)


class FileJoinTokensTests(JoinTokensContract, SynchronousTestCase):
    """
    L{FileJoinTokens}
    """

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()) / "state" / "tokens"
        self.file = self.directory / f"{SECRET.id}.json"

    def tokens(self) -> IJoinTokens:
        """
        See L{JoinTokensContract.tokens}.
        """
        return FileJoinTokens(self.directory)

    def test_private(self) -> None:
        """
        Nobody else can read what a proof can be made with, at no time.
        """
        tokens = self.tokens()
        tokens.add(token())
        self.redeemed(tokens)
        self.assertEqual(self.directory.stat().st_mode & 0o777, 0o700)
        self.assertEqual(self.file.stat().st_mode & 0o777, 0o600)

    def test_hashed(self) -> None:
        """
        The secret is in no file.
        """
        self.tokens().add(token())
        kept = b"".join(each.read_bytes() for each in self.directory.iterdir())
        for form in (SECRET.secret, SECRET.secret.hex().encode(), SECRET.text.encode()):
            self.assertNotIn(form, kept)

    def test_cut(self) -> None:
        """
        A file that was cut anywhere lets nobody in, is reported, and can be
        revoked.
        """
        tokens = self.tokens()
        tokens.add(token())
        whole = self.file.read_bytes().rstrip()
        for length in range(len(whole)):
            self.file.write_bytes(whole[:length])
            self.assertRaises(StoreError, tokens.redeem, claim(), NOW, nothing)
        found, (error,) = tokens.listed()
        self.assertEqual((list(found), error.path), ([], self.file))
        tokens.revoke(SECRET.id)
        self.assertEqual(tokens.listed(), ([], []))

    def test_changed(self) -> None:
        """
        A file that says anything that we do not write lets nobody in.
        """
        tokens = self.tokens()
        for old, new in (
            ('"uses":1', '"uses":true'),
            ('"uses":1', '"uses":1001'),
            ('"spent":[]', '"spent":{}'),
            ('"spent":[]', '"spent":[1]'),
            ('"spent":[]', '"spent":null'),
            ('"tags":{}', '"tags":[]'),
            ('"expires":"', '"expires":"x'),
            ('"key":"', '"key":"x'),
            (f'"id":"{SECRET.id}', '"id":"0000000000000000'),
        ):
            tokens.add(token())
            text = self.file.read_text()
            self.assertIn(old, text)
            self.file.write_text(text.replace(old, new))
            with self.assertRaises(StoreError, msg=new):
                tokens.redeem(claim(), NOW, nothing)
            tokens.revoke(SECRET.id)

    def test_forgets(self) -> None:
        """
        A token that was over long ago goes when another is made.
        """
        tokens = self.tokens()
        tokens.add(token())
        for days, left in ((KEPT, 2), (KEPT + timedelta(days=1), 2)):
            later = JoinToken.new(
                JoinSecret.new(SECRET.authority), TokenOrder(), NOW + days, "alice"
            )
            tokens.add(later)
            self.assertEqual(len(tokens.listed()[0]), left)

    def test_mostUses(self) -> None:
        """
        The file of a token that many have used can still be read.
        """
        tokens = self.tokens()
        spent = token(uses=MOST_USES)
        for number in range(MOST_USES - 1):
            spent = spent.spend(claim(number).joining.commitment)
        tokens.add(spent)
        self.assertEqual(self.redeemed(tokens, MOST_USES), "")
        self.assertEqual(self.redeemed(tokens, MOST_USES + 1), "the token is used up")


class OrderTests(SynchronousTestCase):
    """
    L{TokenOrder}
    """

    def test_bounds(self) -> None:
        """
        What would be good for too long, for too many, or for two of one name
        is not made.
        """
        wrong: list[dict[str, Any]] = [
            {"ttl": timedelta(seconds=59)},
            {"ttl": timedelta(days=30, seconds=1)},
            {"uses": 0},
            {"uses": MOST_USES + 1},
            {"uses": 2, "name": "web-1"},
            {"name": "../web"},
        ]
        for order in wrong:
            self.assertRaises(InvalidValue, TokenOrder, **order)
        TokenOrder(ttl=timedelta(minutes=1))
        TokenOrder(ttl=timedelta(days=30), uses=MOST_USES)

    def test_default(self) -> None:
        """
        If nobody says more it is good once, for half an hour.
        """
        self.assertEqual(
            attrs.asdict(TokenOrder()),
            {"name": "", "tags": {}, "ttl": timedelta(minutes=30), "uses": 1},
        )

    def test_notShown(self) -> None:
        """
        The key is not in what a log or a traceback would show.
        """
        self.assertNotIn(SECRET.key.hex(), repr(token()))
        self.assertNotIn(claim().proof, repr(claim()))
