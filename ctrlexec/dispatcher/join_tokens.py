# SPDX-License-Identifier: AGPL-3.0-only
"""
The join tokens that a dispatcher has made, as files in one directory:
C{docs/pairing.md}, "Joining without a person".

One file a token, for nobody but the dispatcher to read. It holds the key that
the agent's proof is checked with, and not the secret. Of those who change a
token one does at a time, so that no use is given twice, and a use is written
down before anything comes of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from datetime import datetime, timedelta
from pathlib import Path

import attrs
from zope.interface import implementer

from ctrlexec.dispatcher.token_records import (
    Claim,
    JoinToken,
    NotRedeemed,
    decode_token,
    encode_token,
    why_not,
)
from ctrlexec.errors import InvalidValue, NotFound, StoreError, abbreviated
from ctrlexec.files import (
    create_exclusive,
    exclusive_lock,
    make_directory,
    read_bounded,
    remove,
    sweep,
    write_atomic,
)
from ctrlexec.interfaces import IJoinTokens
from ctrlexec.values import from_iso_time

LOCK_FILE = ".tokens.lock"
#: How long a token that is over is still listed, and named in the log.
KEPT = timedelta(days=7)
#: How long a token's file may be, in bytes.
TOKEN_BYTES = 131_072

_ID = re.compile("[0-9a-f]{16}")
_SECRET = 0o600


@implementer(IJoinTokens)
@attrs.frozen
class FileJoinTokens:
    """
    @ivar directory: where the files are; made when the first is written.
    """

    directory: Path

    def add(self, token: JoinToken) -> None:
        """
        See L{IJoinTokens.add}. What was over long ago goes.
        """
        make_directory(self.directory.parent)
        make_directory(self.directory, 0o700)
        with self._changing():
            self._sweep(from_iso_time(token.created))
            create_exclusive(self._path(token.id), encode_token(token), _SECRET)

    def redeem(
        self, claim: Claim, now: datetime, objection: Callable[[JoinToken], str]
    ) -> JoinToken | NotRedeemed:
        """
        See L{IJoinTokens.redeem}.
        """
        if not self._path(claim.id).exists():
            return NotRedeemed("the token is unknown")
        with self._changing():
            try:
                token = self._read(claim.id)
            except FileNotFoundError:
                return NotRedeemed("the token is unknown")
            reason = why_not(token, claim, now) or objection(token)
            if reason:
                return NotRedeemed(reason)
            spent = token.spend(claim.joining.commitment)
            path = self._path(claim.id)
            sweep(path)
            write_atomic(path, encode_token(spent), _SECRET)
        return spent

    def listed(self) -> tuple[Sequence[JoinToken], Sequence[StoreError]]:
        """
        See L{IJoinTokens.listed}.
        """
        tokens: list[JoinToken] = []
        errors: list[StoreError] = []
        for each in self._ids():
            try:
                tokens.append(self._read(each))
            except FileNotFoundError:
                continue
            except StoreError as error:
                errors.append(error)
        return sorted(tokens, key=lambda token: (token.created, token.id)), errors

    def revoke(self, identity: str) -> None:
        """
        See L{IJoinTokens.revoke}.
        """
        path = self._path(identity)
        if self.directory.is_dir():
            with self._changing():
                if remove(path):
                    return
        raise NotFound(
            f"there is no join token {identity}",
            hint="ctrl-exec join-token list shows those that there are",
        )

    def _changing(self) -> AbstractContextManager[None]:
        return exclusive_lock(self.directory / LOCK_FILE)

    def _path(self, identity: str) -> Path:
        if not _ID.fullmatch(identity):
            raise InvalidValue("token id", abbreviated(identity), "16 hex digits")
        return self.directory / f"{identity}.json"

    def _read(self, identity: str) -> JoinToken:
        path = self._path(identity)
        return decode_token(path, read_bounded(path, TOKEN_BYTES))

    def _ids(self) -> list[str]:
        try:
            found = sorted(self.directory.iterdir())
        except FileNotFoundError:
            return []
        except OSError as error:
            problem = f"cannot list it: {error.strerror}"
            raise StoreError(self.directory, problem) from error
        return [
            path.stem
            for path in found
            if path.suffix == ".json" and _ID.fullmatch(path.stem)
        ]

    def _sweep(self, now: datetime) -> None:
        for each in self._ids():
            # One that can not be read is for a person to look at.
            with suppress(StoreError, FileNotFoundError):
                if self._read(each).is_over(now - KEPT):
                    remove(self._path(each))
