# SPDX-License-Identifier: AGPL-3.0-only
"""
What tests of the dispatcher's side share: its settings in a directory of their
own, an agent's request, and a log to look at.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import attrs
from twisted.internet.defer import Deferred, execute
from zope.interface import implementer

from ctrlexec.dispatcher.authority import Authority
from ctrlexec.dispatcher.lifecycle import Trust
from ctrlexec.dispatcher.queue import FilePairingQueue
from ctrlexec.dispatcher.records import QueuedRequest, Revealed
from ctrlexec.dispatcher.registry import FileRegistry
from ctrlexec.dispatcher.requests import with_revealed
from ctrlexec.dispatcher.settings import DispatcherSettings
from ctrlexec.events import Event
from ctrlexec.interfaces import IEventSink
from ctrlexec.pki import confirmation_code, make_csr
from ctrlexec.values import iso_time
from tests.authority import KEY, NOW

REQID = "a8e5d95be720fcc8"
NONCE = "0123456789abcdef0123456789abcdef"
CSR = make_csr(KEY, "agent-one").decode()

T = TypeVar("T")


def settings_in(directory: Path, **others: Any) -> DispatcherSettings:
    """
    Settings whose files are all in one directory.
    """
    return DispatcherSettings(
        directory=directory,
        ca_dir=directory / "etc",
        state_dir=directory / "var",
        dispatcher_id=others.pop("dispatcher_id", "hq"),
        **others,
    )


def request(reqid: str = REQID, **others: Any) -> QueuedRequest:
    """
    A request of C{agent-one}, received at C{NOW}.
    """
    whole = QueuedRequest(
        id=reqid,
        hostname="agent-one",
        ip="192.0.2.1",
        csr=CSR,
        nonce=NONCE,
        received=iso_time(NOW),
        code=confirmation_code(CSR.encode()),
        source_ip="192.0.2.1",
    )
    return attrs.evolve(whole, **others)


def protected(authority: Authority, reqid: str = REQID, **others: Any) -> QueuedRequest:
    """
    The same in the exchange of ours, with a dispatcher that is set up.
    """
    ca, cert = authority.ca_certificate(), authority.settings.cert.read_bytes()
    seen = Revealed("a1" * 32, "d2" * 32, ca.decode(), cert.decode())
    return with_revealed(request(reqid, **others), reqid, seen)


@implementer(IEventSink)
@attrs.frozen
class Recorder:
    """
    A log in memory.
    """

    events: list[Event] = attrs.field(factory=list)

    def emit(self, event: Event) -> None:
        """
        Remember it.
        """
        self.events.append(event)

    @property
    def actions(self) -> list[str]:
        """
        What happened, in one word each.
        """
        return [event.action for event in self.events]


def at_once(work: Callable[..., T], *args: Any) -> Deferred[T]:
    """
    A thread that is done before anybody looks.
    """
    return execute(work, *args)


def trust_in(settings: DispatcherSettings, events: IEventSink) -> Trust:
    """
    An operator called C{root}, at C{NOW}.
    """
    return Trust(
        Authority(settings),
        FileRegistry(settings.registry_dir),
        FilePairingQueue.of(settings),
        events,
        lambda: NOW,
        "root",
    )
