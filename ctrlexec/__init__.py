# SPDX-License-Identifier: AGPL-3.0-only
"""
ctrl-exec: named, allowlisted operations on many hosts, over mutual TLS.
"""

from __future__ import annotations

__version__ = "0.1.0"
