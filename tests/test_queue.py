# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.queue}.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import attrs
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.dispatcher.queue import FilePairingQueue
from ctrlexec.errors import Conflict, StoreError
from ctrlexec.protocol.messages import REJECTED
from tests.contracts import APPROVED, AT, OTHER, PairingQueueContract
from tests.dispatching import (
    CSR,
    NONCE,
    REQID,
    Recorder,
    protected,
    request,
    settings_in,
    trust_in,
)


class FilePairingQueueTests(PairingQueueContract, SynchronousTestCase):
    """
    The queue that is a directory.
    """

    def setUp(self) -> None:
        """
        No directory yet.
        """
        self.directory = Path("/nonexistent")

    def queue(self, most: int = 10, lifetime_seconds: float = 600) -> FilePairingQueue:
        """
        See L{PairingQueueContract.queue}.
        """
        self.directory = Path(self.mktemp()) / "pairing"
        return FilePairingQueue(self.directory, most, lifetime_seconds)

    def write(self, name: str, content: bytes, at: float = AT) -> None:
        """
        Put a file there, as somebody else would.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / name
        path.write_bytes(content)
        os.utime(path, (at, at))

    def files(self) -> list[str]:
        """
        The files that are there, without our lock.
        """
        return sorted(
            path.name for path in self.directory.iterdir() if path.name[0] != "."
        )

    def test_shared(self) -> None:
        """
        Root decides and the service's user listens, and either may be the first
        one here: directory, lock and files are for the group of what is above.
        """
        queue = self.queue()
        above = self.directory.parent
        above.mkdir()
        if os.geteuid() == 0:
            os.chown(above, -1, 4242)
        self.addCleanup(os.umask, os.umask(0o077))
        queue.add(request())
        queue.decide(REQID, APPROVED)
        self.assertEqual(self.directory.stat().st_mode & 0o7777, 0o2770)
        modes = {}
        for path in self.directory.iterdir():
            self.assertEqual(path.stat().st_gid, above.stat().st_gid)
            modes[path.name] = path.stat().st_mode & 0o777
        self.assertEqual(
            modes,
            {
                ".pairing.lock": 0o660,
                f"{REQID}.json": 0o640,
                f"{REQID}.approved": 0o640,
            },
        )

    def test_sharedWithAnOriginal(self) -> None:
        """
        A directory that was there already need not hand its group down.
        """
        queue = self.queue()
        self.directory.mkdir(parents=True)
        if os.geteuid() == 0:
            os.chown(self.directory, -1, 4242)
        queue.add(request())
        self.assertEqual(
            {path.stat().st_gid for path in self.directory.iterdir()},
            {self.directory.stat().st_gid},
        )

    def test_requestFile(self) -> None:
        """
        An original's command line finds what it expects: PROTOCOL.md section 3.
        """
        self.queue().add(request())
        (name,) = self.files()
        self.assertEqual(name, f"{REQID}.json")
        fields = json.loads((self.directory / name).read_bytes())
        expected = {
            "id": REQID,
            "hostname": "agent-one",
            "ip": "192.0.2.1",
            "csr": CSR,
            "nonce": NONCE,
            "received": "2026-03-05T18:38:09Z",
            "code": request().code,
        }
        self.assertEqual({key: fields[key] for key in expected}, expected)

    def test_approvalFile(self) -> None:
        """
        An original's listener can send the file as it is.
        """
        queue = self.queue()
        queue.add(request())
        queue.decide(REQID, APPROVED)
        self.assertEqual(
            json.loads((self.directory / f"{REQID}.approved").read_bytes()),
            {
                "status": "approved",
                "cert": "cert",
                "ca": "ca",
                "nonce": NONCE,
                "dispatcher_serial": "4f0a",
                "dispatcher_id": "hq",
            },
        )

    def test_originalsDenial(self) -> None:
        """
        A file of that name says no, whatever it holds.
        """
        queue = self.queue()
        for content in (b"", b"\xff{", b'{"status":"approved"}'):
            self.write(f"{REQID}.denied", content)
            self.assertEqual(queue.decision(REQID), REJECTED)

    def test_bothWays(self) -> None:
        """
        Where two command lines have disagreed, nobody gets in.
        """
        queue = self.queue()
        queue.add(request())
        queue.decide(REQID, APPROVED)
        self.write(f"{REQID}.denied", b"")
        self.assertEqual(queue.decision(REQID), REJECTED)

    def test_halfAnApproval(self) -> None:
        """
        An approval that the original is still writing is none yet, and leaves
        no room for another decision.
        """
        queue = self.queue()
        queue.add(request())
        self.write(f"{REQID}.approved", b'{"status":"appro')
        self.assertIsNone(queue.decision(REQID))
        self.assertRaises(Conflict, queue.decide, REQID, REJECTED)
        self.assertFalse(queue.withdraw(REQID))

    def test_foreignFiles(self) -> None:
        """
        Files that are no requests do not hide those that are.
        """
        queue = self.queue()
        queue.add(request())
        self.write("README", b"x")
        self.write("a b.json", b"x")
        self.write(f"{OTHER}.json", b'{"id":')
        (self.directory / "deadbeef.json").mkdir()
        self.assertEqual([r.id for r in queue.pending(AT)], [REQID])
        self.assertRaises(StoreError, queue.get, OTHER, AT)

    def test_codeIsOfTheKey(self) -> None:
        """
        The code that a person is shown covers the key that would be signed,
        whatever the file says.
        """
        queue = self.queue()
        queue.add(request(code="000000"))
        self.assertEqual(queue.get(REQID, AT), request())

    def test_codeOfOurs(self) -> None:
        """
        So does the code of ours, with the CA and the dispatcher; a file that no
        code can be computed from is none.
        """
        authority = trust_in(settings_in(Path(self.mktemp())), Recorder())
        authority.setup_ca()
        authority.setup_identity()
        asked = protected(authority.authority)
        assert asked.revealed is not None
        queue = self.queue()
        queue.add(attrs.evolve(asked, code="000 000"))
        self.assertEqual(queue.get(REQID, AT), asked)
        for changes in ({"ca": "x"}, {"cert": ""}, {"nonce_a": "x"}, {"nonce_d": "ä"}):
            queue = self.queue()
            seen = attrs.evolve(asked.revealed, **changes)
            queue.add(attrs.evolve(asked, revealed=seen))
            self.assertRaises(StoreError, queue.get, REQID, AT)
            self.assertEqual(list(queue.pending(AT)), [])

    def test_foreignAge(self) -> None:
        """
        A request that claims to come from the future is as old as its file.
        """
        queue = self.queue()
        queue.add(request(received="2999-01-01T00:00:00Z"))
        os.utime(self.directory / f"{REQID}.json", (AT, AT))
        self.assertEqual(list(queue.pending(AT + 600)), [])
        self.assertEqual(self.files(), [])

    def test_keepsNothing(self) -> None:
        """
        What nobody can use any more is removed: requests after their time,
        decisions when no agent can wait for them any more.
        """
        queue = self.queue()
        for reqid in (REQID, OTHER):
            queue.add(request(reqid))
        queue.decide(REQID, APPROVED)
        self.write("1111111111111111.denied", b"")
        queue.pending(AT + 600)
        self.assertEqual(
            self.files(),
            ["1111111111111111.denied", f"{REQID}.approved", f"{REQID}.json"],
        )
        queue.pending(AT + 660)
        self.assertEqual(self.files(), [])

    def test_unwritable(self) -> None:
        """
        A directory that can not be written is an error that says so.
        """
        queue = self.queue()
        self.directory.parent.mkdir()
        self.directory.write_bytes(b"")
        self.assertRaises(StoreError, queue.add, request())
