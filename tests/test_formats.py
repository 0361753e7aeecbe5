# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.agent.formats}.
"""

from __future__ import annotations

import uuid
from datetime import date, datetime, timedelta, timezone
from ipaddress import IPv4Address, IPv6Address

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.agent.formats import FORMATS
from tests.structure import loaded_after

LABEL = "x" * 63
LONG = ".".join([LABEL] * 3 + ["y" * 61])

# What each format lets through, and what it does not.
KNOWN = {
    "date": (
        "2026-03-05 2024-02-29",
        "2026-02-29 2026-13-01 26-03-05 2026-3-5 20260305 2026-W10-4 ٢٠٢٦-٠٣-٠٥",
    ),
    "time": (
        "18:38:09Z 18:38:09z 18:38:09.25+01:00 23:59:60Z 00:29:60+00:30 22:29:60-01:30",
        "18:38:09 24:00:00Z 18:60:00Z 18:38:61Z 18:38:60Z 18:38Z 18:38:09+24:00 "
        "18:38:09.Z 1:2:3Z 23:59:60+00:30",
    ),
    "date-time": (
        "2026-03-05T18:38:09Z 2026-03-05t18:38:09.5-01:00",
        "2026-03-05 18:38:09Z 2026-02-30T18:38:09Z 2026-03-05T18:38:09 "
        "2026-03-05X18:38:09Z",
    ),
    "duration": (
        "P1Y2M3DT4H5M6S P1D PT1M P2W P1YT1S PT36H",
        "P PT 1D P1 P1D2Y P1YT P1W1D PT1S1M P1H PT1D p1d P-1D P1.5D P1Y2D PT1H2S",
    ),
    "email": (
        'me@example.org a.b+c@x me@[192.0.2.1] me@[IPv6:2001:db8::1] "a@b"@x.org',
        "me @x.org me@ me@x_y a..b@x .a@x a.@x me@[192.0.2] me@[2001:db8::1] "
        "mé@x.org me@[IPv6:x] " + "l" * 65 + "@x",
    ),
    "idn-email": ("mé@x.org 中@例え.テスト me@example.org", "mé mé@ @x mé@-x"),
    "hostname": (
        f"web-1 web-1.example.org 1 a.1 xn--bcher-kva.example {LABEL} {LONG}",
        f"-a a- a..b .a a. a_b a:1 bücher {LABEL}x {LONG}y a/b",
    ),
    "idn-hostname": (
        "bücher.example web-1 例え.テスト",
        "-ü a_b bücher. bücher。 a..b " + "ü" * 64 + " " + "ü." * 127 + "ü",
    ),
    "ipv4": ("192.0.2.1 0.0.0.0", "192.0.2 192.0.2.256 192.0.2.01 ::1 1 ١.0.0.1"),
    "ipv6": ("2001:db8::1 :: ::ffff:192.0.2.1", "::1%eth0 1 :::1 192.0.2.1 ::g"),
    "uri": (
        "https://example.org:8443/a/b?c=d#e urn:isbn:1 mailto:me@x file:///etc "
        "http://[2001:db8::1]:80/ http://[v7.x]/ http://u:p@h/%20 a:",
        "/a //h/a a%20b 1a:b http://[::1/ http://[x]/ http://h:x/ http://h/%2 "
        "http://h/ü http://h/\\ http://h/^ http://a@b@c/ http://h/a|b http://h/#a#b",
    ),
    "uri-reference": (
        "https://example.org /a //h/a a/b ?q #f ../x a;b",
        'a|b a\\b 1:b "a" ## ü %zz',
    ),
    "iri": ("https://bücher.example/ü?ü=\ue000#ü urn:ü", "/ü ü:x http://h/\ue000"),
    "iri-reference": ("/ü #ü ü/ü", "ü|ü ü\\ü \ue000"),
    "uri-template": (
        "/a/{b} {?x,y*} {+p:3}/c {#a.b} {a%20b} ü {/list*} a",
        "{ {} {a {a b} a} {a:0} {a:10000} {a,} {-a} {.a..b} a<b %2 {a.}",
    ),
    "uuid": (
        "123e4567-e89b-12d3-a456-426614174000 123E4567-E89B-12D3-A456-426614174000",
        "123e4567e89b12d3a456426614174000 123e4567-e89b-12d3-a456-42661417400 "
        "123g4567-e89b-12d3-a456-426614174000 "
        "{123e4567-e89b-12d3-a456-426614174000}",
    ),
    "json-pointer": ("/ /a/0 /a~1b/~0 /ü", "a #/a /~ /~2 a/b"),
    "relative-json-pointer": ("0 1/a 0# 12/~1", "/a 01 -1 +1/a 1a 0## 1~"),
}


class FormatsTests(SynchronousTestCase):
    """
    L{FORMATS}
    """

    def test_known(self) -> None:
        """
        Each format lets through what it should, and not the nearest thing to it.
        """
        self.assertEqual(FORMATS.keys(), KNOWN.keys())
        for name, (good, bad) in KNOWN.items():
            for text in good.split(" "):
                self.assertTrue(FORMATS[name](text), (name, text))
            for text in bad.split(" "):
                self.assertFalse(FORMATS[name](text), (name, text))

    def test_lastNewline(self) -> None:
        """
        A newline at the end belongs to no good text but that of a pointer.
        """
        pointers = {"json-pointer", "relative-json-pointer"}
        for name in FORMATS.keys() - pointers:
            for text in KNOWN[name][0].split(" "):
                self.assertFalse(FORMATS[name](f"{text}\n"), (name, text))

    def test_blanks(self) -> None:
        """
        Nor does a blank, at either end or alone, or nothing at all.
        """
        pointers = {"json-pointer", "relative-json-pointer"}
        for name in FORMATS.keys() - pointers:
            good = KNOWN[name][0].split(" ")[0]
            for text in (f" {good}", f"{good} ", " "):
                self.assertFalse(FORMATS[name](text), (name, text))
        empty = {name for name, check in FORMATS.items() if check("")}
        expected = {"uri-reference", "iri-reference", "uri-template", "json-pointer"}
        self.assertEqual(empty, expected)

    @given(
        st.datetimes(
            timezones=st.integers(-1439, 1439).map(
                lambda minutes: timezone(timedelta(minutes=minutes))
            )
        )
    )
    def test_times(self, time: datetime) -> None:
        """
        Every moment that Python can spell is one.
        """
        text = time.isoformat()
        self.assertTrue(FORMATS["date-time"](text), text)
        self.assertTrue(FORMATS["date"](text[:10]), text)
        self.assertTrue(FORMATS["time"](text[11:]), text)

    @given(st.dates(), st.ip_addresses(v=4), st.ip_addresses(v=6), st.uuids())
    def test_spelled(
        self, day: date, four: IPv4Address, six: IPv6Address, one: uuid.UUID
    ) -> None:
        """
        So is every day, address and uuid.
        """
        for name, text in (
            ("date", day.isoformat()),
            ("ipv4", str(four)),
            ("ipv6", str(six)),
            ("ipv6", six.exploded),
            ("email", f"me@[{four}]"),
            ("email", f"me@[IPv6:{six}]"),
            ("uri", f"https://[{six}]/{four}"),
            ("uuid", str(one)),
        ):
            self.assertTrue(FORMATS[name](text), (name, text))

    @given(st.text())
    def test_anyText(self, text: str) -> None:
        """
        Any text is of a format or it is not; what is of a stricter one is of
        the wider ones.
        """
        fits = {name for name, check in FORMATS.items() if check(text)}
        for strict, wide in (
            ("uri", "uri-reference"),
            ("uri", "iri"),
            ("uri-reference", "iri-reference"),
            ("email", "idn-email"),
        ):
            self.assertTrue(strict not in fits or wide in fits, (strict, text))

    def test_quick(self) -> None:
        """
        No text takes long, as it does not for the libraries that are asked.
        """
        for text in ("a", "1", "a.", "/a", "a@", "{a,", "\u0660", "ü", ":", "%20", '"'):
            for check in FORMATS.values():
                check(text * 50_000)

    def test_light(self) -> None:
        """
        Nothing is loaded for them before it is needed.
        """
        unwanted = ("idna", "jsonschema", "re2")
        self.assertEqual(loaded_after("ctrlexec.agent.formats", unwanted), "")
