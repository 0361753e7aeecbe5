# SPDX-License-Identifier: AGPL-3.0-only
"""
What comes of letting an agent in.
"""

from __future__ import annotations

import attrs

from ctrlexec.dispatcher.records import AgentRecord
from ctrlexec.protocol import messages


@attrs.frozen
class Approval:
    """
    An agent that was let in.

    @ivar record: what the registry holds about it now.
    @ivar serial: of the certificate that was issued to it, canonical hex.
    @ivar replaced: whether an agent of the same name was registered before.
    """

    record: AgentRecord
    serial: str
    replaced: bool


@attrs.frozen
class Issued:
    """
    What an agent that is let in gets, and what is noted about it; neither is
    anywhere yet.

    @ivar serial: of the certificate, canonical hex.
    """

    decision: messages.PairApproved
    record: AgentRecord
    serial: str
