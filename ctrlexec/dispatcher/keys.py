# SPDX-License-Identifier: AGPL-3.0-only
"""
Keys that somebody gives with an order: the same key from the same caller is the
same run, however often it comes.
"""

from __future__ import annotations

import hashlib

import attrs

from ctrlexec.dispatcher.orders import Caller, RunOrder
from ctrlexec.errors import CtrlExecError
from ctrlexec.protocol.fields import to_json

#: What does not make it another order.
_NO_MATTER = ("key", "confirmed", "wait_lock_seconds", "follow")


class KeyTaken(CtrlExecError):
    """
    Another order with this key is on record; nobody was asked for this one.
    """


def key_hash(caller: Caller, key: str) -> str:
    """
    @return: what stands for a key of this caller, and tells nobody which it is:
        64 hex characters.
    """
    return _digest([caller.username, caller.token, key])


def order_digest(order: RunOrder) -> str:
    """
    @return: what tells an order from every other, 64 hex characters.
    """
    fields = attrs.asdict(order)
    return _digest({k: v for k, v in fields.items() if k not in _NO_MATTER})


def _digest(value: object) -> str:
    return hashlib.sha256(to_json({"of": value})).hexdigest()
