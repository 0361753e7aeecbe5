# SPDX-License-Identifier: AGPL-3.0-only
"""
Names, serials, request ids, times and addresses: parsed once, at the edge.

Every function here is pure. What it takes is text from a person, a file or a
peer; what it returns is the canonical value, or it raises L{InvalidValue}.
"""

from __future__ import annotations

import os
import re
from datetime import datetime, timezone
from ipaddress import ip_address

import attrs

from ctrlexec.errors import InvalidValue

#: The C{exit} of a run that never ran.
NEVER_RAN = -1
#: What happens to a run whose caller goes away: C{docs/runs.md}.
ON_DISCONNECT = ("keep", "cancel")
#: How an agent can be found.
LOOKUPS = ("hostname", "ip")

_AGENT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}")
_SCRIPT_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")
_DISPATCHER_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_ZONE = re.compile(r"[A-Za-z0-9._-]{1,15}")
_HEX = re.compile(r"[0-9a-f]+")
_MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
_OPENSSL_TIME = re.compile(
    r"([A-Z][a-z]{2}) ([ 0-9][0-9]) ([0-9]{2}):([0-9]{2}):([0-9]{2}) ([0-9]{4}) GMT"
)


def agent_name(text: str) -> str:
    """
    The name of an agent: NEWER-LINE.md section 5, and at most 253 characters.

    It becomes a file name, so nothing that is a path gets through.
    """
    if not _AGENT_NAME.fullmatch(text):
        raise InvalidValue(
            "host name",
            text,
            "a letter or digit, then letters, digits, '.', '_' and '-', "
            "253 characters at most",
        )
    return text


def script_name(text: str) -> str:
    """
    The name of a script: PROTOCOL.md section 2.
    """
    if not _SCRIPT_NAME.fullmatch(text):
        raise InvalidValue(
            "script name",
            text,
            "letters, digits, '_' and '-', 128 characters at most",
        )
    return text


def dispatcher_id(text: str) -> str:
    """
    The id of a dispatcher, as an agent accepts it: NEWER-LINE.md section 4.1.
    """
    if not _DISPATCHER_ID.fullmatch(text):
        raise InvalidValue(
            "dispatcher id",
            text,
            "a letter or digit, then up to 63 letters, digits, '.', '_' and '-'",
        )
    return text


def normalised_dispatcher_id(text: str) -> str:
    """
    The id that a dispatcher makes of a setting or of its host name:
    NEWER-LINE.md section 4.1.
    """
    plain = re.sub(r"[^A-Za-z0-9._-]", "-", text)
    return re.sub(r"^[^A-Za-z0-9]+", "", plain)[:64] or "dispatcher"


def new_request_id() -> str:
    """
    @return: 16 lowercase hex characters from 8 random bytes.
    """
    return os.urandom(8).hex()


def request_id(text: str) -> str:
    """
    The id of a stored request, which is a file name too: NEWER-LINE.md
    section 6.1.
    """
    if not _REQUEST_ID.fullmatch(text):
        raise InvalidValue("request id", text, "letters, digits, '_' and '-'")
    return text


def new_nonce() -> str:
    """
    @return: 32 lowercase hex characters from 16 random bytes.
    """
    return os.urandom(16).hex()


def serial_from_int(number: int) -> str:
    """
    The canonical form of a certificate's serial: lowercase hex, no leading
    zeros (PROTOCOL.md section 1).
    """
    if number < 0:
        raise InvalidValue("serial", str(number), "a number that is not negative")
    return f"{number:x}"


def serial_from_hex(text: str) -> str:
    """
    The canonical form of a serial from the wire, the trusted map or a serial
    file, where it is always hex: C{"0A"}, C{"0x0a"}, C{"00:0a"} and
    C{"serial=0A"} are all C{"a"}.
    """
    plain = text.strip().lower()
    for prefix in ("0x", "serial=", "0x"):
        plain = plain.removeprefix(prefix)
    plain = plain.replace(":", "")
    if len(plain) > 64 or not _HEX.fullmatch(plain):
        raise InvalidValue("serial", text, "up to 64 hex digits, for example 4f:0a")
    return plain.lstrip("0") or "0"


def revoked_serials(text: str) -> frozenset[str]:
    """
    The serials that one entry of the revocation list revokes.

    People write that list, in hex or in decimal; an entry of digits only can
    be either, so it revokes both readings (PROTOCOL.md section 1).
    """
    plain = text.strip()
    canonical = serial_from_hex(plain)
    if plain.isascii() and plain.isdigit():
        return frozenset({canonical, serial_from_int(int(plain))})
    return frozenset({canonical})


