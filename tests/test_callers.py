# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of who is at the other end of a connection: L{ctrlexec.api.callers}.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

import attrs
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from ctrlexec.api.callers import (
    Peer,
    bearer,
    caller_of,
    credentials,
    peer_of,
    share_of,
    user_name,
)
from ctrlexec.dispatcher.orders import HERE, Door
from ctrlexec.errors import InvalidValue, NotAuthorised
from tests.dispatching import at_once


@attrs.define
class Connected:
    """
    A connection, as far as it tells who is there.
    """

    host: IAddress
    peer: IAddress
    socket: object = None

    def getHost(self) -> IAddress:
        """
        Our end.
        """
        return self.host

    def getPeer(self) -> IAddress:
        """
        The other end.
        """
        return self.peer


UNIX = UNIXAddress("/run/ctrl-exec/api.sock")


class PeerTests(SynchronousTestCase):
    """
    L{peer_of}
    """

    def peer(self, connection: Connected) -> Peer:
        """
        Who is there.
        """
        finding = Deferred.fromCoroutine(peer_of(connection, at_once))
        return self.successResultOf(finding)

    def test_tcp(self) -> None:
        """
        Of a TCP connection only the address is known.
        """
        here = IPv4Address("TCP", "127.0.0.1", 7445)
        found = self.peer(Connected(here, IPv6Address("TCP", "::ffff:10.0.0.7", 99)))
        self.assertEqual(found, Peer("10.0.0.7", None, False))

    def test_unix(self) -> None:
        """
        Through a real unix socket the system says which user it is. Who we are
        may say that they are somebody else: they could be.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.addCleanup(theirs.close)
        self.addCleanup(ours.close)
        found = self.peer(Connected(UNIX, UNIXAddress(None), ours))
        self.assertEqual(found, Peer(HERE, user_name(os.getuid()), True))

    def test_unknown(self) -> None:
        """
        Where the system does not say who it is, nobody gets in.
        """

        class Silent:
            def __init__(self, answer: Callable[[], bytes]) -> None:
                self.answer = answer

            def getsockopt(self, *which: int) -> bytes:
                return self.answer()

        def fails() -> bytes:
            raise OSError(92, "Protocol not available")

        nobody = b"\0\0\0\0" + b"\xff" * 8
        for silent in (
            None,
            Silent(fails),
            Silent(lambda: b""),
            Silent(lambda: nobody),
        ):
            connection = Connected(UNIX, UNIXAddress(None), silent)
            finding = Deferred.fromCoroutine(peer_of(connection, at_once))
            failure = self.failureResultOf(finding, NotAuthorised)
            self.assertEqual(failure.value.code, 1)

    def test_names(self) -> None:
        """
        A user without a name still is somebody.
        """
        self.assertEqual(user_name(0), "root")
        self.assertEqual(user_name(4_000_000_001), "uid:4000000001")


class CallerTests(SynchronousTestCase):
    """
    L{caller_of}
    """

    def test_claims(self) -> None:
        """
        A claim counts where nothing better is known, or the system vouches for
        somebody who may claim anything.
        """
        for peer, claimed, name in (
            (Peer("192.0.2.9"), "ann", "ann"),
            (Peer("192.0.2.9"), "", ""),
            (Peer(HERE, "bob"), "ann", "bob"),
            (Peer(HERE, "bob"), "", "bob"),
            (Peer(HERE, "root", may_claim=True), "ann", "ann"),
            (Peer(HERE, "root", may_claim=True), "", "root"),
        ):
            caller = caller_of(peer, Door.API, claimed=claimed, token="t")
            self.assertEqual(caller.username, name)
            self.assertEqual(caller.source_ip, peer.address)
            self.assertEqual((caller.token, caller.door), ("t", Door.API))

    def test_unsound(self) -> None:
        """
        What no program can be given is refused, and not repeated.
        """
        peer = Peer("192.0.2.9")
        for wrong in ("a\0b", "half \ud800"):
            for said in ({"claimed": wrong}, {"token": wrong}):
                with self.assertRaises(InvalidValue) as caught:
                    caller_of(peer, Door.API, **said)
                self.assertNotIn("half", str(caught.exception))

    def test_shares(self) -> None:
        """
        Whose share it is says the system, or a token that a hook has looked at,
        or where they come from.
        """
        far, root = Peer("192.0.2.9"), Peer(HERE, "root", may_claim=True)
        for peer, token, is_asked, share in (
            (Peer(HERE, "bob"), "t", True, "user bob"),
            (far, "t", True, "token t"),
            (far, "t", False, "address 192.0.2.9"),
            (far, "", True, "address 192.0.2.9"),
            (root, "t", True, "token t"),
            (root, "", True, f"address {HERE}"),
        ):
            self.assertEqual(share_of(peer, token, is_asked=is_asked), share)

    def test_hidden(self) -> None:
        """
        A token is not shown with its caller.
        """
        self.assertNotIn("s3cret", repr(caller_of(Peer(""), Door.API, token="s3cret")))


class CredentialTests(SynchronousTestCase):
    """
    L{credentials}
    """

    def test_bearer(self) -> None:
        """
        The scheme may be written in any case; other schemes are no token.
        """
        for value, token in (
            (b"Bearer abc", "abc"),
            (b"bEARER   a b ", "a b"),
            (b"Bearer \xc3\xbc", "\xfc"),
            (b"Bearer ", ""),
            (b"Basic YTpi", None),
            (b"Bearerabc", None),
        ):
            headers = Headers({b"authorization": [value]})
            self.assertEqual(bearer(headers), token)
        self.assertIsNone(bearer(Headers()))

    def test_unsoundBearer(self) -> None:
        """
        Bytes that are no UTF-8 make no token, rather than another one.
        """
        token = bearer(Headers({b"authorization": [b"Bearer \xff"]}))
        assert token is not None
        self.assertRaises(InvalidValue, caller_of, Peer(""), Door.API, token=token)

    def test_first(self) -> None:
        """
        The header's token is the one that counts; without it, the body's.
        """
        fields = {"username": "ann", "token": "body"}
        header = Headers({b"authorization": [b"Bearer header"]})
        self.assertEqual(credentials(header, fields), ("ann", "header"))
        self.assertEqual(credentials(Headers(), fields), ("ann", "body"))
        wrong = {"username": 5, "token": ["a"]}
        self.assertEqual(credentials(Headers(), wrong), ("", ""))
