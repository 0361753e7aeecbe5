# SPDX-License-Identifier: AGPL-3.0-only
"""
Somebody who hears what a run writes, for tests.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from ctrlexec.protocol.codec_runs import EVENTS_TYPE, encode_event
from ctrlexec.protocol.http import chunk, response_head
from ctrlexec.protocol.messages import RunRequest
from ctrlexec.protocol.run_messages import (
    Output,
    StateChanged,
    StreamEnded,
)
from tests.edges import Host
from tests.wires import HOST, TARGET, ClientTestCase

RUN = RunRequest("a", reqid="9f")
RUNNING = StateChanged(0.0, "running")
HELLO = Output(0.1, "stdout", "hello\n", 6)
END = StreamEnded(0.2, "a", "9f", 0, stdout_bytes=6)
HEAD = response_head(200, None, minor=1, keep_alive=True, content_type=EVENTS_TYPE)
CLOSED = f"host '{HOST}' closed the connection without an answer"
LEFT = "the script may still be running there"


def told(*events: Any) -> bytes:
    """
    Events as they are sent, one chunk each.
    """
    return b"".join(chunk(encode_event(event)) for event in events)


class Source:
    """
    A run, as its agent tells of it.
    """

    def __init__(self) -> None:
        self.lines: list[bytes | None] = []

    def pull(self) -> bytes | None:
        """
        The next line.
        """
        return self.lines.pop(0) if self.lines else b""


class LiveTestCase(ClientTestCase):
    """
    An agent, and somebody who hears what a run on it writes.
    """

    def setUp(self) -> None:
        super().setUp()
        self.heard: list[Output | StateChanged] = []
        self.host = Host()

    def hear(self, event: Output | StateChanged) -> Deferred[None] | None:
        """
        Remember it.
        """
        self.heard.append(event)
        return None

    def live(
        self, heard: Callable[..., Any] | None = None, **options: Any
    ) -> Deferred[Any]:
        """
        Ask for a run, and hear it.
        """
        client = self.network.client(**options)
        return self.network.ask(client.run_live(TARGET, RUN, heard or self.hear))

    def scripted(self, *script: bytes, **options: Any) -> Any:
        """
        Let an agent answer with these bytes.
        """
        self.network.reactor.tcpServers.clear()
        return self.network.scripted(*script, **options)

    def assertNothing(self, asked: Deferred[Any], kind: Any, text: str) -> Exception:
        """
        There is no answer, for this reason.
        """
        why = self.failureResultOf(asked, kind).value
        self.assertEqual(str(why), text)
        self.network.flush()
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        error: Exception = why
        return error
