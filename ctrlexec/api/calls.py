# SPDX-License-Identifier: AGPL-3.0-only
"""
What a request to the API says, as the orders of a dispatcher.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from ctrlexec.api.definitions import BadRequest
from ctrlexec.api.watching import Presence
from ctrlexec.dispatcher.orders import Caller, Rolling, RunOrder, Selection
from ctrlexec.errors import InvalidValue
from ctrlexec.protocol.fields import truth_field
from ctrlexec.values import Portion

#: How a run goes over its hosts.
_ROLLING = ("batch", "batch_wait", "canary", "max_failures")


@attrs.frozen
class Call:
    """
    A request that may use the API.

    @ivar fields: of its body, as the definitions have them.
    @ivar headers: likewise; what was not given is not there.
    @ivar path: what the path says.
    """

    caller: Caller
    fields: Mapping[str, Any]
    headers: Mapping[str, str]
    path: Mapping[str, str]
    client: Presence

    @property
    def reqid(self) -> str:
        """
        The run that it is about.
        """
        return self.path["reqid"]

    def selection(self) -> Selection:
        """
        The hosts that it is about.
        """
        return Selection(
            tuple(self.fields.get("hosts", ())), tuple(self.fields.get("exclude", ()))
        )

    def named_selection(self) -> Selection:
        """
        The same, where no host is not every host.
        """
        selection = self.selection()
        if not selection.words:
            raise InvalidValue("hosts", "", "one host at least")
        return selection

    def run_order(self) -> RunOrder:
        """
        What is to be run. There is nobody to say yes to many hosts: who asks is
        a program.
        """
        fields = self.fields
        asynchronous = truth_field(fields, "async")
        _check_together(fields, asynchronous=asynchronous)
        return RunOrder(
            selection=self.named_selection(),
            script=fields["script"],
            args=tuple(fields.get("args", ())),
            confirmed=True,
            asynchronous=asynchronous,
            timeout_seconds=fields.get("timeout"),
            on_disconnect=fields.get("on_disconnect", "keep"),
            rolling=_rolling(fields),
            key=self.headers.get("Idempotency-Key", ""),
        )


def _check_together(fields: Mapping[str, Any], *, asynchronous: bool) -> None:
    """
    @raise BadRequest: some of it makes no sense together.
    """
    lots = [name for name in _ROLLING if name in fields]
    if asynchronous and lots:
        why = "nobody waits for the end of a lot"
        raise BadRequest(f"async: cannot go together with {lots[0]}: {why}")
    if asynchronous and fields.get("on_disconnect") == "cancel":
        why = "nobody waits who could leave"
        raise BadRequest(f"async: cannot go together with on_disconnect: {why}")
    if "batch_wait" in fields and not ("batch" in fields or fields.get("canary")):
        raise BadRequest("batch_wait: needs batch or canary")


def _rolling(fields: Mapping[str, Any]) -> Rolling | None:
    if not any(name in fields for name in _ROLLING):
        return None
    return Rolling(
        canary=int(fields.get("canary", 0)),
        batch=_portion(fields, "batch"),
        wait_seconds=fields.get("batch_wait", 0.0),
        max_failures=_portion(fields, "max_failures"),
    )


def _portion(fields: Mapping[str, Any], name: str) -> Portion | None:
    match fields.get(name):
        case None:
            return None
        case str() as text:
            return Portion.parse(text)
        case number:
            return Portion(int(number))
