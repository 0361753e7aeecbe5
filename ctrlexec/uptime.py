# SPDX-License-Identifier: AGPL-3.0-only
"""
For how long this host has been up, by a clock that nobody sets.
"""

from __future__ import annotations

import time
from pathlib import Path

#: What tells each start of a host from all others.
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """
    @return: since which start the host is up; empty where that is not known.
    """
    try:
        return BOOT_ID.read_text("ascii").strip()
    except (OSError, ValueError):
        return ""


def uptime_seconds() -> float:
    """
    @return: for how long; the time in which it slept counts.
    """
    return time.clock_gettime(time.CLOCK_BOOTTIME)
