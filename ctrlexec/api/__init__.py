# SPDX-License-Identifier: AGPL-3.0-only
"""
The dispatcher's operations over HTTP.
"""
