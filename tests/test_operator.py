# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.dispatcher.operator}: what a command line tells the API.
"""

from __future__ import annotations

import contextlib
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.dispatcher.operator import (
    OPERATIONS,
    AttachWish,
    CancelWish,
    Request,
    WaitWish,
    Wish,
    decode_request,
    encode_request,
)
from ctrlexec.dispatcher.orders import Caller, Rolling, RunOrder, Seen, Selection
from ctrlexec.errors import ProtocolError
from ctrlexec.values import ON_DISCONNECT, Portion
from tests.messages import JSON

#: A command line can hold bytes that are no text: half of a surrogate pair each.
TEXTS = st.text(st.characters())
ALL_TEXTS = st.lists(TEXTS, max_size=3).map(tuple)
SELECTIONS = st.builds(
    Selection, ALL_TEXTS, ALL_TEXTS, st.none() | st.integers(1, 65535)
)
SECONDS = st.integers(0, 10**9) | st.floats(0, 10**9)
PORTIONS = st.builds(Portion, st.integers(0, 100), st.booleans())
ROLLING = st.builds(
    Rolling,
    canary=st.integers(0, 10**6),
    batch=st.none() | PORTIONS,
    wait_seconds=SECONDS,
    max_failures=st.none() | PORTIONS,
)
SEEN = st.builds(Seen, st.integers(0, 2**40), st.integers(0, 2**40))
ORDERS = st.builds(
    RunOrder,
    selection=SELECTIONS,
    script=TEXTS,
    args=ALL_TEXTS,
    wait_lock_seconds=SECONDS,
    confirmed=st.booleans(),
    asynchronous=st.booleans(),
    follow=st.booleans(),
    timeout_seconds=st.none() | SECONDS.filter(bool),
    on_disconnect=st.sampled_from(ON_DISCONNECT),
    rolling=st.none() | ROLLING,
    key=TEXTS,
)
WISHES = st.one_of(
    st.tuples(st.just("run"), ORDERS),
    st.tuples(st.sampled_from(("ping", "discover", "select", "ps")), SELECTIONS),
    st.tuples(st.just("list-agents"), st.dictionaries(TEXTS, TEXTS, max_size=3)),
    st.tuples(st.just("status"), TEXTS),
    st.tuples(st.just("wait"), st.builds(WaitWish, TEXTS, SECONDS)),
    st.tuples(st.just("cancel"), st.builds(CancelWish, TEXTS, ALL_TEXTS)),
    st.tuples(
        st.just("attach"),
        st.builds(
            AttachWish, TEXTS, ALL_TEXTS, st.dictionaries(TEXTS, SEEN, max_size=3)
        ),
    ),
)
MEMBERS = """
    username token selection words exclude port script args wait_lock_seconds
    confirmed tags reqid asynchronous follow timeout_seconds on_disconnect rolling
    key seconds hosts seen
