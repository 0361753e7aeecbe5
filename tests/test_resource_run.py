# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests for L{ctrlexec.agent.resource}: C{POST /run}.
"""

from __future__ import annotations

from typing import Any

import attrs

from ctrlexec.agent.allowlist import Allowlist
from ctrlexec.agent.run_archive import RunArchive
from ctrlexec.agent.schema import parse_schema
from ctrlexec.agent.trust import TrustedMap
from tests.agents import NO_MATCH, PEER, SIBLING, STRANGER, ResourceTestCase


class RunTests(ResourceTestCase):
    """
    C{POST /run}
    """

    def test_answered(self) -> None:
        """
        A script gets its arguments and the context; the caller gets what came
        of it; the log has a line before and one after.
        """
        args = ["a b", "'\"$(id)", "", "ü\n"]
        request = {
            "script": "hello",
            "args": args,
            "reqid": "r-1",
            "username": "ann",
            "token": "s3cret",
            "async": False,
        }
        _, answers = self.ask("POST", "/run", request)
        [run] = self.runner.started
        who = f"PEER={PEER} REQID=r-1 SCRIPT=hello"
        start = f"ACTION=run-start DISPATCHER=hq {who}"
        self.assertEqual((answers.given, self.log.taken()), ([], [start]))
        self.assertEqual(self.agent.live, 1)
        path = self.directory / "bin" / "hello"
        assert run.order is not None
        self.assertEqual(run.order.argv, (str(path), *args))
        self.assertEqual(
            run.context,
            {
                "script": "hello",
                "args": args,
                "reqid": "r-1",
                "peer_ip": PEER,
                "username": "ann",
                "token": "s3cret",
                "timestamp": "2026-03-05T18:38:09Z",
                "dispatcher": "hq",
            },
        )
        run.writes(b"out\n", b"err\n")
        run.exits(3)
        self.assertEqual(
            answers.given,
            [
                (
                    200,
                    {
                        "script": "hello",
                        "exit": 3,
                        "stdout": "out\n",
                        "stderr": "err\n",
                        "reqid": "r-1",
                    },
                )
            ],
        )
        end = f"ACTION=run DISPATCHER=hq EXIT=3 {who}"
        self.assertEqual((self.log.taken(), self.agent.live), ([end], 0))

    def test_defaults(self) -> None:
        """
        All but the script can be left out.
        """
        self.ask("POST", "/run", {"script": "hello"})
        [run] = self.runner.started
        for name in ("reqid", "username", "token"):
            self.assertEqual(run.context[name], "")
        self.assertEqual((run.args, run.context["args"]), ((), []))

    def test_callerGone(self) -> None:
        """
        The script goes on when its caller goes away, and its end is logged.
        """
        exchange, answers = self.ask("POST", "/run", {"script": "hello"})
        exchange.lost()
        self.log.taken()
        [run] = self.runner.started
        run.exits(0)
        line = f"ACTION=run DISPATCHER=hq EXIT=0 PEER={PEER} REQID= SCRIPT=hello"
        self.assertEqual(self.log.taken(), [line])
        self.assertEqual(answers.given, [])
        self.assertEqual(self.agent.live, 0)

    def test_busy(self) -> None:
        """
        Above C{max_runs} the answer says so at once, and one that ends makes
        room for another.
        """
        settings = attrs.evolve(self.agent.policy.settings, max_runs=2)
        self.evolve(settings=settings)
        for reqid in ("", "r-0"):
            self.ask("POST", "/run", {"script": "hello", "reqid": reqid})
        self.log.taken()
        request = {"script": "hello", "reqid": "r-1"}
        busy = "busy: 2 runs are going on already"
        answer = {"script": "hello", "exit": -1, "error": busy, "reqid": "r-1"}
        answer["state"] = "busy"
        self.assertEqual(self.answer("POST", "/run", request), (200, answer))
        line = (
            f"ACTION=deny DISPATCHER=hq PEER={PEER} "
            f'REASON="{busy}" REQID=r-1 SCRIPT=hello'
        )
        self.assertEqual(self.log.taken(), [line])
        self.assertEqual(self.answer("POST", "/ping")[0], 200)
        first, second = self.runner.started
        first.exits(0)
        self.ask("POST", "/run", request)
        self.assertEqual(len(self.runner.started), 3)
        second.fails()
        self.flushLoggedErrors(ZeroDivisionError)
        self.ask("POST", "/run", {**request, "reqid": "r-2"})
        self.assertEqual(len(self.runner.started), 4)

    def test_reloaded(self) -> None:
        """
        A script that runs is not touched by other settings; the next one is.
        """
        _, answers = self.ask("POST", "/run", {"script": "hello"})
        self.evolve(allowlist=Allowlist(), trusted=TrustedMap({"d2": "hq"}))
        self.runner.started[0].exits(0)
        self.assertEqual(answers.given[0][1]["exit"], 0)
        answer = self.answer("POST", "/run", {"script": "hello"})
        self.assertEqual(answer[1]["error"], "script not permitted")

    def test_trusts(self) -> None:
        """
        Whom the script has had trusted is trusted before anybody has the answer.
        """
        path = self.agent.policy.settings.trusted_dispatchers_path
        path.parent.mkdir(exist_ok=True)
        trusted: list[object] = []
        end = RunArchive.end

        async def ended(archive: RunArchive, *how: Any) -> None:
            trusted.append(dict(self.agent.policy.trusted.entries))
            await end(archive, *how)

        self.patch(RunArchive, "end", ended)
        self.ask("POST", "/run", {"script": "hello"})
        path.write_text("d1 hq\ne9 next\n")
        self.runner.started[0].exits(0)
        self.assertEqual(trusted, [{"d1": "hq", "e9": "next"}])

    def test_stdinTimedOut(self) -> None:
        """
        That a script did not read its context is logged.
        """
        self.ask("POST", "/run", {"script": "hello", "reqid": "r-1"})
        self.log.taken()
        self.runner.started[0].exits(0, stdin_timed_out=True)
        line = "ACTION=stdin-timeout REQID=r-1 SCRIPT=hello"
        self.assertEqual(self.log.taken()[0], line)

    def test_invalid(self) -> None:
        """
        A request that is none is refused in the protocol's words.
        """
        for body, error in (
            (b"", "invalid JSON"),
            (b"{", "invalid JSON"),
            (b"[" * 100_000, "invalid JSON"),
            (b'{"script":"hello","args":[NaN]}', "invalid JSON"),
            ([], "invalid JSON"),
            ({"script": "hello", "args": "x"}, "args must be an array"),
            ({"script": "hello", "args": {}}, "args must be an array"),
            ({"script": "hello", "args": [1]}, "args must be strings"),
            ({"script": "hello", "args": [["x"]]}, "args must be strings"),
            (b'{"script":"hello","args":["\\ud800"]}', "args must be strings"),
        ):
            code, answer = self.answer("POST", "/run", body)
            self.assertEqual(code, 200)
            # What was no JSON had no request id to echo.
            echoed = {} if error == "invalid JSON" else {"reqid": ""}
            self.assertEqual(answer, {"exit": -1, "error": error, **echoed})
            self.assertIn(f'REASON="{error}"', self.log.taken()[0])
        self.assertEqual(self.runner.started, [])

    def test_invalidWithId(self) -> None:
        """
        A refusal carries the id where there is one.
        """
        body = {"script": "hello", "args": "x", "reqid": "r-1"}
        expected = {"exit": -1, "error": "args must be an array", "reqid": "r-1"}
        self.assertEqual(self.answer("POST", "/run", body), (200, expected))

    def test_notPermitted(self) -> None:
        """
        What is not in the allowlist does not run, whatever it is called. The
        caller is not told why; the log is, on one line.
        """
        for script in (
            "bye",
            "../bin/hello",
            "/bin/sh",
            "hello\nACTION=run",
            "x" * 999,
        ):
            body = {"script": script, "reqid": "r-1"}
            self.assertEqual(
                self.answer("POST", "/run", body),
                (
                    200,
                    {
                        "script": script,
                        "exit": -1,
                        "error": "script not permitted",
                        "reqid": "r-1",
                    },
                ),
            )
            [line] = self.log.taken()
            self.assertTrue(line.startswith("ACTION=deny DISPATCHER=hq"))
            self.assertTrue(line.isprintable())
            self.assertLess(len(line), 400)
        self.assertEqual(self.runner.started, [])

    def test_unread(self) -> None:
        """
        The log line of a request that could not be read has the fields that
        were read, and no empty ones in place of the others.
        """
        for body, reason, rest in (
            (b"{", "invalid JSON", ""),
            (b'{"reqid":1}', "reqid must be a string", ""),
            (b'{"args":1,"reqid":"r-1"}', "args must be an array", " REQID=r-1"),
            (b'{"args":1}', "args must be an array", " REQID="),
        ):
            self.ask("POST", "/run", body)
            line = f'ACTION=deny DISPATCHER=hq PEER={PEER} REASON="{reason}"{rest}'
            self.assertEqual(self.log.taken(), [line])

    def test_outside(self) -> None:
        """
        C{script_dirs} is looked at again when a script is asked for.
        """
        settings = attrs.evolve(
            self.agent.policy.settings, script_dirs=(self.directory / "bin",)
        )
        self.evolve(settings=settings)
        path = self.directory / "bin" / "hello"
        path.unlink()
        path.symlink_to("/bin/sh")
        answer = self.answer("POST", "/run", {"script": "hello"})
        self.assertEqual(answer[1]["error"], "script not permitted")
        self.assertIn("outside script_dirs", self.log.taken()[0])

    def test_unfit(self) -> None:
        """
        Arguments that do not fit the script's schema are refused by the name of
        the one that is wrong; neither answer nor log repeats it.
        """
        text = b'{"argv": [{"arg": "n"}], "arguments": {"properties": '
        schema = parse_schema(text + b'{"n": {"type": "integer"}}}}')
        self.evolve(schemas={"hello": schema})
        body = {"script": "hello", "reqid": "r-1", "args": ["s3cret"]}
        error = "argument 'n' does not fit: expected integer"
        refused = {"script": "hello", "exit": -1, "error": error, "reqid": "r-1"}
        self.assertEqual(self.answer("POST", "/run", body), (200, refused))
        line = f'ACTION=deny DISPATCHER=hq PEER={PEER} REASON="{error}"'
        self.assertEqual(self.log.taken(), [f"{line} REQID=r-1 SCRIPT=hello"])
        self.assertEqual(self.runner.started, [])
        self.ask("POST", "/run", {"script": "hello", "args": ["1"]})
        self.assertEqual(len(self.runner.started), 1)

    def test_exposed(self) -> None:
        """
        A script that anybody may write by now does not start.
        """
        path = self.directory / "bin" / "hello"
        path.chmod(0o777)
        answer = self.answer("POST", "/run", {"script": "hello"})
        self.assertEqual(answer[1]["error"], "script not permitted")
        self.assertIn(f'REASON="{path} is world-writable"', self.log.taken()[0])
        self.assertEqual(self.runner.started, [])

    def test_realPath(self) -> None:
        """
        A script that a link leads to is started under its real path.
        """
        path = self.directory / "bin" / "hello"
        real = path.rename(self.directory / "bin" / "hello-2")
        path.symlink_to("hello-2")
        self.ask("POST", "/run", {"script": "hello"})
        order = self.runner.started[0].order
        assert order is not None
        self.assertEqual(order.argv, (str(real),))

    def test_notTrusted(self) -> None:
        """
        Who is not trusted starts nothing and learns nothing of the allowlist.
        """
        for certificate in (STRANGER, SIBLING):
            for body in ({"script": "hello", "reqid": "r-1"}, b"rubbish"):
                answer = self.answer("POST", "/run", body, certificate=certificate)
                self.assertEqual(answer, NO_MATCH)
                [line] = self.log.taken()
                self.assertTrue(line.startswith("ACTION=serial-reject"))
        self.assertEqual(self.runner.started, [])

    def test_token(self) -> None:
        """
        No line of the log ever holds a token.
        """
        body = {"script": "hello", "token": "s3cret", "username": "ann"}
        self.ask("POST", "/run", body)
        self.runner.started[0].exits(0)
        self.ask("POST", "/run", {**body, "script": "bye"})
        self.ask("POST", "/run", body, certificate=STRANGER)
        self.assertNotIn("s3cret", "".join(self.log.taken()))

    def test_runnerFails(self) -> None:
        """
        Should the runner fail, which it must not, the caller still hears.
        """
        _, answers = self.ask("POST", "/run", {"script": "hello"})
        self.runner.started[0].fails()
        self.assertEqual(answers.given, [(500, {"error": "internal error"})])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.agent.live, 0)
