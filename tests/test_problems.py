# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of what the API answers where it does not do what it was asked:
L{ctrlexec.api.problems}.
"""

from __future__ import annotations

import json
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.api.definitions import BadRequest
from ctrlexec.api.problems import (
    JSON,
    PROBLEM_JSON,
    asks_for_problem,
    not_found,
    problem_of,
    wrong_method,
)
from ctrlexec.errors import (
    Conflict,
    CtrlExecError,
    InvalidValue,
    Locked,
    NotAuthorised,
    NotFound,
    Overload,
    PkiError,
    ShareUsed,
    StoreError,
    Unconfirmed,
    UnknownAgents,
)

#: What each error is answered with, byte for byte: PROTOCOL.md section 8 and
#: NEWER-LINE.md section 13.
TABLE: tuple[tuple[Exception, int, bytes], ...] = (
    (
        NotAuthorised("insufficient privilege", 3),
        403,
        b'{"ok":false,"error":"insufficient privilege","code":3}',
    ),
    (
        Locked(["web-1:backup", "web-2:backup"]),
        409,
        b'{"ok":false,"error":"locked","code":4,'
        b'"conflicts":["web-1:backup","web-2:backup"]}',
    ),
    (
        Conflict("the key was used for another run"),
        422,
        b'{"ok":false,"error":"unprocessable content",'
        b'"detail":"the key was used for another run"}',
    ),
    (
        UnknownAgents(["a", "b"]),
        404,
        b'{"ok":false,"error":"unknown agent","detail":"not a registered agent: a, b"}',
    ),
    (
        NotFound("no agent matches 'x*'"),
        404,
        b'{"ok":false,"error":"not found","detail":"no agent matches \'x*\'"}',
    ),
    (
        BadRequest("hosts must be given"),
        400,
        b'{"ok":false,"error":"bad request","detail":"hosts must be given"}',
    ),
    (
        InvalidValue("port", "x", "a number"),
        400,
        b'{"ok":false,"error":"bad request",'
        b'"detail":"invalid port \'x\': expected a number"}',
    ),
    (
        Unconfirmed(60, 50),
        400,
        b'{"ok":false,"error":"bad request",'
        b'"detail":"this goes to 60 hosts, and more than 50 need a yes"}',
    ),
    (
        Overload(64),
        503,
        b'{"ok":false,"error":"service unavailable",'
        b'"detail":"too many concurrent requests"}',
    ),
    (
        ShareUsed(1),
        429,
        b'{"ok":false,"error":"too many requests","detail":"you follow 1 run already"}',
    ),
    (
        StoreError(Path("/var/lib/ctrl-exec/secret"), "is odd"),
        500,
        b'{"ok":false,"error":"internal error",'
        b'"detail":"a record can not be read or written"}',
    ),
    (
        PkiError("/etc/ctrl-exec/ctrl-exec.key: no such file"),
        500,
        b'{"ok":false,"error":"internal error",'
        b'"detail":"the dispatcher\'s certificate can not be used"}',
    ),
    (
        CtrlExecError("/etc/secret is odd"),
        500,
        b'{"ok":false,"error":"internal error",'
        b'"detail":"the dispatcher could not do it; its log says why"}',
    ),
    (
        ZeroDivisionError("a token"),
        500,
        b'{"ok":false,"error":"internal error",'
        b'"detail":"the dispatcher could not do it; its log says why"}',
    ),
)


class TableTests(SynchronousTestCase):
    """
    L{problem_of}
    """

    def test_table(self) -> None:
        """
        Each error has its status and its fields, in the original's order;
        nothing of a file or of a fault is told.
        """
        for error, status, body in TABLE:
            answer = problem_of(error).answer("*/*")
            self.assertEqual(
                (answer.status, answer.content_type, answer.body), (status, JSON, body)
            )

    def test_generic(self) -> None:
        """
        A denial can keep its reason to itself, in either type.
        """
        problem = problem_of(NotAuthorised("bad credentials", 2), generic=True)
        answer = problem.answer("")
        self.assertEqual(answer.body, b'{"ok":false,"error":"forbidden"}')
        self.assertNotIn(b"credentials", problem.answer(PROBLEM_JSON).body)

    def test_headers(self) -> None:
        """
        Some problems say what to do about them in the header.
        """
        self.assertEqual(problem_of(Overload(1)).answer("").headers["Retry-After"], "1")
        self.assertEqual(
            wrong_method("GET, HEAD").answer("").headers["Allow"], "GET, HEAD"
        )


class ProblemTests(SynchronousTestCase):
    """
    C{application/problem+json}
    """

    def test_members(self) -> None:
        """
        To the fields that there are, the members of RFC 9457 are added.
        """
        for error, status, body in TABLE:
            answer = problem_of(error).answer(PROBLEM_JSON)
            self.assertEqual(
                (answer.status, answer.content_type), (status, PROBLEM_JSON)
            )
            self.assertTrue(answer.body.startswith(body[:-1]))
            members = json.loads(answer.body)
            self.assertEqual(members["type"], "about:blank")
            self.assertEqual(members["status"], status)
            self.assertTrue(members["title"] and members["detail"])

    def test_bytes(self) -> None:
        """
        This is all of one.
        """
        problem = problem_of(NotAuthorised("denied", 1))
        self.assertEqual(
            problem.answer(PROBLEM_JSON).body,
            b'{"ok":false,"error":"denied","code":1,"type":"about:blank",'
            b'"title":"Forbidden","status":403,"detail":"denied"}',
        )

    def test_asked(self) -> None:
        """
        The type is for those who name it, and do not name it to turn it down.
        """
        for accept in (
            "application/problem+json",
            "Application/Problem+JSON; q=0.1",
            "application/json, application/problem+json;charset=utf-8;q=1",
        ):
            self.assertTrue(asks_for_problem(accept), accept)
        for accept in (
            "",
            "*/*",
            "application/*",
            "application/problem+xml",
            "application/problem+json;q=0",
            "application/problem+json; q=0.000",
        ):
            self.assertFalse(asks_for_problem(accept), accept)

    def test_text(self) -> None:
        """
        What a client has sent can be in it, and breaks nothing.
        """
        body = not_found('there is no /"\n\u2028').answer("").body
        self.assertEqual(json.loads(body)["detail"], 'there is no /"\n\u2028')
        self.assertTrue(body.isascii())
