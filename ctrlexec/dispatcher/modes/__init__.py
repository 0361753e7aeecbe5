# SPDX-License-Identifier: AGPL-3.0-only
"""
What C{ctrl-exec} can be told to do: PROTOCOL.md section 7, NEWER-LINE.md
section 12.2.

Each mode loads what it uses and no more: whoever lists agents waits for
neither Twisted nor cryptography.
"""
