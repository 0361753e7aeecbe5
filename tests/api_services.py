# SPDX-License-Identifier: AGPL-3.0-only
"""
The API as a service, on a reactor in memory.
"""

from __future__ import annotations

import grp
import os
import shutil
import signal
import tempfile
from pathlib import Path
from typing import Any

import attrs
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.api.running import (
    ApiService,
    api_service,
)
from ctrlexec.api.source import Overrides
from ctrlexec.pki import AgentRole
from tests.apis import Wire, asking
from tests.authority import KEY, issued
from tests.enrolling import Reactor
from tests.fake_agents import FakeAgents
from tests.wired import CA, DISPATCHER, TODAY

GROUP = grp.getgrgid(os.getegid()).gr_name


class RunningCase(SynchronousTestCase):
    """
    A dispatcher's settings and identity.
    """

    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="ctrl-exec-"))
        self.addCleanup(shutil.rmtree, self.directory)
        self.file = self.directory / "ctrl-exec.conf"
        self.state = self.directory / "state"
        self.state.mkdir()
        self.log = self.directory / "log"
        self.configure()
        for name, content in (
            ("ctrl-exec.key", DISPATCHER.key),
            ("ctrl-exec.crt", DISPATCHER.cert),
            ("ca.crt", CA),
        ):
            (self.directory / name).write_bytes(content)
        (self.directory / "ctrl-exec.key").chmod(0o600)
        self.reactor: Any = Reactor()
        self.agents = FakeAgents()

    def configure(self, **more: object) -> None:
        """
        Write the settings.
        """
        values = {
            "ca_dir": ".",
            "state_dir": "state",
            "log": self.log,
            "api_auth_default": "allow",
            "api_group": GROUP,
            "unregistered_hosts": "connect",
            **more,
        }
        self.file.write_text("".join(f"{k} = {v}\n" for k, v in values.items()))

    def secure(self, role: AgentRole | None = None) -> None:
        """
        Put a certificate for HTTPS in its place.
        """
        cert = issued(role or AgentRole("api"), ca=CA, now=TODAY)
        (self.directory / "api.crt").write_bytes(cert)
        (self.directory / "api.key").write_bytes(KEY)
        (self.directory / "api.key").chmod(0o600)

    def made(self, **overrides: Any) -> ApiService:
        """
        A service that does not run yet.
        """
        return api_service(self.reactor, self.file, Overrides(**overrides))

    def started(self, **overrides: Any) -> ApiService:
        """
        One that runs for as long as the test does.
        """
        service = self.made(**overrides)
        service.privilegedStartService()
        service.startService()
        self.addCleanup(self.ended, service)
        self.service = service
        self.fake_agents()
        return service

    def fake_agents(self) -> None:
        """
        Nobody is asked over a network.
        """
        api = self.service.api
        api.dispatcher = attrs.evolve(
            api.dispatcher, agents=lambda reactor: self.agents
        )

    def ended(self, service: ApiService) -> None:
        """
        Stop it, if it runs, without waiting.
        """
        if service.running:
            stopping = service.stopService()
            self.reactor.advance(10_000)
            self.successResultOf(stopping)

    def wire(self, number: int = 0) -> Wire:
        """
        A client of one of its sockets.
        """
        return Wire.to(self.service.sockets.sites[number])

    def ask(self, path: str) -> int:
        """
        @return: the status of what is answered.
        """
        wire = self.wire().send(asking("GET", path))
        status = wire.reply().status
        wire.leave()
        return status

    def logged(self, action: str) -> list[str]:
        """
        The lines with an action, without what comes before it.
        """
        text = self.log.read_text() if self.log.exists() else ""
        lines = (line.partition(": ")[2] for line in text.splitlines())
        return [line for line in lines if line.startswith(f"ACTION={action} ")]

    def hang_up(self) -> None:
        """
        C{SIGHUP}.
        """
        os.kill(os.getpid(), signal.SIGHUP)
