# SPDX-License-Identifier: AGPL-3.0-only
"""
Who is at the other end of a connection to the API, and what they may claim.

Who comes by TCP can only claim a name. Who comes through the unix socket is
known by it: the kernel says which user has connected.
"""

from __future__ import annotations

import os
import pwd
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import attrs
from twisted.internet.address import UNIXAddress
from twisted.internet.interfaces import IAddress
from twisted.web.http_headers import Headers

from ctrlexec.dispatcher.orders import HERE, Caller, Door
from ctrlexec.errors import InvalidValue, NotAuthorised
from ctrlexec.protocol.codec import is_sound
from ctrlexec.protocol.listening import plain_address

#: C{struct ucred}: the process, its user and its group.
_UCRED = struct.Struct("iII")
#: What the kernel says where it knows no user.
_NO_UID = 0xFFFFFFFF
_SCHEME = b"bearer "


class Connection(Protocol):
    """
    As much of a transport as tells who is there.
    """

    def getHost(self) -> IAddress:
        """
        Our end of it.
        """

    def getPeer(self) -> IAddress:
        """
        The other end.
        """


@attrs.frozen
class Peer:
    """
    Who has connected.

    @ivar address: where they are.
    @ivar user: whom the system says they are; C{None} where it can not.
    @ivar may_claim: whether they are believed when they call themselves
        somebody else: root is, and so is our own user, for either could be
        anybody anyway.
    """

    address: str
    user: str | None = None
    may_claim: bool = False

    def known_as(self, claimed: str) -> str:
        """
        @param claimed: what they call themselves; may be empty.
        @return: their name, for the hook and for the log.
        """
        if self.user is None or (claimed and self.may_claim):
            return claimed
        return self.user


async def peer_of(
    connection: Connection, in_thread: Callable[..., Awaitable[Any]]
) -> Peer:
    """
    @param in_thread: does work that may block, as the look-up of a name may.
    @raise NotAuthorised: it is a unix socket, and the system does not say who
        is there.
    """
    if not isinstance(connection.getHost(), UNIXAddress):
        return Peer(plain_address(connection.getPeer()))
    uid = _uid_of(connection)
    user = await in_thread(user_name, uid)
    return Peer(HERE, user, may_claim=uid in (0, os.geteuid()))


def _uid_of(connection: Connection) -> int:
    try:
        connected: socket.socket = connection.socket  # type: ignore[attr-defined]
        packed = connected.getsockopt(
            socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size
        )
        _, uid, _ = _UCRED.unpack(packed)
    except (AttributeError, OSError, struct.error):
        uid = _NO_UID
    if uid == _NO_UID:
        raise NotAuthorised("the system does not say who is there", 1)
    return int(uid)


def user_name(uid: int) -> str:
    """
    What a user is called; one without a name is C{uid:1234}, as no name is.
    """
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid:{uid}"


def caller_of(peer: Peer, door: Door, *, claimed: str = "", token: str = "") -> Caller:
    """
    @param claimed: the user name in what they sent.
    @param token: what they sent to prove it.
    @raise InvalidValue: either is no text that a program could be given.
    """
    for what, text in (("user name", claimed), ("token", token)):
        if "\0" in text or not is_sound(text):
            raise InvalidValue(what, "", "UTF-8 text without NUL characters")
    return Caller(
        username=peer.known_as(claimed),
        token=token,
        source_ip=peer.address,
        door=door,
    )


def share_of(peer: Peer, token: str, *, is_asked: bool) -> str:
    """
    Whose share of what there is somebody uses: a name that they only claim would
    give them as many as they like.

    @param token: what they sent to prove who they are.
    @param is_asked: whether an auth hook has looked at that.
    @return: a few words, never to be logged.
    """
    if peer.user is not None and not peer.may_claim:
        return f"user {peer.user}"
    if token and is_asked:
        return f"token {token}"
    return f"address {peer.address}"


def credentials(headers: Headers, fields: Mapping[str, Any]) -> tuple[str, str]:
    """
    What a request says about whoever sends it.

    @param fields: of its body, unchecked.
    @return: the user name that is claimed, and the token: the one in
        C{Authorization: Bearer}, or else the body's.
    """
    token = bearer(headers)
    return _text(fields, "username"), _text(fields, "token") if token is None else token


def is_of_a_page(headers: Headers) -> bool:
    """
    Whether a browser sends this on behalf of a page that it shows. No page is
    ours, so it is not what the person in front of it asks for; and where whoever
    comes may, that they come from this host must not be enough.

    Its host is not compared to ours: a page can give its own host our address.
    """
    if headers.hasHeader(b"origin"):
        return True
    sites = headers.getRawHeaders(b"sec-fetch-site", ())
    # What somebody has typed into the browser is no page's.
    return any(site.strip().lower() != b"none" for site in sites)


def bearer(headers: Headers) -> str | None:
    """
    @return: the token of C{Authorization: Bearer} (RFC 6750), if there is one.
    """
    for value in headers.getRawHeaders(b"authorization", ()):
        if value[: len(_SCHEME)].lower() == _SCHEME:
            return value[len(_SCHEME) :].strip().decode("utf-8", "surrogateescape")
    return None


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    return value if isinstance(value, str) else ""
