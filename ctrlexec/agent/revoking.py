# SPDX-License-Identifier: AGPL-3.0-only
"""
C{POST /revocations}: a dispatcher sends a list of revoked certificates
(C{docs/revocation.md}).
"""

from __future__ import annotations

from datetime import datetime

import attrs

from ctrlexec.agent.policy import Policy
from ctrlexec.agent.revocation import Pushed, store_list
from ctrlexec.agent.rotation import InThread
from ctrlexec.agent.trust import Trusted
from ctrlexec.certificates import CertificateInfo
from ctrlexec.errors import PkiError, ProtocolError, StoreError
from ctrlexec.events import RevocationsNotStored, RevocationsRefused, RevocationsStored
from ctrlexec.interfaces import IEventSink
from ctrlexec.protocol.codec_revocation import (
    decode_revocations,
    encode_acknowledgement,
)
from ctrlexec.protocol.revocation import Acknowledged, NotAcknowledged, signer_of


@attrs.frozen
class Revocation:
    """
    Takes the lists that dispatchers send.

    @ivar policy: of the moment.
    @ivar ca: the certificate of the agent's CA, PEM.
    @ivar now: the time, aware.
    """

    policy: Policy
    events: IEventSink
    in_thread: InThread
    ca: bytes
    now: datetime

    async def answer(
        self, body: bytes, peer: str, dispatcher: str
    ) -> tuple[bytes, Pushed | None]:
        """
        Every way in which it can fail is an answer, and is logged. It is who has
        signed a list that counts; who brings it must only be trusted.

        @param peer: the address that it comes from.
        @param dispatcher: the id of who brings it.
        @return: the answer, and what is revoked now, if that has changed.
        """
        who = (peer, dispatcher)
        try:
            found = decode_revocations(body)
            signer = self._signer(signer_of(found, self.ca, self.now))
            stored = await self.in_thread(
                store_list, self.policy.settings, signer, found.revocations
            )
        except (ProtocolError, PkiError) as error:
            self.events.emit(RevocationsRefused(*who, str(error)))
            return encode_acknowledgement(NotAcknowledged(str(error))), None
        except StoreError as error:
            self.events.emit(RevocationsNotStored(*who, str(error)))
            return encode_acknowledgement(NotAcknowledged(str(error))), None
        number = found.revocations.number
        if isinstance(stored, NotAcknowledged):
            self.events.emit(RevocationsRefused(*who, stored.error, number))
            return encode_acknowledgement(stored), None
        count = len(stored.held(signer, found.revocations.issuer).serials)
        self.events.emit(RevocationsStored(*who, number, count))
        return encode_acknowledgement(Acknowledged(number)), stored

    def _signer(self, info: CertificateInfo | None) -> str | None:
        if info is None:
            return None
        match self.policy.trusted.decide(info):
            case Trusted(dispatcher) if not self.policy.is_revoked(info):
                return dispatcher
        raise PkiError("it is signed by nobody whose orders are taken here")
