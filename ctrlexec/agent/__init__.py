# SPDX-License-Identifier: AGPL-3.0-only
"""The agent: what runs on each managed host."""
