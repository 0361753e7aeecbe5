# SPDX-License-Identifier: AGPL-3.0-only
"""
Who looks on while the API carries an order out: nobody, or a client that may
leave before it is answered.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
from twisted.python.failure import Failure

from ctrlexec.api.http import ApiRequest


@attrs.define(eq=False)
class Presence:
    """
    Whether a client still waits for its answer.

    @ivar request: what it has asked; nothing of that is answered yet.
    @ivar on_leaving: what to do when it leaves without one, if anything.
    """

    request: ApiRequest
    has_left: bool = False
    on_leaving: Callable[[], None] | None = None

    @classmethod
    def at(cls, request: ApiRequest) -> Presence:
        """
        Look out for when it leaves.
        """
        found = cls(request)
        request.notifyFinish().addErrback(found._leave)
        return found

    def _leave(self, reason: Failure) -> None:
        self.has_left = True
        if self.on_leaving is not None:
            self.on_leaving()


@attrs.frozen
class Unwatched:
    """
    Nobody looks on. Whoever gave the order may leave: it is carried out all the
    same, and kept.
    """

    def wanted(self) -> bool:
        """
        See L{Watcher<ctrlexec.dispatcher.results.Watcher>}, as for the others.
        """
        return True

    def planned(self, hosts: int, reqid: str = "") -> None:
        """
        Nobody is told.
        """

    def asked(self, host: str) -> None:
        """
        Nobody is told.
        """

    def arrived(self, row: object) -> None:
        """
        Nobody is told.
        """

    def heard(self, host: str, event: object) -> None:
        """
        Nobody is told.
        """


@attrs.define(eq=False)
class Attended(Unwatched):
    """
    Somebody waits who wants nothing of it once they have left.

    @ivar cancel: ends a run, by its request id.
    """

    client: Presence
    cancel: Callable[[str], None]

    def wanted(self) -> bool:
        """
        No further host is asked for nobody.
        """
        return not self.client.has_left

    def planned(self, hosts: int, reqid: str = "") -> None:
        """
        From here on there is something to be ended.
        """
        self.client.on_leaving = lambda: self.cancel(reqid)
