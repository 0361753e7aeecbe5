# SPDX-License-Identifier: AGPL-3.0-only
"""
What became of an order on each host: rows, whatever happened there.
"""

from __future__ import annotations

import attrs

from ctrlexec.protocol.messages import NEVER_RAN

UNKNOWN_AGENT = "unknown agent"


@attrs.frozen(kw_only=True)
class RunRow:
    """
    What became of a run on one host.

    @ivar host: the agent's name in the registry, or what the operator typed.
    @ivar rtt_ms: from the first byte out to the last byte in, in whole
        milliseconds.
    @ivar exit: 0 to 255, the script's own; -1 where it never ran, or where no
        answer tells.
    @ivar error: why there is no result; C{None} where there is one.
    @ivar hint: what the operator can do about the error, or empty.
    """

    host: str
    script: str
    reqid: str
    rtt_ms: int = 0
    exit: int = NEVER_RAN
    stdout: str = ""
    stderr: str = ""
    error: str | None = None
    hint: str = ""

    @property
    def ok(self) -> bool:
        """
        Whether the script ran and was content.
        """
        return self.error is None and self.exit == 0


@attrs.frozen(kw_only=True)
class PingRow:
    """
    What became of a ping of one host.

    @ivar host: the agent's name in the registry, or what the operator typed.
    @ivar rtt_ms: see L{RunRow}.
    @ivar reported_hostname: the agent's own name for itself, where that is
        another one; else empty.
    @ivar expiry: when the agent's certificate ends, as the agent says it.
    @ivar error: why there is no answer; C{None} where there is one.
    @ivar hint: what the operator can do about the error, or empty.
    """

    host: str
    reqid: str
    rtt_ms: int = 0
    reported_hostname: str = ""
    version: str = ""
    expiry: str = ""
    error: str | None = None
    hint: str = ""

    @property
    def ok(self) -> bool:
        """
        Whether the agent answered.
        """
        return self.error is None
