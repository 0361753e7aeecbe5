# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.agent.identity}: files, and what a crash leaves of them.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
from pathlib import Path

import attrs
from twisted.trial.unittest import SynchronousTestCase

from ctrlexec.agent import identity
from ctrlexec.agent.trust import TrustedMap, load_trusted
from ctrlexec.certificates import AgentRole
from ctrlexec.errors import CtrlExecError, PkiError, StoreError
from tests.agents import APPROVAL, agent_settings, approved, tree
from tests.authority import CA, issued
from tests.wired import OTHER_CA


class StoreTestCase(SynchronousTestCase):
    """
    An agent in a directory.
    """

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.settings = agent_settings(self.directory)
        self.new = approved(APPROVAL)
        self.unfinished = self.directory / ".agent.crt.unfinished"

    def trusted(self) -> TrustedMap:
        """
        Whom the agent trusts.
        """
        return load_trusted(
            self.settings.trusted_dispatchers_path,
            self.settings.dispatcher_serial_path,
        )


class StoreTests(StoreTestCase):
    """
    L{identity.store} and what stands round it
    """

    def test_stored(self) -> None:
        """
        Four files that belong together, and the agent is paired.
        """
        self.assertFalse(identity.is_paired(self.settings))
        identity.prepare(self.settings)
        identity.store(self.settings, self.new)
        self.assertTrue(identity.is_paired(self.settings))
        info = identity.identity(self.settings).load().info
        self.assertEqual(info.role, AgentRole("agent-one"))
        self.assertEqual(self.trusted().entries, {"d1": "hq"})
        self.assertFalse(self.unfinished.exists())

    def test_modes(self) -> None:
        """
        Only who pairs can read the key, and the agent's group where root does;
        the umask has no say.
        """
        old = os.umask(0)
        self.addCleanup(os.umask, old)
        identity.store(self.settings, self.new)
        modes = {
            path.name: stat.S_IMODE(path.stat().st_mode)
            for path in self.directory.rglob("*")
            if path.name.startswith(("agent.key", "agent.crt", "ca.crt", "ctrl-exec"))
        }
        key = 0o640 if os.geteuid() == 0 else 0o600
        self.assertEqual(
            modes,
            {
                "agent.key": key,
                "agent.crt": 0o640,
                "ca.crt": 0o644,
                "ctrl-exec-dispatchers": 0o644,
            },
        )

    def test_links(self) -> None:
        """
        A link in the place of a file is replaced, never followed: the state
        directory is not root's.
        """
        victim = self.directory / "victim"
        victim.write_text("precious")
        identity.prepare(self.settings)
        self.settings.trusted_dispatchers_path.symlink_to(victim)
        identity.store(self.settings, self.new)
        self.assertEqual(victim.read_text(), "precious")
        self.assertEqual(self.trusted().entries, {"d1": "hq"})

    def test_again(self) -> None:
        """
        Within one CA, to pair again drops nobody.
        """
        identity.store(self.settings, self.new)
        new = attrs.evolve(self.new, serial="d2", dispatcher="lab")
        identity.store(self.settings, new)
        self.assertEqual(self.trusted().entries, {"d1": "hq", "d2": "lab"})

    def test_older(self) -> None:
        """
        The trusted serial of the older line is carried over.
        """
        self.settings.ca.write_bytes(CA)
        self.settings.dispatcher_serial_path.write_text("0C\n")
        identity.store(self.settings, self.new)
        self.assertEqual(self.trusted().entries, {"c": "dispatcher", "d1": "hq"})

    def test_otherCa(self) -> None:
        """
        With another CA, whom the agent trusted so far are strangers: under it,
        anybody can have their serials and ids.
        """
        for ca in (OTHER_CA, b"rubbish"):
            identity.prepare(self.settings)
            self.settings.ca.write_bytes(ca)
            self.settings.trusted_dispatchers_path.write_text("02 old\n")
            identity.store(self.settings, self.new)
            self.assertEqual(self.trusted().entries, {"d1": "hq"})

    def test_leftovers(self) -> None:
        """
        What a crash left of an earlier attempt is gone afterwards.
        """
        left = self.directory / ".agent.key.0123456789ab.tmp"
        other = self.directory / ".agent.key.notes.tmp"
        left.write_text("half a key")
        other.write_text("mine")
        identity.store(self.settings, self.new)
        self.assertEqual((left.exists(), other.exists()), (False, True))

    def test_sideBySide(self) -> None:
        """
        Two agents in one directory do not finish each other's pairing.
        """
        identity.store(self.settings, self.new)
        other = attrs.evolve(
            self.settings,
            key=self.directory / "b.key",
            cert=self.directory / "b.crt",
            trusted_dispatchers_path=self.directory / "b-trusted",
        )
        self.unfinished.write_text("{}")
        self.assertFalse(identity.recover(other))
        self.assertFalse(identity.is_paired(other))

    def test_prepare(self) -> None:
        """
        That nothing could be stored is said before anybody is asked.
        """
        # Nobody makes files there, root included.
        nowhere = Path("/proc/self")
        for settings in (
            attrs.evolve(self.settings, key=nowhere / "file"),
            attrs.evolve(self.settings, trusted_dispatchers_path=nowhere / "file"),
        ):
            error = self.assertRaises(StoreError, identity.prepare, settings)
            self.assertEqual(error.path, nowhere)

    def test_prepareMap(self) -> None:
        """
        So is a trusted map that can not be read, and a path that can not be a
        directory.
        """
        self.settings.trusted_dispatchers_path.mkdir(parents=True)
        self.assertRaises(StoreError, identity.prepare, self.settings)
        settings = attrs.evolve(self.settings, state_dir=self.directory / "agent.conf")
        self.assertRaises(StoreError, identity.prepare, settings)

    def test_unreadable(self) -> None:
        """
        What can not be looked at counts as there, so that loading it says why.
        """
        (self.directory / "file").touch()
        settings = attrs.evolve(
            self.settings,
            key=self.directory / "file" / "agent.key",
            cert=self.directory / "agent.conf",
            ca=self.directory / "agent.conf",
        )
        self.assertTrue(identity.is_paired(settings))
        error = self.assertRaises(PkiError, identity.identity(settings).load)
        self.assertIn("Not a directory", str(error))


