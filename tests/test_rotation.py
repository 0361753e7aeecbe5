# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.agent.rotation}: C{POST /rotate-serial}, as a dispatcher
asks for it.
"""

from __future__ import annotations

from typing import Any

import attrs
from twisted.internet.defer import Deferred

from ctrlexec.agent.rotation import Rotation, migrate
from ctrlexec.agent.trust import NAMELESS, TrustedMap
from ctrlexec.certificates import DispatcherRole
from ctrlexec.protocol import codec
from ctrlexec.protocol.messages import Refused, RotateRequest
from tests.agents import (
    NO_MATCH,
    PEER,
    SIBLING,
    STRANGER,
    ResourceTestCase,
    holder,
    in_this_thread,
)
from tests.serving import ServiceTestCase

ORIGINAL = holder(None, serial="d1")


class RotationTestCase(ResourceTestCase):
    """
    An agent that trusts C{hq} and C{ops}, on disk too.
    """

    def setUp(self) -> None:
        super().setUp()
        self.map = self.agent.policy.settings.trusted_dispatchers_path
        self.map.parent.mkdir()
        self.map.write_text("d1 hq\ne9 ops\n")
        self.evolve(trusted=TrustedMap({"d1": "hq", "e9": "ops"}))

    def rotate(self, body: object, **who: Any) -> tuple[int, Any]:
        """
        Ask.
        """
        return self.answer("POST", "/rotate-serial", body, **who)

    def assertTrusted(self, **entries: str) -> None:
        """
        This map is in force, and on disk.
        """
        self.assertEqual(self.agent.policy.trusted.entries, entries)
        self.assertEqual(TrustedMap.parse(self.map.read_text()).entries, entries)


class DoneTests(RotationTestCase):
    """
    What is done
    """

    def test_add(self) -> None:
        """
        A serial is added, in force at once; the answer has it as it was sent.
        """
        answer = self.rotate({"serial": "0xD2", "token": "s3cret"})
        expected = {"status": "ok", "action": "add", "serial": "0xD2"}
        self.assertEqual(answer, (200, {**expected, "dispatcher": "hq"}))
        self.assertTrusted(d1="hq", d2="hq", e9="ops")
        line = f"ACTION=rotate DISPATCHER=hq PEER={PEER} SERIAL=d2 SERIAL_ACTION=add"
        self.assertEqual(self.log.taken(), [line])
        newer = holder(None, serial="d2")
        self.assertEqual(self.answer("POST", "/ping", certificate=newer)[0], 200)

    def test_remove(self) -> None:
        """
        A serial is removed, and its holder gives no more orders.
        """
        answer = self.rotate({"serial": "00:D1", "action": "remove"})
        expected = {"status": "ok", "action": "remove", "serial": "00:D1"}
        self.assertEqual(answer, (200, {**expected, "dispatcher": "hq"}))
        self.assertTrusted(e9="ops")
        self.assertEqual(self.answer("POST", "/ping"), NO_MATCH)

    def test_removeAbsent(self) -> None:
        """
        What is not there is removed already.
        """
        _, fields = self.rotate({"serial": "77", "action": "remove"})
        self.assertEqual(fields["status"], "ok")
        self.assertTrusted(d1="hq", e9="ops")

    def test_hex(self) -> None:
        """
        A serial on the wire is hex, of whatever digits.
        """
        self.rotate({"serial": "10"})
        self.assertTrusted(d1="hq", e9="ops", **{"10": "hq"})

    def test_whose(self) -> None:
        """
        The id comes from the caller's certificate, by its role or its place in
        the map, whatever the body says.
        """
        body = {"serial": "f1", "dispatcher": "ops", "dispatcher_id": "ops"}
        for certificate in (ORIGINAL, holder(DispatcherRole("hq"), serial="f0")):
            _, fields = self.rotate(body, certificate=certificate)
            self.assertEqual(fields["dispatcher"], "hq")
        self.assertTrusted(d1="hq", e9="ops", f1="hq")


class RefusedTests(RotationTestCase):
    """
    What is not
    """

    def assertRefused(self, body: object, error: str, reason: str = "") -> None:
        """
        The answer is an error with status 200, and nothing has changed.
        """
        answer = self.rotate(body)
        self.assertEqual(answer, (200, {"status": "error", "error": error}), body)
        self.assertTrusted(d1="hq", e9="ops")
        [line] = self.log.taken()
        self.assertTrue(line.startswith("ACTION=rotate-deny DISPATCHER=hq REASON="))
        self.assertIn(error.replace('"', '\\"'), line)

    def test_noSerial(self) -> None:
        """
        Without a serial that is said first, whatever else is wrong.
        """
        for body in (
            b"",
            b"{",
            b"[]",
            {},
            {"serial": ""},
            {"serial": None, "action": "x"},
            {"serial": 12},
            {"serial": ["d2"]},
            {"serial": "d2", "token": 7},
        ):
            self.assertRefused(body, "serial required")

    def test_badAction(self) -> None:
        """
        There are two actions, by these names.
        """
        for action, shown in (
            ("replace", "replace"),
            ("ADD", "ADD"),
            ("", ""),
            (7, "7"),
            (["add"], '["add"]'),
            ("x" * 9999, "x" * 64),
        ):
            body = {"serial": "d2", "action": action}
            self.assertRefused(body, f"invalid action '{shown}'")

    def test_badSerial(self) -> None:
        """
        What is no serial is refused before anybody is asked.
        """
        for serial in ("hq", "d2\nf1 hq", "d2 hq", "f" * 65, "#", "-1", " "):
            self.assertRefused({"serial": serial}, "invalid serial")

    def test_others(self) -> None:
        """
        A dispatcher neither removes nor takes over another's serial.
        """
        for action in ("add", "remove"):
            body = {"serial": "E9", "action": action}
            self.assertRefused(body, "serial not owned by 'hq'")

    def test_trustedNoMore(self) -> None:
        """
        Whom the map on disk trusts no more changes nothing, even if it is
        trusted for as long as nobody has read the map.
        """
        self.map.write_text("e9 ops\n")
        answer = self.rotate({"serial": "d2"})
        error = "'hq' is not trusted"
        self.assertEqual(answer, (200, {"status": "error", "error": error}))
        self.assertEqual(self.map.read_text(), "e9 ops\n")

    def test_notTrusted(self) -> None:
        """
        Strangers and agents are told nothing, and their serial is logged.
        """
        for certificate in (STRANGER, SIBLING):
            answer = self.rotate({"serial": "d2"}, certificate=certificate)
            self.assertEqual(answer, NO_MATCH)
            [line] = self.log.taken()
            self.assertTrue(line.startswith("ACTION=serial-reject"), line)
        self.assertTrusted(d1="hq", e9="ops")

    def test_unwritable(self) -> None:
        """
        A map that can not be written is an answer, an event of its own, and
        the old map in force.
        """
        self.map.unlink()
        self.map.mkdir()
        code, fields = self.rotate({"serial": "d2"})
        self.assertEqual((code, fields["status"]), (200, "error"))
        self.assertIn("not a regular file", fields["error"])
        trusted = self.agent.policy.trusted.entries
        self.assertEqual(trusted, {"d1": "hq", "e9": "ops"})
        [line] = self.log.taken()
        self.assertTrue(line.startswith("ACTION=rotate-fail DISPATCHER=hq ERROR="))

    def test_hook(self) -> None:
        """
        What the auth hook refuses is not done; the answer and the log say why.
        """

        async def refuse(request: RotateRequest) -> str | None:
            self.assertEqual((request.action, request.serial), ("add", "D2"))
            return "bad credentials"

        rotation = Rotation(
            self.agent.policy.settings, self.log, in_this_thread, PEER, "hq", self.fail
        )
        request = codec.decode_rotate_request(b'{"serial":"D2"}')
        answering = Deferred.fromCoroutine(rotation.answer(request, refuse))
        refused = Refused(403, "not authorised: bad credentials")
        self.assertEqual(self.successResultOf(answering), refused)
        line = 'ACTION=rotate-deny DISPATCHER=hq REASON="bad credentials"'
        self.assertEqual(self.log.taken(), [line])
        self.assertTrusted(d1="hq", e9="ops")

    def test_token(self) -> None:
        """
        The token is nowhere in what a request shows of itself.
        """
        request = codec.decode_rotate_request(b'{"serial":"D2","token":"s3cret"}')
        self.assertNotIn("s3cret", repr(request))


class ByScriptTests(RotationTestCase):
    """
    A script that changes the map: C{update-ctrl-exec-serial} is one
    """

    def run_script(self, meanwhile: str | None) -> None:
        """
        Run one that writes this map.
        """
        self.ask("POST", "/run", {"script": "hello"})
        if meanwhile is not None:
            new = self.map.with_name("new")
            new.write_text(meanwhile)
            new.replace(self.map)
        self.runner.started[-1].exits(0)

    def test_noticed(self) -> None:
        """
        The map is in force when the script ends.
        """
        self.run_script("d1 hq\nd2 hq\n")
        self.assertTrusted(d1="hq", d2="hq")

    def test_untouched(self) -> None:
        """
        A map that no script has written is not read again.
        """
        self.evolve(trusted=TrustedMap({"d1": "hq"}))
        self.run_script(None)
        self.assertEqual(self.agent.policy.trusted.entries, {"d1": "hq"})

    def test_unreadable(self) -> None:
        """
        One that can not be read then is logged, and what was in force stays.
        """
        self.ask("POST", "/run", {"script": "hello"})
        self.map.unlink()
        self.map.mkdir()
        self.log.taken()
        self.runner.started[-1].exits(0)
        self.assertIn("ACTION=rotate-fail DISPATCHER=hq", self.log.lines[-1])
        self.assertEqual(len(self.agent.policy.trusted.entries), 2)


class StartTests(ServiceTestCase):
    """
    An agent of the older line, when it starts
    """

    def test_migrated(self) -> None:
        """
        It has a map from then on, and trusts whom it trusted before.
        """
        path = self.directory / "state" / "ctrl-exec-dispatchers"
        path.unlink()
        (self.directory / "ctrl-exec-serial").write_text("0D1\n")
        service = self.agent()
        self.assertEqual(TrustedMap.parse(path.read_text()).entries, {"d1": NAMELESS})
        self.assertEqual(service.resource.policy.trusted.entries, {"d1": NAMELESS})
        line = "ACTION=trust-migrate DISPATCHER=dispatcher SERIAL=d1"
        self.assertIn(line, self.logged())


class MigrateTests(RotationTestCase):
    """
    L{migrate}
    """

    def migrated(self) -> list[str]:
        """
        What is logged of a migration.
        """
        migrate(self.agent.policy.settings, self.log)
        return self.log.taken()

    def test_migrated(self) -> None:
        """
        It is a change of trust, and logged once.
        """
        self.map.unlink()
        self.agent.policy.settings.dispatcher_serial_path.write_text("AA\n")
        line = "ACTION=trust-migrate DISPATCHER=dispatcher SERIAL=aa"
        self.assertEqual(self.migrated(), [line])
        self.assertEqual(self.migrated(), [])

    def test_failed(self) -> None:
        """
        Where there is no room for a map that is a warning, and the agent
        starts.
        """
        other = attrs.evolve(
            self.agent.policy.settings, trusted_dispatchers_path=self.map / "x"
        )
        other.dispatcher_serial_path.write_text("AA\n")
        migrate(other, self.log)
        [line] = self.log.taken()
        self.assertIn('ACTION=config-warn MSG="no trusted map could be made', line)
