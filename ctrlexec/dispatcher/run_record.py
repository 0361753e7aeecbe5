# SPDX-License-Identifier: AGPL-3.0-only
"""
The record of a run: what became of it, as far as that is known (PROTOCOL.md
section 4, NEWER-LINE.md section 6.2).

There are two kinds. While hosts are waited for it has an entry for each; of a
run that somebody has waited for it has the results. What is still not known of
such a run stands in it as C{pending}, and is put in its place once it is known.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from ctrlexec.dispatcher.results import Outcome, RunRow, run_fields
from ctrlexec.errors import ProtocolError, StoreError
from ctrlexec.protocol.fields import from_json
from ctrlexec.values import Submitter

#: What stands in a record for a host that is still waited for.
ACCEPTED, RUNNING = "accepted", "running"
PENDING = (ACCEPTED, RUNNING)
#: And for one that is not.
DONE, BUSY, ERROR, EXPIRED = "done", "busy", "error", "expired"
#: What became of a run on a host; without a status: why it is not known.
Entry = Mapping[str, Any]
#: That of a host which was not asked for it yet; an original takes it for one
#: that was. And of one that is not asked any more.
NOT_ASKED: Entry = {"status": ACCEPTED, "state": Outcome.NOT_STARTED.value}
NEVER_ASKED: Entry = {
    "status": ERROR,
    "error": Outcome.NOT_STARTED.value,
    "state": Outcome.NOT_STARTED.value,
}

# No agent takes a longer time limit.
_LONGEST_SECONDS = 30 * 86_400
_RESULT = ("exit", "stdout", "stderr", "state", "reason", "started", "finished")


@attrs.frozen
class RunRecord:
    """
    What became of a run.

    @ivar hosts: where it went, as whoever asked has named them.
    @ivar submitter: who asked for it, where that was written down.
    @ivar fields: the whole record, as JSON spells it.
    """

    reqid: str
    script: str
    hosts: tuple[str, ...]
    submitter: Submitter | None
    fields: Mapping[str, Any]

    @classmethod
    def begun(
        cls,
        *,
        reqid: str,
        script: str,
        mode: str,
        hosts: Mapping[str, Entry],
        ports: Mapping[str, int],
        created: int,
        submitter: Submitter,
        timeout: float | None = None,
    ) -> RunRecord:
        """
        The record of a run that is about to be asked for.

        @param mode: C{"sync"} or C{"async"}.
        @param ports: of the hosts that are not reached at the port that the
            registry knows.
        @param created: unix seconds.
        @param timeout: after how many seconds it is ended, if that was asked for.
        """
        pending = sorted(host for host, each in hosts.items() if _waits(each))
        fields: dict[str, Any] = {
            "reqid": reqid,
            "script": script,
            "mode": mode,
            "hosts": dict(hosts),
            "created": created,
            "pending": pending,
            "complete": not pending,
            "submitter": attrs.asdict(submitter),
        }
        if ports:
            fields["ports"] = dict(ports)
        if timeout is not None:
            fields["timeout"] = timeout
        return cls(reqid, script, tuple(hosts), submitter, fields)

    @classmethod
    def sync(
        cls,
        *,
        reqid: str,
        script: str,
        hosts: tuple[str, ...],
        results: Sequence[Mapping[str, Any]],
        completed: int,
        submitter: Submitter | None,
        pending: Sequence[str] = (),
        ports: Mapping[str, int] | None = None,
        timeout: float | None = None,
        stopped: bool = False,
    ) -> RunRecord:
        """
        The record of a run that was waited for.

        @param results: of each host, as JSON spells it.
        @param completed: unix seconds.
        @param pending: the hosts of which it is not known yet.
        @param ports: see L{begun}, as for the timeout.
        @param stopped: whether hosts were left out since others had failed.
        """
        fields: dict[str, Any] = {
            "reqid": reqid,
            "script": script,
            "mode": "sync",
            "hosts": list(hosts),
            "results": list(results),
            "completed": completed,
            "complete": not pending,
        }
        if submitter is not None:
            fields["submitter"] = attrs.asdict(submitter)
        if pending:
            fields["pending"] = sorted(pending)
        if ports:
            fields["ports"] = dict(ports)
        if pending and timeout is not None:
            fields["timeout"] = timeout
        if stopped:
            fields["stopped"] = True
        return cls(reqid, script, hosts, submitter, fields)

    @property
    def pending(self) -> tuple[str, ...]:
        """
        The hosts of which it is not known yet what became of it there, sorted.
        """
        hosts = self.fields.get("hosts")
        if isinstance(hosts, dict):
            return tuple(sorted(host for host, each in hosts.items() if _waits(each)))
        pending = self.fields.get("pending")
        named = pending if isinstance(pending, list) else ()
        return tuple(sorted({host for host in self.hosts if host in named}))

    @property
    def unasked(self) -> frozenset[str]:
        """
        Those of them that were not asked for it yet, when that was written.
        """
        waiting = {"state": Outcome.NOT_STARTED.value}.items()
        pending = self.pending
        return frozenset(h for h in pending if waiting <= self.entry(h).items())

    @property
    def stopped(self) -> bool:
        """
        Whether hosts were left out since too many others had failed.
        """
        return self.fields.get("stopped") is True

    @property
    def complete(self) -> bool:
        """
        Whether it is known everywhere.
        """
        return not self.pending

    @property
    def cancelled(self) -> frozenset[str]:
        """
        The hosts where somebody has ended it, or did not let it begin.
        """
        named = self.fields.get("cancelled")
        return frozenset(map(str, named)) if isinstance(named, list) else frozenset()

    @property
    def timeout(self) -> float | None:
        """
        After how many seconds its agents were to end it; C{None} where nobody has
        asked for that.
        """
        match self.fields.get("timeout"):
            case bool():
                return None
            case (int() | float()) as timeout if 0 < timeout <= _LONGEST_SECONDS:
                return timeout
        return None

    def port(self, host: str) -> int | None:
        """
        @return: where a host is reached; C{None} for where the registry knows.
        """
        ports = self.fields.get("ports")
        port = ports.get(host) if isinstance(ports, dict) else None
        return port if type(port) is int and 0 < port < 65_536 else None

    def entry(self, host: str) -> Entry:
        """
        @return: what is known of a host that is waited for; empty if nothing.
        """
        hosts = self.fields.get("hosts")
        if isinstance(hosts, dict):
            found = hosts.get(host)
            return found if isinstance(found, dict) else {}
        results = self.fields.get("results")
        runs = {"host": host, "state": Outcome.RUNNING.value}.items()
        for each in results if isinstance(results, list) else ():
            if isinstance(each, dict) and runs <= each.items():
                return {"status": RUNNING}
        return {}

    def with_entries(self, news: Mapping[str, Entry]) -> RunRecord:
        """
        What is known now. Of a host that is not waited for any more nothing is
        new, so of two who ask at the same time none undoes what the other has
        found.

        @return: this very record, if nothing is new.
        """
        waiting = self.pending
        fresh = {host: each for host, each in news.items() if host in waiting}
        fields = dict(self.fields)
        if isinstance(fields["hosts"], dict):
            known = fields["hosts"]
            fields["hosts"] = {
                host: _merged(entry, fresh.get(host)) for host, entry in known.items()
            }
            fields["pending"] = [
                host for host in waiting if _waits(fields["hosts"][host])
            ]
        else:
            fields["results"] = _with_results(fields.get("results"), fresh)
            fields["pending"] = [
                host for host in waiting if not _is_end(fresh.get(host))
            ]
            if not fields["pending"]:
                del fields["pending"]
        fields["complete"] = not fields.get("pending")
        same = fields == self.fields or not fresh
        return self if same else attrs.evolve(self, fields=fields)

    def with_stopped(self) -> RunRecord:
        """
        Once others have failed, and nobody else is asked.
        """
        return attrs.evolve(self, fields={**self.fields, "stopped": True})

    def with_cancelled(self, hosts: Collection[str]) -> RunRecord:
        """
        Once somebody has ended it on some hosts: whoever carries it out is to
        know.
        """
        if not hosts:
            return self
        fields = {**self.fields, "cancelled": sorted({*self.cancelled, *hosts})}
        return self if fields == self.fields else attrs.evolve(self, fields=fields)

    def answer(self) -> dict[str, Any]:
        """
        @return: what the API tells of it: who asked is nobody else's business.
        """
        return {name: v for name, v in self.fields.items() if name != "submitter"}


def entry_of(row: RunRow) -> Entry:
    """
    What stands in a record when a host was asked for a run.
    """
    state = {"state": row.outcome.value}
    if row.reason:
        state["reason"] = row.reason
    match row.outcome:
        case Outcome.ACCEPTED:
            return {"status": ACCEPTED}
        case Outcome.RUNNING:
            return {"status": RUNNING}
        case Outcome.BUSY:
            return {"status": BUSY, "error": row.error, **state}
    if is_open(row):
        # It may run: whoever asks next may find it.
        return {"status": ACCEPTED, "fetch_error": row.error}
    if row.error is not None:
        return {"status": ERROR, "error": row.error, **state}
    fields = run_fields(row)
    return {
        "status": DONE,
        **{name: fields[name] for name in _RESULT if name in fields},
    }


def is_open(row: RunRow) -> bool:
    """
    Whether it may still turn out what became of a host.
    """
    lost = row.outcome is Outcome.UNKNOWN and row.error is not None
    if row.is_final:
        return False
    return lost or row.outcome in (Outcome.RUNNING, Outcome.ACCEPTED)


def _waits(entry: object) -> bool:
    return isinstance(entry, dict) and entry.get("status") in PENDING


def _is_end(news: Entry | None) -> bool:
    return news is not None and news.get("status") in (DONE, BUSY, ERROR, EXPIRED)


def _merged(known: Any, news: Entry | None) -> Any:
    if news is None:
        return known
    if "status" not in news:
        return {**known, **news}
    # What runs was accepted before.
    if known["status"] == RUNNING and news["status"] == ACCEPTED:
        return known
    return dict(news)


def _with_results(results: object, news: Mapping[str, Entry]) -> list[Any]:
    found = results if isinstance(results, list) else []
    return [
        _with_news(each, news.get(str(each.get("host")), {}))
        if isinstance(each, dict)
        else each
        for each in found
    ]


def _with_news(result: Entry, news: Entry) -> Entry:
    match news.get("status"):
        case "done":
            kept = {k: v for k, v in result.items() if k not in ("error", *_RESULT)}
            return {**kept, **{k: news[k] for k in _RESULT if k in news}}
        case "running":
            return {**result, "state": Outcome.RUNNING.value}
        case "expired":
            return {**result, "state": Outcome.UNKNOWN.value}
    return result


# --- reading -------------------------------------------------------------


def decode_run(path: Path, data: bytes) -> RunRecord:
    """
    @param path: the record's file, which is named after the request id.
    @raise StoreError: the file holds no record, or another one.
    """
    try:
        fields = from_json(data)
    except ProtocolError:
        raise StoreError(path, "is cut off, or was not written by us") from None
    if fields.get("reqid") != path.stem:
        raise StoreError(path, "is not the record that it is named after")
    script = fields.get("script")
    hosts = fields.get("hosts")
    # An async record has an object here: what became of each host.
    if not isinstance(hosts, list | dict) or not isinstance(script, str):
        raise StoreError(path, "does not say which script ran where")
    return RunRecord(
        reqid=path.stem,
        script=script,
        hosts=tuple(str(host) for host in hosts),
        submitter=_submitter(fields.get("submitter")),
        fields=fields,
    )


def _submitter(value: object) -> Submitter | None:
    if not isinstance(value, dict):
        return None
    name, address = value.get("username"), value.get("source_ip")
    return Submitter(
        name if isinstance(name, str) else "",
        address if isinstance(address, str) else "",
    )
