# SPDX-License-Identifier: AGPL-3.0-only
"""
Somebody who speaks to an agent, request by request.
"""

from __future__ import annotations

import json
from http.client import HTTPSConnection
from typing import Any

import attrs


@attrs.frozen
class Client:
    """
    Asks an agent one thing after the other.
    """

    connection: HTTPSConnection

    def ask(self, path: str, **fields: object) -> tuple[int, Any]:
        """
        @param fields: of the request; without any it has no body.
        @return: the status and the answer.
        """
        self.begin(path, **fields)
        return self.answer()

    def run(self, script: str, *args: str, **more: object) -> Any:
        """
        @return: what is answered to a run.
        """
        status, answer = self.ask("/run", script=script, args=args, **more)
        assert status == 200, answer
        return answer

    def begin(self, path: str, **fields: object) -> None:
        """
        Ask, and do something else until L{answer}.
        """
        method, body = ("POST", json.dumps(fields)) if fields else ("GET", None)
        self.connection.request(method, path, body)

    def answer(self) -> tuple[int, Any]:
        """
        What has been asked for last.
        """
        response = self.connection.getresponse()
        return response.status, json.loads(response.read())
