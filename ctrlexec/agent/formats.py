# SPDX-License-Identifier: AGPL-3.0-only
"""
What the C{format} of a schema demands of a text: all formats of JSON Schema
2020-12 but C{regex}, which needs L{ctrlexec.agent.patterns}.

They are spelled out here, since a caller's text is held against them before
anybody has authorised it, on every managed host: each takes time in proportion
to the text, and none brings a dozen libraries along. (One that jsonschema would
use takes two seconds for an C{iri} of 4 KiB.)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import date
from ipaddress import IPv4Address, IPv6Address
from types import MappingProxyType

Check = Callable[[str], bool]

_HOST_CHARACTERS = 253
_LABEL_CHARACTERS = 63
_LOCAL_CHARACTERS = 64
_MINUTES_A_DAY = 24 * 60

# RFC 3339, section 5.6 and appendix A.
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TIME = re.compile(
    r"([01][0-9]|2[0-3]):([0-5][0-9]):([0-5][0-9]|60)(?:\.[0-9]+)?"
    r"(?:[Zz]|([+-])([01][0-9]|2[0-3]):([0-5][0-9]))"
)
_FROM_MINUTES = r"[0-9]+M(?:[0-9]+S)?"
_CLOCK = rf"T(?:[0-9]+H(?:{_FROM_MINUTES})?|{_FROM_MINUTES}|[0-9]+S)"
_FROM_MONTHS = r"[0-9]+M(?:[0-9]+D)?"
_DAYS = rf"(?:[0-9]+Y(?:{_FROM_MONTHS})?|{_FROM_MONTHS}|[0-9]+D)"
_DURATION = rf"P(?:[0-9]+W|{_DAYS}(?:{_CLOCK})?|{_CLOCK})"

# RFC 1123, section 2.1; RFC 5321, section 4.1.2.
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_DOTS = re.compile("[.\u3002\uff0e\uff61]")
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\U0010ffff-]+"
_LOCAL = re.compile(rf'{_ATOM}(?:\.{_ATOM})*|"(?:[^"\\\x00-\x1f\x7f]|\\[ -~])*"')

_HEX = "[0-9A-Fa-f]"
_UUID = rf"{_HEX}{{8}}-(?:{_HEX}{{4}}-){{3}}{_HEX}{{12}}"

# RFC 6901; draft-bhutton-relative-json-pointer-00.
_POINTER = r"(?:/(?:[^~/]|~[01])*)*"
_RELATIVE_POINTER = rf"(?:0|[1-9][0-9]*)(?:#|{_POINTER})"

# RFC 3986, appendix B, has how any text comes apart, and RFC 3987 what is
# allowed besides in each part.
_PARTS = re.compile(
    r"(?:([^:/?#]+):)?(?://([^/?#]*))?([^?#]*)(?:\?([^#]*))?(?:#(.*))?", re.DOTALL
)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_FUTURE = re.compile(rf"[Vv]{_HEX}+\.[A-Za-z0-9._~!$&'()*+,;=:-]+")
_PLAIN = r"A-Za-z0-9._~!$&'()*+,;=\-"
_UCS = r"\xa0-\ud7ff\uf900-\ufdcf\ufdf0-\uffef\U00010000-\U000efffd"
_PRIVATE = r"\ue000-\uf8ff\U000f0000-\U0010fffd"

# RFC 6570, section 2.
_NAME = rf"(?:[A-Za-z0-9_]|%{_HEX}{{2}})(?:\.?(?:[A-Za-z0-9_]|%{_HEX}{{2}}))*"
_VARIABLE = rf"{_NAME}(?::[1-9][0-9]{{0,3}}|\*)?"
_TEMPLATE = (
    rf"(?:[^\x00-\x20\x7f\"%<>\\^`{{|}}]|%{_HEX}{{2}}"
    rf"|\{{[+#./;?&=,!@|]?{_VARIABLE}(?:,{_VARIABLE})*\}})*"
)


def _matches(pattern: str) -> Check:
    whole = re.compile(pattern)
    return lambda text: whole.fullmatch(text) is not None


def _is_date(text: str) -> bool:
    try:
        return _DATE.fullmatch(text) is not None and bool(date.fromisoformat(text))
    except ValueError:
        return False


def _is_time(text: str) -> bool:
    found = _TIME.fullmatch(text)
    if found is None or found[3] != "60":
        return found is not None
    # A second is added only at the end of a day of UTC.
    minutes = int(found[1]) * 60 + int(found[2])
    ahead = int(found[5] or 0) * 60 + int(found[6] or 0)
    utc = minutes + ahead if found[4] == "-" else minutes - ahead
    return utc % _MINUTES_A_DAY == _MINUTES_A_DAY - 1


def _is_date_time(text: str) -> bool:
    return text[10:11] in ("T", "t") and _is_date(text[:10]) and _is_time(text[11:])


def _is_host(text: str) -> bool:
    return len(text) <= _HOST_CHARACTERS and _HOST.fullmatch(text) is not None


def _is_international_host(text: str) -> bool:
    # It comes with Twisted, and few schemas have a use for it.
    import idna

    labels = _DOTS.split(text)
    if len(text) > _HOST_CHARACTERS or max(map(len, labels)) > _LABEL_CHARACTERS:
        return False
    try:
        return bool(idna.encode(text)) and labels[-1] != ""
    except UnicodeError:
        return False


def _is_mailbox(text: str, is_host: Check) -> bool:
    local, _, domain = text.rpartition("@")
    if len(local) > _LOCAL_CHARACTERS or not _LOCAL.fullmatch(local):
        return False
    if domain.startswith("[") and domain.endswith("]"):
        tag, found, rest = domain[1:-1].partition("IPv6:")
        return _is_ipv6(rest) if found and not tag else _is_ipv4(domain[1:-1])
    return is_host(domain)


def _is_email(text: str) -> bool:
    return text.isascii() and _is_mailbox(text, _is_host)


def _is_international_email(text: str) -> bool:
    return _is_mailbox(text, _is_international_host)


def _is_ipv4(text: str) -> bool:
    try:
        return bool(IPv4Address(text))
    except ValueError:
        return False


def _is_ipv6(text: str) -> bool:
    try:
        return "%" not in text and bool(IPv6Address(text))
    except ValueError:
        return False


def _reference(more: str, private: str, *, absolute: bool) -> Check:
    """
    @param more: what characters any part may have besides.
    @param private: what characters a query may have besides.
    @param absolute: whether there must be a scheme.
    """

    def of(characters: str) -> str:
        return rf"(?:[{_PLAIN}{characters}{more}]|%{_HEX}{{2}})*"

    user_and_host = rf"(?:{of(':')}@)?(?:\[([^\]]*)\]|{of('')})(?::[0-9]*)?"
    authority, path = re.compile(user_and_host), re.compile(of(":@/"))
    query, fragment = re.compile(of(f":@/?{private}")), re.compile(of(":@/?"))

    def check(text: str) -> bool:
        found = _PARTS.fullmatch(text)
        scheme, where, way, asked, place = found.groups() if found else (None,) * 5
        at = authority.fullmatch(where or "")
        return bool(
            (_SCHEME.fullmatch(scheme) if scheme is not None else not absolute)
            and at
            and (at[1] is None or _is_ipv6(at[1]) or _FUTURE.fullmatch(at[1]))
            and path.fullmatch(way or "")
            and query.fullmatch(asked or "")
            and fragment.fullmatch(place or "")
        )

    return check


#: What a text must be, by the name of the format.
FORMATS: Mapping[str, Check] = MappingProxyType(
    {
        "date": _is_date,
        "time": _is_time,
        "date-time": _is_date_time,
        "duration": _matches(_DURATION),
        "email": _is_email,
        "idn-email": _is_international_email,
        "hostname": _is_host,
        "idn-hostname": _is_international_host,
        "ipv4": _is_ipv4,
        "ipv6": _is_ipv6,
        "uri": _reference("", "", absolute=True),
        "uri-reference": _reference("", "", absolute=False),
        "iri": _reference(_UCS, _PRIVATE, absolute=True),
        "iri-reference": _reference(_UCS, _PRIVATE, absolute=False),
        "uri-template": _matches(_TEMPLATE),
        "uuid": _matches(_UUID),
        "json-pointer": _matches(_POINTER),
        "relative-json-pointer": _matches(_RELATIVE_POINTER),
    }
)
