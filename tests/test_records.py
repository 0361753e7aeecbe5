# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.records}.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.dispatcher.records import (
    AgentRecord,
    QueuedRequest,
    Revealed,
    decode_record,
    decode_request,
    encode_record,
    encode_request,
    record_fields,
)
from ctrlexec.errors import InvalidValue, StoreError
from tests.dispatching import CSR, NONCE, REQID, request

RECORD = Path("/agents/agent-one.json")
REQUEST = Path(f"/pairing/{REQID}.json")

# As the older line writes it.
OLD_RECORD = {
    "hostname": "agent-one",
    "ip": "192.0.2.1",
    "paired": "2026-03-05T18:38:09Z",
    "expiry": "Jun  7 16:28:00 2028 GMT",
    "reqid": REQID,
    "dispatcher_serial": "0A",
    "serial_status": "confirmed",
    "serial_broadcast": None,
    "serial_confirmed": "2026-03-05T18:38:09Z",
}
OLD_REQUEST = {
    "id": REQID,
    "hostname": "agent-one",
    "ip": "192.0.2.1",
    "csr": CSR,
    "nonce": NONCE,
    "received": "2026-11-20T22:32:04Z",
    "code": "227406",
}

texts = st.text(st.characters(codec="utf-8"))
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)
scripts = st.from_regex(r"[A-Za-z0-9_-]{1,20}", fullmatch=True)
scalars = st.none() | st.booleans() | st.integers() | texts
anything = st.recursive(scalars, lambda s: st.lists(s) | st.dictionaries(texts, s))


def record_from(**fields: Any) -> AgentRecord:
    """
    The older line's record, with some of its fields changed.
    """
    return decode_record(RECORD, json.dumps({**OLD_RECORD, **fields}).encode())


def request_from(**fields: Any) -> QueuedRequest:
    """
    The older line's request, with some of its fields changed.
    """
    return decode_request(REQUEST, json.dumps({**OLD_REQUEST, **fields}).encode())


class AgentRecordTests(SynchronousTestCase):
    """
    Records of agents.
    """

    def test_ofTheOlderLine(self) -> None:
        """
        Fields that the older line does not know have the values that it
        implies, and C{confirmed} is its word for C{current}.
        """
        self.assertEqual(
            record_from(),
            AgentRecord(
                "agent-one",
                ip="192.0.2.1",
                paired="2026-03-05T18:38:09Z",
                expiry="Jun  7 16:28:00 2028 GMT",
                reqid=REQID,
                lookup_by="hostname",
                port=7443,
                dispatcher_serial="a",
                serial_status="current",
                serial_confirmed="2026-03-05T18:38:09Z",
            ),
        )

    def test_looseTypes(self) -> None:
        """
        A number can be a text, and an empty mapping an array.
        """
        record = record_from(port="7000", tags=[], dispatcher_serial=10)
        self.assertEqual(record.port, 7000)
        self.assertEqual(record.tags, {})
        # A serial on disk is hex, whatever JSON takes it for.
        self.assertEqual(record.dispatcher_serial, "10")

    def test_unknownFieldsStay(self) -> None:
        """
        What a later line has added is still there when we have written.
        """
        record = record_from(added={"later": [1]})
        again = json.loads(encode_record(record))
        self.assertEqual(again["added"], {"later": [1]})

    def test_extraHidesNothing(self) -> None:
        """
        An unknown field can not stand in for one that we know.
        """
        record = AgentRecord("agent-one", extra={"hostname": "agent-two"})
        self.assertEqual(record_fields(record)["hostname"], "agent-one")

    @given(
        st.builds(
            AgentRecord,
            names,
            ip=texts,
            paired=texts,
            expiry=texts,
            reqid=texts,
            lookup_by=st.sampled_from(["ip", "hostname"]),
            port=st.integers(1, 65535),
            tags=st.dictionaries(texts, texts),
            dispatcher_serial=st.sampled_from(["", "a", "4f0a"]),
            serial_status=st.sampled_from(["unknown", "pending", "current", "stale"]),
            scripts=st.lists(scripts).map(tuple),
            identity=st.just("") | names,
            extra=st.dictionaries(names.map("x-{}".format), anything),
        )
    )
    def test_roundTrip(self, record: AgentRecord) -> None:
        """
        What is written is what is read.
        """
        path = RECORD.with_name(f"{record.hostname}.json")
        self.assertEqual(decode_record(path, encode_record(record)), record)

    def test_onlyOurs(self) -> None:
        """
        What an original does not know is written where there is something to
        say, and only there.
        """
        for record in (AgentRecord("agent-one"), record_from()):
            self.assertEqual({"scripts", "identity"} & {*record_fields(record)}, set())
        record = record_from(scripts=["echo", "uptime"], identity="web-1")
        self.assertEqual(record.scripts, ("echo", "uptime"))
        self.assertEqual(record.identity, "web-1")
        fields = json.loads(encode_record(record))
        self.assertEqual(fields["scripts"], ["echo", "uptime"])
        self.assertEqual(fields["identity"], "web-1")

    def test_oddScripts(self) -> None:
        """
        What can be no script's name is none that is known; that is not worth
        losing the record for.
        """
        odds: list[Any] = ["echo", {"echo": 1}, None, 1, ["../x", "", 1, [], None]]
        for odd in odds:
            self.assertEqual(record_from(scripts=odd).scripts, ())
        self.assertEqual(record_from(scripts=["a b", "echo"]).scripts, ("echo",))

    def test_oddIdentity(self) -> None:
        """
        Where it is not clear whose certificate an agent has, none is accepted.
        """
        self.assertEqual(record_from(identity=None).identity, "")
        odds: list[Any] = ["../x", "a b", ["web-1"], {}, True]
        for odd in odds:
            self.assertRaises(StoreError, record_from, identity=odd)

    def test_address(self) -> None:
        """
        An agent is reached as its record says: NEWER-LINE.md section 14.
        """
        for lookup_by, ip, expected in (
            ("hostname", "192.0.2.1", "agent-one"),
            ("ip", "192.0.2.1", "192.0.2.1"),
            ("ip", "", "agent-one"),
        ):
            self.assertEqual(
                record_from(lookup_by=lookup_by, ip=ip).address(), expected
            )

    def test_ofAnother(self) -> None:
        """
        A copied file does not send one agent's orders to another.
        """
        with self.assertRaisesRegex(
            StoreError, "agent-one.json: is not the record of the agent"
        ):
            record_from(hostname="agent-two")

    def test_broken(self) -> None:
        """
        A record that is cut off or wrong is an error that names its file.
        """
        whole = json.dumps(OLD_RECORD).encode()
        broken = [whole[:-9], b"", b"[]", b"\xff", b"[" * 100_000]
        broken += [
            json.dumps({**OLD_RECORD, **fields}).encode()
            for fields in (
                {"port": 0.5},
                {"port": 65536},
                {"tags": "x"},
                {"ip": ["192.0.2.1"]},
                {"hostname": None},
            )
        ]
        for data in broken:
            with self.assertRaises(StoreError) as caught:
                decode_record(RECORD, data)
            self.assertEqual(caught.exception.path, RECORD)

    @given(
        st.binary() | st.dictionaries(texts, anything).map(json.dumps).map(str.encode)
    )
    def test_anything(self, data: bytes) -> None:
        """
        No file, whatever it holds, is more than an error.
        """
        for decode, path in ((decode_record, RECORD), (decode_request, REQUEST)):
            self.assertRaises(StoreError, decode, path, data)


