# SPDX-License-Identifier: AGPL-3.0-only
"""
An API under C{twistd}, in front of a real agent, and plain HTTP clients.
"""

from __future__ import annotations

import grp
import json
import os
import socket
import subprocess
from collections.abc import Mapping
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, ClassVar

import attrs

from ctrlexec.dispatcher.operations import Stores
from ctrlexec.dispatcher.settings import DispatcherSettings
from ctrlexec.settings import load_settings
from tests.e2e.installation import (
    PATIENCE_SECONDS,
    EndToEndCase,
    free_port,
)

RUN = {"hosts": ["agent-one"], "script": "show"}
#: Runs for as long as the test wants.
WAIT = """\
#!/bin/sh
while [ -d HOME ] && [ ! -e HOME/go ]; do sleep 0.05; done
echo done
"""


class UnixConnection(HTTPConnection):
    """
    HTTP through a unix socket.
    """

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=PATIENCE_SECONDS)
        self.path = path

    def connect(self) -> None:
        """
        Connect.
        """
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE_SECONDS)
        self.sock.connect(str(self.path))


@attrs.frozen
class Reply:
    """
    @ivar fields: the header, names in lower case.
    """

    status: int
    fields: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """
        What it says.
        """
        return json.loads(self.body)


@attrs.frozen
class Client:
    """
    Somebody who keeps a connection to the API.
    """

    connection: HTTPConnection

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> Reply:
        """
        @param body: what becomes JSON, or bytes that stay what they are.
        """
        self.begin(method, path, body, **headers)
        return self.answer()

    def begin(
        self, method: str, path: str, body: object = None, **headers: str
    ) -> None:
        """
        Ask, and do something else until L{answer}.
        """
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        self.connection.request(method, path, data, headers)

    def answer(self) -> Reply:
        """
        What was asked for last.
        """
        found = self.connection.getresponse()
        fields = {name.lower(): value for name, value in found.getheaders()}
        return Reply(found.status, fields, found.read())


class ApiTestCase(EndToEndCase):
    """
    An agent, and an API that runs.
    """

    more: ClassVar[Mapping[str, object]] = {"api_auth_default": "allow"}

    def setUp(self) -> None:
        super().setUp()
        self.root.chmod(0o755)
        self.home.chmod(0o755)
        self.port = free_port()
        self.socket = self.home / "api.sock"
        self.configure(**self.more)
        (self.agent,) = self.paired("agent-one")
        self.agent.allow("wait", WAIT.replace("HOME", str(self.agent.home)))
        self.agent.serve()
        self.api = self.serve()

    def configure(self, **more: object) -> None:
        """
        Write the dispatcher's settings.
        """
        group = grp.getgrgid(os.getegid()).gr_name
        ours = {"api_port": getattr(self, "port", 0), "api_group": group}
        super().configure(**{**ours, **more})

    def serve(self) -> subprocess.Popen[str]:
        """
        The API, under C{twistd}, once it listens everywhere.
        """
        before = self.count("ACTION=api-start ")
        words = ["-n", "--pidfile=", "ctrl-exec-api", "--config", self.settings]
        api = self.start("twistd", *words)
        binds = str(self.more.get("api_bind", "")).count(",") + 1
        self.await_line(self.log, "ACTION=api-start ", api, before + binds)
        return api

    def count(self, part: str) -> int:
        """
        How many lines of the log have a text in them.
        """
        return self.log.read_text().count(part)

    def client(self, connection: HTTPConnection | None = None) -> Client:
        """
        @param connection: by default, one by TCP.
        """
        made = connection or HTTPConnection(
            "127.0.0.1", self.port, timeout=PATIENCE_SECONDS
        )
        self.addCleanup(made.close)
        return Client(made)

    def waiting(self) -> Client:
        """
        A client whose run goes on for as long as the test wants.
        """
        client = self.client()
        before = len(self.agent.lines("ACTION=run-start"))
        client.begin("POST", "/run", {**RUN, "script": "wait"})
        self.await_line(self.agent.log, "ACTION=run-start", None, before + 1)
        return client

    def let_go(self) -> None:
        """
        Let those runs end.
        """
        (self.agent.home / "go").touch()

    def locks(self) -> list[str]:
        """
        Where something runs, as the dispatcher sees it.
        """
        settings, _ = load_settings(DispatcherSettings, self.settings)
        return [each.host for each in Stores.on_files(settings).locks.listed()]
