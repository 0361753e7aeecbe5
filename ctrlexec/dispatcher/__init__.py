# SPDX-License-Identifier: AGPL-3.0-only
"""The dispatcher: what asks agents to run their scripts."""
