# SPDX-License-Identifier: AGPL-3.0-only
"""
What a peer may send at the most, and how long it may take.

Sizes are bytes, times are seconds. PROTOCOL.md sections 2 and 3, and
NEWER-LINE.md section 5, where they name a number; ours where they do not.
"""

from __future__ import annotations

#: The body of a request to an agent.
REQUEST_BODY_BYTES = 1_048_576
#: The body of a request to the pairing port.
PAIRING_BODY_BYTES = 65_536
#: A certificate signing request.
CSR_BYTES = 10_240
#: The body of an answer of the pairing port.
PAIRING_ANSWER_BYTES = 262_144
#: The lines of a message's header, the first line not counted.
HEADER_LINES = 32
#: A message's first line and header together.
HEADER_BYTES = 16_384
#: From the start of a connection, or of the next request on it, to the end of
#: that request's header.
HEADER_SECONDS = 15.0
#: From the end of a request's header to the end of its body.
BODY_SECONDS = 60.0
#: How long a connection may stay open between two requests.
IDLE_SECONDS = 60.0
#: How long a peer may take to read an answer without reading any of it.
WRITE_SECONDS = 60.0
#: How long a peer may take to make room for more of a stream. Whoever shows it
#: to a person is as slow as that person's terminal: at a kilobyte a second it
#: takes minutes until what is on its way to them has moved on.
FOLLOW_SECONDS = 900.0
#: From the dispatcher's nonce to the agent's. No person has a part in that.
PAIRING_REVEAL_SECONDS = 10.0
#: How many agents may have begun to ask and not revealed their nonce, in the
#: time that a request may wait. Whoever sits in between learns the dispatcher's
#: code before anybody sees that they asked, and may go away again: so many
#: guesses they have.
PAIRING_UNREVEALED = 20
#: How long a pairing request waits for a decision.
PAIRING_SECONDS = 600
#: How much of what a script has written is told in one event of a stream at the
#: most, as it wrote it.
EVENT_BYTES = 32_768
#: The line of an event, whoever tells it: JSON takes six bytes for some.
EVENT_LINE_BYTES = 1_048_576
#: How often a stream says that it is still there.
HEARTBEAT_SECONDS = 10.0
#: How long a stream may say nothing.
SILENCE_SECONDS = 45.0
