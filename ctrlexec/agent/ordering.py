# SPDX-License-Identifier: AGPL-3.0-only
"""
At most once: a run that was asked for is asked for by its id again, and never
started again.
"""

from __future__ import annotations

import attrs

from ctrlexec.agent.in_force import Caller
from ctrlexec.agent.refusing import Refusing
from ctrlexec.agent.run_records import RunRecord, digest_of
from ctrlexec.agent.run_store import Finished, RunKey
from ctrlexec.agent.run_table import Run
from ctrlexec.agent.running import USED, Runs, Wanted
from ctrlexec.errors import InvalidValue, StoreError
from ctrlexec.events import RunRepeated
from ctrlexec.protocol.messages import RunRefused, RunRequest
from ctrlexec.protocol.run_messages import BUSY
from ctrlexec.values import iso_time, request_id

#: What somebody is told of whose run too little is left to answer with it.
GONE = "request id was used before, and what became of that run is not kept"


@attrs.frozen
class Orders:
    """
    Takes the orders of dispatchers.
    """

    runs: Runs

    @property
    def refusing(self) -> Refusing:
        """
        Says no.
        """
        return self.runs.refusing

    async def order(
        self, request: RunRequest, caller: Caller
    ) -> Run | Finished | RunRefused:
        """
        Have a script run, at most once: a run that was asked for before is the
        answer to whoever asks for it again.

        @return: the run, which may still be refused, or was asked for before; how
            it has ended, for one that did so before.
        """
        await self.runs.recovered.wait()
        key = RunKey.of(caller.dispatcher, usable(request.reqid))
        run = self.runs.table.get(key)
        if run is not None:
            return self._again(request, caller, run.record) or run
        if self.runs.table.is_buried(key):
            return self.refusing.cancelled(request, caller)
        if self.runs.table.is_spent(key):
            return self.refusing.denied(request, caller, GONE)
        if self.runs.archive.store.has(key):
            # Nobody can claim it any more, but to forget it.
            return await self._past(key, request, caller)
        if self.runs.archive.is_gone(key):
            return self.refusing.denied(request, caller, GONE)
        return self._new(key, request, caller)

    def _again(
        self, request: RunRequest, caller: Caller, record: RunRecord
    ) -> RunRefused | None:
        if record.digest != digest_of(request.script, request.args):
            return self.refusing.denied(request, caller, USED)
        who = (caller.peer.address, caller.dispatcher, record.reqid)
        self.runs.in_force.events.emit(RunRepeated(record.script, *who))
        return None

    async def _past(
        self, key: RunKey, request: RunRequest, caller: Caller
    ) -> Run | Finished | RunRefused:
        try:
            record = await self.runs.in_force.in_thread(
                self.runs.archive.store.read, key
            )
        except StoreError as error:
            return self.refusing.denied(request, caller, str(error), USED)
        if record is None:
            # It was forgotten at this moment.
            return self.refusing.denied(request, caller, GONE)
        if not record.ended:
            # What runs is none of ours, and has no digest.
            return self.refusing.denied(request, caller, USED)
        return self._again(request, caller, record) or self.runs.archive.store.found(
            key, record
        )

    def _new(
        self, key: RunKey, request: RunRequest, caller: Caller
    ) -> Run | RunRefused:
        script = self.refusing.permitted(request, caller)
        if isinstance(script, RunRefused):
            return script
        policy, table = self.runs.in_force.policy, self.runs.table
        trusted = frozenset(policy.trusted.entries.values())
        if not table.has_place(caller.dispatcher, trusted, policy.settings.max_runs):
            busy = f"busy: {len(table)} runs are going on already"
            return self.refusing.denied(request, caller, busy, state=BUSY)
        record = RunRecord(
            reqid=usable(request.reqid),
            owner=caller.dispatcher,
            script=script.name,
            started=iso_time(self.runs.in_force.now()),
            peer=caller.peer.address,
            username=request.username,
            asynchronous=request.asynchronous,
            on_disconnect=request.on_disconnect,
            digest=digest_of(request.script, request.args),
        )
        return self.runs.begin(key, record, Wanted(request, caller, script))


def usable(reqid: str) -> str:
    """
    @return: a reqid that can be the name of a file; empty for any other.
    """
    try:
        return request_id(reqid)
    except InvalidValue:
        return ""