class QueuedRequestTests(SynchronousTestCase):
    """
    Requests in the queue.
    """

    def test_ofTheOlderLine(self) -> None:
        """
        What the older line does not write is not known.
        """
        self.assertEqual(
            request_from(),
            request(received="2026-11-20T22:32:04Z", code="227406", source_ip=""),
        )

    def test_unsaid(self) -> None:
        """
        What the agent did not say is not in the file, as in the original's.
        """
        fields = json.loads(encode_request(request()))
        self.assertNotIn("lookup_by", fields)
        self.assertNotIn("port", fields)
        self.assertEqual(fields["reverse_confirmed"], 0)

    @given(
        st.builds(
            request,
            ip=st.ip_addresses().map(str),
            source_ip=st.ip_addresses().map(str),
            nonce=texts,
            csr=texts.filter(bool),
            lookup_by=st.sampled_from(["", "ip", "hostname"]),
            port=st.integers(0, 65535),
            reverse_dns=st.sampled_from(["", "agent-one.example"]),
            reverse_confirmed=st.booleans(),
        )
    )
    def test_roundTrip(self, asked: QueuedRequest) -> None:
        """
        What is written is what is read.
        """
        self.assertEqual(decode_request(REQUEST, encode_request(asked)), asked)

    def test_ofOurs(self) -> None:
        """
        What ours have shown each other is in the file; where there is nothing
        the request is of the original.
        """
        seen = Revealed("a1" * 32, "d2" * 32, "CA", "CERT")
        asked = request(revealed=seen)
        self.assertFalse(asked.legacy)
        text = encode_request(asked)
        self.assertEqual(json.loads(text)["pair"], 2)
        self.assertEqual(decode_request(REQUEST, text), asked)
        self.assertTrue(request_from().legacy)
        self.assertNotIn(b"revealed", encode_request(request()))

    def test_ofOthers(self) -> None:
        """
        A file that says that it is of another exchange than these is not taken
        for one of the original.
        """
        for fields in ({"pair": 3}, {"pair": 2}, {"pair": 2, "revealed": "x"}):
            self.assertRaises(StoreError, request_from, **fields)
        whole = {"pair": 2, "revealed": {"nonce_a": 0.5}}
        self.assertRaises(StoreError, request_from, **whole)

    def test_looseTypes(self) -> None:
        """
        Numbers and booleans can be texts.
        """
        asked = request_from(port="7000", reverse_confirmed="1", lookup_by="ip")
        self.assertEqual(
            (asked.port, asked.reverse_confirmed, asked.lookup_by), (7000, True, "ip")
        )

    def test_hostileText(self) -> None:
        """
        What a stranger could have chosen and a person will read is a plain
        value or nothing.
        """
        asked = request_from(
            reverse_dns="\x1b[2J",
            ip="\x1b[2J",
            source_ip="x",
            received="\x1b[2J",
            lookup_by="\x1b[2J",
        )
        self.assertEqual(
            (asked.reverse_dns, asked.ip, asked.source_ip, asked.received),
            ("", "", "", ""),
        )
        self.assertEqual(asked.lookup_by, "")

    def test_broken(self) -> None:
        """
        A file that holds no request, or another one, is an error.
        """
        for name, value in (
            ("id", "another"),
            ("hostname", "../agent"),
            ("hostname", "a\nb"),
            ("csr", ""),
            ("csr", None),
            ("nonce", []),
            ("port", "x"),
        ):
            self.assertRaises(StoreError, request_from, **{name: value})

    def test_names(self) -> None:
        """
        There is no request whose name could be a path.
        """
        self.assertRaises(InvalidValue, request, hostname="../agent")
        self.assertRaises(InvalidValue, request, "../id")
