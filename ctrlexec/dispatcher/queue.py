# SPDX-License-Identifier: AGPL-3.0-only
"""
The pairing requests that wait for a person, as files in one directory.

Who listens and who decides are different processes, ours or the original's,
and meet in these files (PROTOCOL.md section 3)::

    REQID.json        a request
    REQID.approved    a decision: the answer for the agent
    REQID.denied      a decision: whatever it holds, no

Of ours one at a time changes anything, so that no request is decided twice and
none is taken back that was just decided.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import attrs
from zope.interface import implementer

from ctrlexec.dispatcher.records import (
    RECORD_BYTES,
    QueuedRequest,
    decode_request,
    encode_request,
)
from ctrlexec.dispatcher.settings import DispatcherSettings
from ctrlexec.errors import (
    Conflict,
    InvalidValue,
    NotFound,
    PkiError,
    ProtocolError,
    StoreError,
)
from ctrlexec.files import (
    create_exclusive,
    exclusive_lock,
    make_shared_directory,
    read_bounded,
    remove,
)
from ctrlexec.interfaces import IPairingQueue
from ctrlexec.protocol import codec_pairing, limits
from ctrlexec.protocol.messages import REJECTED, PairApproved, PairDecision
from ctrlexec.values import from_iso_time, request_id

LOCK_FILE = ".pairing.lock"
#: How much longer than a request what was decided on it is kept, in seconds:
#: after that no listener can deliver it any more.
DECIDED_SECONDS = 60.0

_REQUEST, _APPROVED, _DENIED = ".json", ".approved", ".denied"


@implementer(IPairingQueue)
@attrs.frozen
class FilePairingQueue:
    """
    The queue of PROTOCOL.md section 3.

    @ivar directory: where the files are; made when the first is written.
    @ivar most: how many requests may wait.
    @ivar lifetime_seconds: how long each may.
    """

    directory: Path
    most: int
    lifetime_seconds: float = limits.PAIRING_SECONDS

    @classmethod
    def of(cls, settings: DispatcherSettings) -> FilePairingQueue:
        """
        The queue where a dispatcher's listener and command line meet.
        """
        return cls(
            settings.pairing_dir, settings.pairing_max_queue, settings.pairing_timeout
        )

    def add(self, request: QueuedRequest) -> bool:
        """
        See L{IPairingQueue.add}.
        """
        now = from_iso_time(request.received).timestamp()
        make_shared_directory(self.directory)
        with self._changing():
            self._sweep(now)
            if len(self._waiting(now)) >= self.most:
                return False
            try:
                self._create(self._path(request.id, _REQUEST), encode_request(request))
            except FileExistsError:
                raise Conflict(f"there is a request {request.id}") from None
        return True

    def pending(self, now: float) -> Sequence[QueuedRequest]:
        """
        See L{IPairingQueue.pending}. Files that are no requests are passed
        over.
        """
        if not self.directory.is_dir():
            return []
        # Who may read but not write still gets to see the rest.
        with suppress(StoreError), self._changing():
            self._sweep(now)
        return self._waiting(now)

    def get(self, reqid: str, now: float) -> QueuedRequest:
        """
        See L{IPairingQueue.get}.

        @raise StoreError: there is one, and it can not be read.
        """
        try:
            request = self._read(reqid)
        except FileNotFoundError:
            raise _not_found(reqid) from None
        if self._is_decided(reqid) or self._is_over(reqid, now):
            raise _not_found(reqid)
        return request

    def decide(self, reqid: str, decision: PairDecision) -> None:
        """
        See L{IPairingQueue.decide}.
        """
        kind = _APPROVED if isinstance(decision, PairApproved) else _DENIED
        path = self._path(reqid, kind)
        if not self.directory.is_dir():
            raise _not_found(reqid)
        with self._changing():
            if not self._path(reqid, _REQUEST).exists():
                raise _not_found(reqid)
            if self._is_decided(reqid):
                raise _decided(reqid)
            try:
                self._create(path, codec_pairing.encode_pair_decision(decision))
            except FileExistsError:
                raise _decided(reqid) from None

    def decision(self, reqid: str) -> PairDecision | None:
        """
        See L{IPairingQueue.decision}. Where somebody denied what somebody else
        approved at the same moment, the answer is no.
        """
        if self._path(reqid, _DENIED).exists():
            return REJECTED
        path = self._path(reqid, _APPROVED)
        try:
            text = read_bounded(path, limits.PAIRING_ANSWER_BYTES)
            return codec_pairing.decode_pair_decision(text)
        except FileNotFoundError:
            return None
        except ProtocolError:
            # The original writes it piece by piece: this is a part of it.
            return None

    def withdraw(self, reqid: str) -> bool:
        """
        See L{IPairingQueue.withdraw}.
        """
        path = self._path(reqid, _REQUEST)
        if not self.directory.is_dir():
            return True
        with self._changing():
            if self._is_decided(reqid):
                return False
            remove(path)
        return True

    def remove(self, reqid: str) -> None:
        """
        See L{IPairingQueue.remove}.
        """
        if self.directory.is_dir():
            with self._changing():
                self._forget(reqid)

    def _changing(self) -> AbstractContextManager[None]:
        return exclusive_lock(self.directory / LOCK_FILE, shared=True)

    def _create(self, path: Path, data: bytes) -> None:
        # Root decides, and the service's user listens: init/systemd has it so.
        create_exclusive(path, data, group_of_directory=True)

    def _path(self, reqid: str, kind: str) -> Path:
        return self.directory / (request_id(reqid) + kind)

    def _read(self, reqid: str) -> QueuedRequest:
        """
        The code is computed anew, so that what people compare is always that
        of the key which would be signed.
        """
        # Who asks for nothing in the queue does not wait for cryptography.
        from ctrlexec.dispatcher.requests import code_of

        path = self._path(reqid, _REQUEST)
        request = decode_request(path, read_bounded(path, RECORD_BYTES))
        try:
            return attrs.evolve(request, code=code_of(request))
        except PkiError as error:
            raise StoreError(path, str(error)) from None

    def _waiting(self, now: float) -> list[QueuedRequest]:
        found = []
        for reqid in self._ids():
            if not self._is_decided(reqid) and not self._is_over(reqid, now):
                with suppress(FileNotFoundError, StoreError):
                    found.append(self._read(reqid))
        return sorted(found, key=lambda request: (request.received, request.id))

    def _ids(self) -> Iterator[str]:
        """
        The ids that anything in the directory is about.
        """
        ids = {
            path.stem
            for path in self.directory.iterdir()
            if path.suffix in (_REQUEST, _APPROVED, _DENIED) and _is_id(path.stem)
        }
        return iter(sorted(ids))

    def _is_decided(self, reqid: str) -> bool:
        return any(self._path(reqid, kind).exists() for kind in (_APPROVED, _DENIED))

    def _is_over(self, reqid: str, now: float) -> bool:
        patience = self.lifetime_seconds
        if self._is_decided(reqid):
            patience += DECIDED_SECONDS
        return now - self._since(reqid, now) >= patience

    def _since(self, reqid: str, now: float) -> float:
        """
        When a request arrived. Its file can not be younger than it is, nor can
        it be younger than its file, whatever a clock said meanwhile.
        """
        times = [now]
        for kind in (_REQUEST, _APPROVED, _DENIED):
            with suppress(FileNotFoundError):
                times.append(self._path(reqid, kind).stat().st_mtime)
        with suppress(FileNotFoundError, StoreError, InvalidValue):
            times.append(from_iso_time(self._read(reqid).received).timestamp())
        return min(times)

    def _sweep(self, now: float) -> None:
        for reqid in self._ids():
            if self._is_over(reqid, now):
                with suppress(StoreError):
                    self._forget(reqid)

    def _forget(self, reqid: str) -> None:
        # The request goes first: without it, nobody decides on it any more.
        for kind in (_REQUEST, _APPROVED, _DENIED):
            remove(self._path(reqid, kind))


def _is_id(text: str) -> bool:
    try:
        request_id(text)
    except InvalidValue:
        return False
    return True


def _not_found(reqid: str) -> NotFound:
    return NotFound(
        f"no pairing request {reqid} is waiting",
        hint="ctrl-exec list-requests shows those that are; each waits ten minutes",
    )


def _decided(reqid: str) -> Conflict:
    return Conflict(f"the request {reqid} is decided already")
