# SPDX-License-Identifier: AGPL-3.0-only
"""
What tests of the rotation share: a dispatcher whose certificate is replaced, and
agents that are told.
"""

from __future__ import annotations

from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ctrlexec.dispatcher.authority import Authority
from ctrlexec.dispatcher.operations import Dispatcher
from ctrlexec.dispatcher.rotation import Rotating
from ctrlexec.dispatcher.rotation_state import (
    RotationFile,
    RotationState,
)
from ctrlexec.errors import TransportError
from ctrlexec.protocol.codec_trust import NoSuchRequest
from tests.authority import NOW
from tests.fake_agents import FakeAgents
from tests.operating import ALICE, DispatcherCase

OLDER = NoSuchRequest("the agent answered 404: not found")
GONE = TransportError("gone")


class RotationCase(DispatcherCase):
    """
    A dispatcher whose certificate was made at C{NOW}, with two agents.
    """

    def setUp(self) -> None:
        super().setUp()
        self.done(self.dispatcher.setup_ca(ALICE))
        self.done(self.dispatcher.setup_identity(ALICE, confirmed=True))
        self.authority = Authority(self.dispatcher.settings)
        self.old = self.authority.dispatcher()
        for name in ("web-1", "web-2"):
            known = attrs.evolve(
                self.record(name),
                dispatcher_serial=self.old.serial,
                serial_status="current",
            )
            self.register(known)
        self.former = FakeAgents()
        self.now = NOW
        self.dispatcher = self.bound(self.dispatcher)
        self.written.events.clear()

    def bound(self, dispatcher: Dispatcher) -> Dispatcher:
        """
        The same, at the time that a test has, and with agents that know it by
        its former certificate.
        """
        process = attrs.evolve(
            dispatcher.process, now=lambda: self.now, reactor=self.clock
        )
        return attrs.evolve(
            dispatcher, process=process, former_agents=lambda reactor: self.former
        )

    def advance(self, *, begin: bool = False) -> RotationState:
        """
        Do the next step.
        """
        rotating = Rotating(self.dispatcher, "alice")
        ended: list[Any] = []
        Deferred.fromCoroutine(rotating.advance(begin=begin)).addBoth(ended.append)
        (result,) = ended
        if isinstance(result, Failure):
            result.raiseException()
        assert isinstance(result, RotationState)
        return result

    @property
    def state(self) -> RotationState:
        """
        What is written down.
        """
        return RotationFile(self.dispatcher.settings.rotation_file).load()

    def told(self, agents: FakeAgents) -> list[tuple[str, str, str]]:
        """
        Which agents were told what, since the last time.
        """
        told, agents.rotated[:] = sorted(agents.rotated), []
        return told

    def files(self) -> set[str]:
        """
        The dispatcher's own keys and certificates.
        """
        directory = self.dispatcher.settings.ca_dir
        return {each.name for each in directory.glob("ctrl-exec.*")}
