# SPDX-License-Identifier: AGPL-3.0-only
"""
Orders that programs give through the API: once, however often they are sent,
and for as long as the program is there, if it wants that.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from tests.e2e.lives import RunsCase


class OnceTests(RunsCase):
    """
    C{Idempotency-Key}
    """

    def setUp(self) -> None:
        super().setUp()
        self.api = self.serve_api()
        self.order = {"hosts": ["agent-one"], "script": "ends"}
        self.key = {"Idempotency-Key": "8e03978e"}

    def starts(self) -> int:
        """
        How often the script was started.
        """
        return len(self.agent.lines("ACTION=run-start"))

    def test_together(self) -> None:
        """
        The same order many times at once is one run, and everybody gets its
        answer.
        """
        with ThreadPoolExecutor(5) as threads:
            asked = [
                threads.submit(
                    self.api_client().ask, "POST", "/run", self.order, **self.key
                )
                for _ in range(5)
            ]
            self.await_line(self.agent.log, "ACTION=run-start")
            self.go.touch()
            replies = [each.result() for each in asked]
        self.assertEqual([each.status for each in replies], [200] * 5)
        rows = [each.json()["results"][0] for each in replies]
        self.assertEqual(
            {(each["exit"], each["stdout"]) for each in rows}, {(7, "begun\nended\n")}
        )
        self.assertEqual(len({each["reqid"] for each in rows}), 1)
        self.assertEqual(self.starts(), 1)

    def test_killed(self) -> None:
        """
        The API is killed before it answers. Whoever sends the order again, to the
        next one, gets what came of the first.
        """
        client = self.api_client()
        client.begin("POST", "/run", self.order, **self.key)
        self.await_line(self.agent.log, "ACTION=run-start")
        self.api.kill()
        self.end(self.api)
        self.serve_api()
        self.go.touch()
        reply = self.api_client().ask("POST", "/run", self.order, **self.key)
        (row,) = reply.json()["results"]
        self.assertEqual((row["exit"], row["stdout"]), (7, "begun\nended\n"))
        self.assertEqual((row["state"], self.starts()), ("failed", 1))
        other = {**self.order, "args": ["x"]}
        reply = self.api_client().ask("POST", "/run", other, **self.key)
        self.assertEqual((reply.status, self.starts()), (422, 1))


class LeavingTests(RunsCase):
    """
    C{on_disconnect}
    """

    def test_cancel(self) -> None:
        """
        A program that wants its run to end with it, and leaves, ends it, and all
        that it has started.
        """
        self.serve_api()
        client = self.api_client()
        order = {
            "hosts": ["agent-one"],
            "script": "long",
            "on_disconnect": "cancel",
        }
        client.begin("POST", "/run", order)
        self.started()
        client.connection.close()
        self.until(lambda: not self.alive(), "it is still there")
        self.await_line(self.log, "ACTION=cancel ")

    def test_keep(self) -> None:
        """
        Whoever says nothing of it finds what came of it later.
        """
        self.serve_api()
        client = self.api_client()
        client.begin("POST", "/run", {"hosts": ["agent-one"], "script": "ends"})
        self.await_line(self.agent.log, "ACTION=run-start")
        client.connection.close()
        self.go.touch()
        self.await_line(self.log, "ACTION=run ")
        (record,) = (self.home / "state" / "runs").glob("*.json")
        reply = self.api_client().ask("GET", f"/status/{record.stem}")
        (row,) = reply.json()["results"]
        self.assertEqual((row["exit"], row["stdout"]), (7, "begun\nended\n"))
