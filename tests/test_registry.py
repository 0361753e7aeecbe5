# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of L{ctrlexec.dispatcher.registry}.
"""

from __future__ import annotations

import fcntl
import json
from pathlib import Path

import attrs
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.dispatcher.records import AgentRecord
from ctrlexec.dispatcher.registry import FileRegistry, Unknown, targets
from ctrlexec.errors import Conflict, StoreError
from ctrlexec.values import HostPort, Target
from tests.contracts import RegistryContract


class FileRegistryTests(RegistryContract, SynchronousTestCase):
    """
    The registry that is a directory.
    """

    def setUp(self) -> None:
        """
        A directory that is not there yet.
        """
        self.directory = Path(self.mktemp()) / "agents"

    def registry(self) -> FileRegistry:
        """
        See L{RegistryContract.registry}.
        """
        return FileRegistry(self.directory)

    def test_file(self) -> None:
        """
        A record is the file of PROTOCOL.md section 4, for its group to read.
        """
        self.registry().put(AgentRecord("agent-one", port=7000))
        path = self.directory / "agent-one.json"
        self.assertEqual(json.loads(path.read_bytes())["port"], 7000)
        self.assertEqual(path.stat().st_mode & 0o777, 0o640)

    def test_leavesNothingElse(self) -> None:
        """
        Beside records there is a lock, and no temporary file, not even one
        that a crash has left.
        """
        registry = self.registry()
        registry.put(AgentRecord("agent-one"))
        (self.directory / ".agent-one.json.0123456789ab.tmp").write_bytes(b"{")
        registry.put(AgentRecord("agent-one"))
        self.assertEqual(
            sorted(path.name for path in self.directory.iterdir()),
            [".registry.lock", "agent-one.json"],
        )

    def test_oddName(self) -> None:
        """
        A record of the older line whose name can not be an agent's is
        reported, not passed over.
        """
        registry = self.registry()
        registry.put(AgentRecord("agent-one"))
        odd = self.directory / "_odd.json"
        odd.write_text("{}")
        records, errors = registry.records()
        self.assertEqual([record.hostname for record in records], ["agent-one"])
        self.assertEqual([error.path for error in errors], [odd])

    def test_brokenRecord(self) -> None:
        """
        A record that is cut off is reported by name; the others work.
        """
        registry = self.registry()
        registry.put(AgentRecord("agent-one"))
        registry.put(AgentRecord("agent-two"))
        cut = self.directory / "agent-one.json"
        cut.write_bytes(cut.read_bytes()[:20])
        records, errors = registry.records()
        self.assertEqual([record.hostname for record in records], ["agent-two"])
        self.assertEqual([error.path for error in errors], [cut])
        self.assertEqual(list(registry.names()), ["agent-one", "agent-two"])
        self.assertRaises(StoreError, registry.get, "agent-one")

    def test_endlessRecord(self) -> None:
        """
        No more of a file is read than a record can have.
        """
        self.registry().put(AgentRecord("agent-one"))
        with (self.directory / "agent-one.json").open("ab") as file:
            file.write(b" " * 65_536)
        self.assertRaises(StoreError, self.registry().get, "agent-one")

    def test_foreignFiles(self) -> None:
        """
        What is not named like a record is none.
        """
        self.registry().put(AgentRecord("agent-one"))
        for name in ("README", ".hidden.json", "a b.json", "agent-two.json.bak"):
            (self.directory / name).write_bytes(b"")
        self.assertEqual(list(self.registry().names()), ["agent-one"])

    def test_group(self) -> None:
        """
        Whichever user comes first, all that are in the directory's group can
        read the records, and write some.
        """
        self.registry().put(AgentRecord("agent-one"))
        self.assertEqual(self.directory.stat().st_mode & 0o7777, 0o2770)
        lock = self.directory / ".registry.lock"
        self.assertEqual(lock.stat().st_mode & 0o777, 0o660)

    def test_tooLarge(self) -> None:
        """
        A record that nobody could read any more is not written.
        """
        registry = self.registry()
        registry.put(AgentRecord("agent-one", port=7000))
        tags = {"x": "y" * 65_536}
        self.assertRaises(StoreError, registry.put, AgentRecord("agent-one", tags=tags))
        with self.assertRaises(StoreError):
            registry.change("agent-one", lambda agent: attrs.evolve(agent, tags=tags))
        self.assertEqual(registry.get("agent-one"), AgentRecord("agent-one", port=7000))

    def test_changeOfNothing(self) -> None:
        """
        A record that stays the same is not written.
        """
        self.registry().put(AgentRecord("agent-one"))
        path = self.directory / "agent-one.json"
        before = path.stat().st_ino
        self.registry().change("agent-one", lambda agent: agent)
        self.assertEqual(path.stat().st_ino, before)

    def test_changeOfBroken(self) -> None:
        """
        A record that can not be read is not guessed.
        """
        self.registry().put(AgentRecord("agent-one"))
        (self.directory / "agent-one.json").write_bytes(b"{")
        self.assertRaises(StoreError, self.registry().change, "agent-one", self.fail)

    def test_changeToBroken(self) -> None:
        """
        The name of a record that can not be read is taken, too.
        """
        self.registry().put(AgentRecord("agent-one"))
        (self.directory / "agent-two.json").write_bytes(b"{")
        with self.assertRaises(Conflict):
            self.registry().change(
                "agent-one", lambda agent: attrs.evolve(agent, hostname="agent-two")
            )
        self.assertEqual(list(self.registry().names()), ["agent-one", "agent-two"])

    def test_changeIsAlone(self) -> None:
        """
        Nobody else changes anything in the middle of a change, an original
        included.
        """

        def change(record: AgentRecord) -> AgentRecord:
            with (
                (self.directory / ".registry.lock").open("rb") as file,
                self.assertRaises(BlockingIOError),
            ):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return record

        self.registry().put(AgentRecord("agent-one"))
        self.registry().change("agent-one", change)

    def test_moveFails(self) -> None:
        """
        A record that can not be moved stays what it was, and there is only
        that one.
        """
        self.registry().put(AgentRecord("agent-one"))
        old = self.directory / "agent-one.json"

        def change(record: AgentRecord) -> AgentRecord:
            # What is no file can not be removed.
            old.unlink()
            old.mkdir()
            return attrs.evolve(record, hostname="agent-two")

        self.assertRaises(StoreError, self.registry().change, "agent-one", change)
        self.assertEqual(list(self.registry().names()), ["agent-one"])

    def test_noDirectory(self) -> None:
        """
        A registry that can not be listed is an error, not an empty one.
        """
        self.directory.parent.mkdir()
        self.directory.write_bytes(b"")
        self.assertRaises(StoreError, self.registry().names)


class TargetsTests(SynchronousTestCase):
    """
    From names to addresses: NEWER-LINE.md section 14.
    """

    def setUp(self) -> None:
        """
        Two agents, one of them broken.
        """
        directory = Path(self.mktemp())
        self.registry = FileRegistry(directory)
        self.registry.put(
            AgentRecord("agent-one", ip="192.0.2.1", lookup_by="ip", port=7000)
        )
        (directory / "broken.json").write_bytes(b"{")

    def found(self, name: str, *, connect: bool = False) -> Target | Unknown:
        """
        Where one name leads.
        """
        (found,) = targets(
            self.registry, [HostPort.parse(name)], connect_unregistered=connect
        )
        return found

    def test_known(self) -> None:
        """
        Address and port are the record's.
        """
        self.assertEqual(
            self.found("agent-one"), Target("agent-one", "192.0.2.1", 7000)
        )

    def test_port(self) -> None:
        """
        A port that was typed goes before the record's.
        """
        self.assertEqual(
            self.found("agent-one:7001"), Target("agent-one", "192.0.2.1", 7001)
        )

    def test_renamed(self) -> None:
        """
        Who is called by another name than that in its certificate is expected
        to prove that one.
        """
        self.registry.put(AgentRecord("agent-two", identity="web-1"))
        self.assertEqual(
            self.found("agent-two"),
            Target("agent-two", "agent-two", 7443, identity="web-1"),
        )

    def test_unknown(self) -> None:
        """
        Who is not registered is not connected to.
        """
        for name in ("agent-two", "192.0.2.9", "2001:db8::1"):
            self.assertEqual(self.found(name), Unknown(name, "unknown agent"))

    def test_connectUnregistered(self) -> None:
        """
        The older line's way can be had back, by the setting.
        """
        self.assertEqual(
            self.found("agent-two", connect=True),
            Target("agent-two", "agent-two", 7443, registered=False),
        )
        self.assertEqual(
            self.found("[2001:db8::1]:1", connect=True),
            Target("2001:db8::1", "2001:db8::1", 1, registered=False),
        )

    def test_broken(self) -> None:
        """
        Who has a record that can not be read is nobody to guess about.
        """
        for connect in (False, True):
            match self.found("broken", connect=connect):
                case Unknown("broken", error):
                    self.assertIn("broken.json", error)
                case found:
                    self.fail(f"{found}")

    def test_order(self) -> None:
        """
        There is one answer for each name, in its place.
        """
        names = ["agent-two", "agent-one", "agent-two"]
        found = targets(
            self.registry,
            [HostPort(name) for name in names],
            connect_unregistered=False,
        )
        self.assertEqual([each.name for each in found], names)
