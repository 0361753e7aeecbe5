# SPDX-License-Identifier: AGPL-3.0-only
"""
How each kind of order is spoken of while somebody waits for it.
"""

from __future__ import annotations

import attrs


@attrs.frozen(kw_only=True)
class Wording:
    """
    How a kind of order is spoken of.

    @ivar order: what is done on hosts, C{"run backup"}.
    @ivar lost: what hosts have that are not heard of, C{"no answer"}.
    @ivar good: what the others are, where rows do not tell that in a word.
    @ivar going_on: what goes on where it was begun, C{"it runs on at"}.
    @ivar errors_apart: whether errors have no place among the results.
    @ivar ends: whether it can be ended where it was begun.
    @ivar stays: whether it goes on if nobody waits for it any more.
    """

    order: str
    lost: str
    going_on: str
    errors_apart: bool = False
    ends: bool = False
    stays: bool = True
    good: str = "ok"
