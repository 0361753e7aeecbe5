# SPDX-License-Identifier: AGPL-3.0-only
"""
The shared protocol module: what goes over the wire, both sides of it.

L{limits}, L{messages}, L{codec}, L{codec_pairing}, L{http} and L{pairing} are
pure; L{client} and L{server} are the thin edges that touch a transport.
"""
