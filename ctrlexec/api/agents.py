# SPDX-License-Identifier: AGPL-3.0-only
"""
What speaks to agents for as long as the API runs: one TLS context, and
connections that wait for the next request.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.interfaces import IReactorTime

from ctrlexec.certificates import read_certificate
from ctrlexec.dispatcher.over_tls import agents_over_tls
from ctrlexec.dispatcher.settings import DispatcherSettings
from ctrlexec.protocol.pool import Pool

#: What tells a file from the one that was in its place before.
Stamp = tuple[int, int, int] | None


@attrs.frozen
class _Made:
    """
    @ivar agents: L{Agents<ctrlexec.dispatcher.dispatch.Agents>}, which no skin
        knows by that name.
    @ivar stamps: of the files that it was made of.
    @ivar until: when its certificate ends.
    """

    agents: Any
    pool: Pool
    stamps: tuple[Stamp, ...]
    until: datetime


@attrs.define(eq=False)
class KeptAgents:
    """
    Made anew when the dispatcher's key, its certificate or the CA's is another
    one than before: no connection that was made with the old ones is used then.
    """

    settings: DispatcherSettings
    now: Callable[[], datetime]
    _made: _Made | None = attrs.field(default=None, init=False)

    def __call__(self, reactor: IReactorTime) -> Any:
        """
        @raise PkiError: the dispatcher has no identity that an agent would
            accept.
        """
        settings = self.settings
        # Before they are read: one that is replaced meanwhile shows next time.
        stamps = tuple(map(_stamp, (settings.key, settings.cert, settings.ca)))
        made = self._made
        if made is None or made.stamps != stamps or made.until <= self.now():
            self.close()
            made = self._made = self._make(reactor, stamps)
        return made.agents

    def _make(self, reactor: IReactorTime, stamps: tuple[Stamp, ...]) -> _Made:
        pool = Pool(reactor)
        agents = agents_over_tls(self.settings, self.now(), reactor, pool)
        until = read_certificate(self.settings.cert.read_bytes()).not_after
        return _Made(agents, pool, stamps, until)

    def close(self) -> None:
        """
        Keep no connection. What is under way is answered.
        """
        made, self._made = self._made, None
        if made is not None:
            made.pool.close()


def _stamp(path: Path) -> Stamp:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