class CrashTests(StoreTestCase):
    """
    L{identity.recover}
    """

    places = ("agent.key", "agent.crt", "ca.crt", "state/ctrl-exec-dispatchers")

    def setUp(self) -> None:
        """
        An agent with an old identity is given a new one.
        """
        super().setUp()
        old = issued(AgentRole("agent-one")).decode()
        identity.store(self.settings, attrs.evolve(self.new, cert=old))
        self.old = self.state()
        identity.store(self.settings, attrs.evolve(self.new, serial="d2"))
        self.after = self.state()

    def state(self) -> dict[str, bytes]:
        """
        The four files.
        """
        found = tree(self.directory)
        return {name: found[name] for name in self.places if name in found}

    def put(self, state: dict[str, bytes]) -> None:
        """
        Put the four files back.
        """
        for name, content in state.items():
            (self.directory / name).write_bytes(content)

    def blocked(self, name: str) -> CtrlExecError:
        """
        Store while one of the files can not be replaced.
        """
        path = self.directory / name
        path.unlink()
        path.mkdir()
        (path / "in the way").touch()
        new = attrs.evolve(self.new, serial="d2")
        error: CtrlExecError = self.assertRaises(
            CtrlExecError, identity.store, self.settings, new
        )
        shutil.rmtree(path)
        (self.directory / name).write_bytes(self.old[name])
        return error

    def test_eachWrite(self) -> None:
        """
        Wherever the writing stops, what is there then is finished by whoever
        comes next: all is new, and belongs together.
        """
        for name in ("agent.key", "agent.crt"):
            self.put(self.old)
            error = self.blocked(name)
            self.assertIn("pairing-status", error.hint)
            self.assertTrue(self.unfinished.exists())
            self.assertTrue(identity.recover(self.settings))
            self.assertEqual(self.state(), self.after)
            self.assertFalse(identity.recover(self.settings))
            identity.identity(self.settings).load()

    def test_mapFails(self) -> None:
        """
        The trusted map comes last; until it is written the pairing is not
        finished.
        """
        self.put(self.old)
        self.settings.ca.write_bytes(OTHER_CA)
        path = self.settings.trusted_dispatchers_path
        path.unlink()
        path.mkdir()
        self.assertRaises(StoreError, identity.store, self.settings, self.new)
        self.assertRaises(StoreError, identity.recover, self.settings)
        path.rmdir()
        self.assertTrue(identity.recover(self.settings))
        self.assertEqual(self.trusted().entries, {"d1": "hq"})

    def test_firstWriteFails(self) -> None:
        """
        Where not even the first file could be written, all is as before, and
        there is nothing to finish.
        """
        self.put(self.old)
        self.unfinished.mkdir()
        (self.unfinished / "in the way").touch()
        new = attrs.evolve(self.new, serial="d2")
        error = self.assertRaises(StoreError, identity.store, self.settings, new)
        self.assertNotIn("finishes", error.hint)
        self.assertEqual(self.state(), self.old)

    def test_anyMixture(self) -> None:
        """
        Any mixture of old and new that a crash can leave becomes the new.
        """
        self.put(self.old)
        self.blocked("agent.key")
        left = self.unfinished.read_bytes()
        for done in range(len(self.places) + 1):
            self.put(self.old)
            self.put({name: self.after[name] for name in self.places[:done]})
            self.unfinished.write_bytes(left)
            self.assertTrue(identity.recover(self.settings))
            self.assertEqual(self.state(), self.after)

    def test_secret(self) -> None:
        """
        What is left holds the key, so nobody else may read it.
        """
        self.blocked("agent.key")
        self.assertEqual(stat.S_IMODE(self.unfinished.stat().st_mode), 0o600)

    def test_rubbish(self) -> None:
        """
        What is not ours is reported, and changes nothing.
        """
        for text in (
            "",
            "{",
            "[]",
            "{}",
            json.dumps({"key": 1, "cert": 2, "ca": 3, "trusted": 4}),
            json.dumps({"key": "", "cert": "", "ca": "", "trusted": "", "more": ""}),
        ):
            self.unfinished.write_text(text)
            error = self.assertRaises(StoreError, identity.recover, self.settings)
            self.assertIn("remove it", error.hint)
            self.assertEqual(self.state(), self.after)

    def test_nothing(self) -> None:
        """
        Without a crash there is nothing to finish.
        """
        self.assertFalse(identity.recover(self.settings))
        self.assertEqual(self.state(), self.after)