""".split()


class OperatorTests(SynchronousTestCase):
    """
    Orders, on their way.
    """

    @given(TEXTS, TEXTS, WISHES)
    def test_roundTrip(
        self, username: str, token: str, asked: tuple[str, Wish]
    ) -> None:
        """
        Whatever is ordered arrives as it was, one line of ASCII on the way.
        """
        operation, wish = asked
        body = encode_request(Caller(username=username, token=token), wish)
        self.assertTrue(body.isascii())
        self.assertNotIn(b"\n", body)
        self.assertEqual(
            decode_request(operation, body),
            Request(operation=operation, username=username, token=token, wish=wish),
        )

    def test_spelled(self) -> None:
        """
        An order looks like this, and what is not known in it is passed over.
        """
        selection = Selection(("web-1", "web-2:8443"), ("web-9",), 7443)
        rolling = Rolling(canary=1, batch=Portion(25, True), wait_seconds=30)
        order = RunOrder(
            selection=selection, script="backup", args=("--full",), rolling=rolling
        )
        body = encode_request(Caller(username="ann", token="t0ken"), order)
        fields = {
            "username": "ann",
            "token": "t0ken",
            "selection": {
                "words": ["web-1", "web-2:8443"],
                "exclude": ["web-9"],
                "port": 7443,
            },
            "script": "backup",
            "args": ["--full"],
            "wait_lock_seconds": 0,
            "confirmed": False,
            "asynchronous": False,
            "follow": False,
            "timeout_seconds": None,
            "on_disconnect": "keep",
            "rolling": {
                "canary": 1,
                "batch": "25%",
                "wait_seconds": 30,
                "max_failures": None,
            },
            "key": "",
        }
        self.assertEqual(json.loads(body), fields)
        later = json.dumps({**fields, "priority": 7}).encode()
        self.assertEqual(decode_request("run", later), decode_request("run", body))

    def test_least(self) -> None:
        """
        What is left out is what it is when nothing is given.
        """
        body = b'{"selection":{},"script":"backup"}'
        order = RunOrder(selection=Selection(()), script="backup")
        self.assertEqual(
            decode_request("run", body),
            Request(operation="run", username="", token="", wish=order),
        )

    def test_refused(self) -> None:
        """
        What is no order is refused, in words that say why.
        """
        for operation, body, error in (
            ("run", "", "invalid JSON"),
            ("run", "[]", "invalid JSON"),
            ("run", "[" * 10_000, "invalid JSON"),
            ("run", "{}", "an object was expected"),
            ("ping", '{"selection":[]}', "an object was expected"),
            ("ping", '{"selection":{"words":"a"}}', "words must be an array"),
            ("ping", '{"selection":{"words":[1]}}', "words must be texts"),
            ("ping", '{"selection":{"port":"1"}}', "port must be a whole number"),
            ("ping", '{"selection":{"port":true}}', "port must be a whole number"),
            ("ping", '{"selection":{},"token":1}', "token must be a text"),
            ("run", '{"selection":{},"script":1}', "script must be a text"),
            ("run", '{"selection":{},"args":{}}', "args must be an array"),
            (
                "run",
                '{"selection":{},"confirmed":1}',
                "confirmed must be true or false",
            ),
            (
                "run",
                '{"selection":{},"wait_lock_seconds":-1}',
                "wait_lock_seconds must be a number of seconds",
            ),
            (
                "run",
                '{"selection":{},"wait_lock_seconds":true}',
                "wait_lock_seconds must be a number of seconds",
            ),
            (
                "run",
                '{"selection":{},"timeout_seconds":0}',
                "timeout_seconds must be more than none",
            ),
            (
                "run",
                '{"selection":{},"timeout_seconds":1e10}',
                "timeout_seconds must be a number of seconds",
            ),
            (
                "run",
                '{"selection":{},"on_disconnect":"burn"}',
                "on_disconnect must be keep or cancel",
            ),
            ("run", '{"selection":{},"rolling":1}', "an object was expected"),
            (
                "run",
                '{"selection":{},"rolling":{"canary":-1}}',
                "canary must not be below zero",
            ),
            (
                "run",
                '{"selection":{},"rolling":{"batch":"many"}}',
                "batch: invalid number 'many': expected a number such as 3, or 25%",
            ),
            (
                "run",
                '{"selection":{},"rolling":{"batch":3}}',
                "batch must be a text",
            ),
            (
                "run",
                '{"selection":{},"asynchronous":1}',
                "asynchronous must be true or false",
            ),
            (
                "wait",
                '{"reqid":"r","seconds":-1}',
                "seconds must be a number of seconds",
            ),
            ("attach", '{"reqid":"r","seen":[]}', "an object was expected"),
            ("attach", '{"reqid":"r","seen":{"a":1}}', "an object was expected"),
            (
                "attach",
                '{"reqid":"r","seen":{"a":{"stdout":-1}}}',
                "what is seen must not be below zero",
            ),
            ("cancel", '{"reqid":"r","hosts":"a"}', "hosts must be an array"),
            ("list-agents", '{"tags":[]}', "an object was expected"),
            ("list-agents", '{"tags":{"a":1}}', "a must be a text"),
            ("status", '{"reqid":null}', "reqid must be a text"),
            ("unpair", "{}", "there is no operation 'unpair'"),
        ):
            with self.assertRaises(ProtocolError, msg=body[:80]) as caught:
                decode_request(operation, body.encode())
            self.assertEqual(str(caught.exception), error)

    @given(
        st.sampled_from((*OPERATIONS, "other")),
        st.dictionaries(st.sampled_from(MEMBERS), JSON),
    )
    def test_anything(self, operation: str, fields: dict[str, Any]) -> None:
        """
        Our members with any values are an order or a L{ProtocolError}.
        """
        with contextlib.suppress(ProtocolError):
            decode_request(operation, json.dumps(fields).encode())

    def test_token(self) -> None:
        """
        A token is not shown with the request that carries it.
        """
        request = decode_request("status", b'{"token":"t0ken","reqid":"r"}')
        self.assertNotIn("t0ken", repr(request))
