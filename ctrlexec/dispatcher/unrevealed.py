# SPDX-License-Identifier: AGPL-3.0-only
"""
How many may begin to ask and not wait until somebody has decided.

Whoever plays an agent knows the code as soon as they have the dispatcher's
nonce. Each time that they leave then, whether they have revealed theirs or not,
is a guess at a code that another screen shows already: C{docs/pairing.md}.
"""

from __future__ import annotations

import attrs

from ctrlexec.protocol.limits import PAIRING_SECONDS, PAIRING_UNREVEALED


@attrs.define
class Unrevealed:
    """
    Those who have begun and do not wait for a person, whether they are still
    connected or not.

    @ivar most: how many there may be in C{seconds}.
    @ivar seconds: for how long one counts: as long as a code on another screen
        is worth guessing at.
    """

    most: int = PAIRING_UNREVEALED
    seconds: float = PAIRING_SECONDS
    _since: dict[str, float] = attrs.field(factory=dict, init=False)

    def begin(self, reqid: str, now: float) -> bool:
        """
        @return: whether there is room for one more.
        """
        for each, since in tuple(self._since.items()):
            if now - since >= self.seconds:
                del self._since[each]
        if len(self._since) >= self.most:
            return False
        self._since[reqid] = now
        return True

    def reveal(self, reqid: str) -> None:
        """
        This one has, and waits; from now on a person sees it.
        """
        self._since.pop(reqid, None)

    def leave(self, reqid: str, now: float) -> None:
        """
        This one has not waited for the person: it was a guess all the same.
        """
        self._since[reqid] = now