def openssl_time(moment: datetime) -> str:
    """
    @param moment: an aware time.
    @return: openssl's form, C{"Nov 18 01:32:34 2036 GMT"}; the day is padded
        with a blank to two columns (PROTOCOL.md section 1).
    """
    utc = moment.astimezone(timezone.utc)
    return (
        f"{_MONTHS[utc.month - 1]} {utc.day:2d} {utc.hour:02d}:{utc.minute:02d}"
        f":{utc.second:02d} {utc.year:04d} GMT"
    )


def from_openssl_time(text: str) -> datetime:
    """
    The inverse of L{openssl_time}.
    """
    found = _OPENSSL_TIME.fullmatch(text)
    try:
        if found is None:
            raise ValueError(text)
        month, day, hour, minute, second, year = found.groups()
        return datetime(
            int(year),
            _MONTHS.index(month) + 1,
            int(day),
            int(hour),
            int(minute),
            int(second),
            tzinfo=timezone.utc,
        )
    except ValueError:
        raise InvalidValue(
            "time", text, "the form 'Jun  7 16:28:00 2027 GMT'"
        ) from None


def iso_time(moment: datetime) -> str:
    """
    @param moment: an aware time.
    @return: ISO 8601 in UTC to the second, C{"2026-03-05T18:38:09Z"}.
    """
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def from_iso_time(text: str) -> datetime:
    """
    The inverse of L{iso_time}.
    """
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(
            tzinfo=timezone.utc
        )
    except ValueError:
        raise InvalidValue("time", text, "the form '2026-03-05T18:38:09Z'") from None


def port_number(text: str) -> int:
    """
    A TCP port, 1 to 65535.
    """
    if re.fullmatch("[1-9][0-9]{0,4}", text) and int(text) <= 65535:
        return int(text)
    raise InvalidValue("port", text, "a number from 1 to 65535")


def is_ip_address(text: str) -> bool:
    """
    Whether a text is an IPv4 or IPv6 address, the latter with a zone or not.

    Python takes any text for a zone, line breaks and escape sequences included.
    """
    _, percent, zone = text.partition("%")
    if percent and not _ZONE.fullmatch(zone):
        return False
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


@attrs.frozen
class HostPort:
    """
    What an operator types for a host: C{HOST}, C{HOST:PORT}, C{[IPV6]:PORT}.

    @ivar port: C{None} where none was typed.
    """

    host: str
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> HostPort:
        """
        @raise InvalidValue: the text is neither a name nor an address, or the
            port is none.
        """
        if is_ip_address(text):
            return cls(text)
        host, colon, port = text.rpartition(":")
        if not colon:
            return cls(agent_name(text))
        bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        return cls(bare if is_ip_address(bare) else agent_name(bare), port_number(port))


@attrs.frozen
class Portion:
    """
    So many of a number of things: C{"3"}, or C{"25%"}.

    @ivar number: how many, or how many of a hundred.
    """

    number: int
    percent: bool = False

    @classmethod
    def parse(cls, text: str) -> Portion:
        """
        @raise InvalidValue: the text is neither a number nor a percentage.
        """
        found = re.fullmatch("([0-9]{1,5})(%?)", text)
        if found is None or (found[2] and int(found[1]) > 100):
            raise InvalidValue("number", text, "a number such as 3, or 25%")
        return cls(int(found[1]), bool(found[2]))

    def of(self, total: int) -> int:
        """
        @return: how many of C{total} that is; a percentage is rounded down.
        """
        return total * self.number // 100 if self.percent else self.number

    def __str__(self) -> str:
        return f"{self.number}{'%' if self.percent else ''}"


@attrs.frozen
class Rate:
    """
    How often something may happen.

    @ivar most: how often within the window; once more is too often.
    @ivar window_seconds: how long it is remembered.
    @ivar block_seconds: how long an address is blocked after that.
    """

    most: int
    window_seconds: float
    block_seconds: float


@attrs.frozen
class Submitter:
    """
    Who gave an order.

    @ivar username: as they claimed it, or as the system knew it.
    @ivar source_ip: the address that they asked from.
    """

    username: str
    source_ip: str


@attrs.frozen
class Target:
    """
    Where an agent is reached.

    @ivar name: the agent's name in the registry; where it is not registered,
        what the operator called it.
    @ivar host: the host name or address to connect to.
    @ivar port: the port to connect to.
    @ivar registered: whether the agent must prove to be the one of this name.
    @ivar identity: the name in its certificate, where it is another one; else
        empty.
    """

    name: str
    host: str
    port: int
    registered: bool = True
    identity: str = ""
