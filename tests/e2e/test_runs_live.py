# SPDX-License-Identifier: AGPL-3.0-only
"""
Live output: however much a script writes, and however slowly somebody reads,
nobody else waits, and nobody's memory grows.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from http.client import HTTPConnection, HTTPResponse
from typing import Any, ClassVar

from tests.e2e.installation import PATIENCE_SECONDS, hang_up
from tests.e2e.lives import RunsCase, memory, most_memory

#: More than what anybody may hold of it, and still on this machine's disk.
KEPT_BYTES = 192 * 2**20
WRITTEN_BYTES = 2**30
#: How much more memory than when it has nothing to do a program may take.
MORE_BYTES = 64 * 2**20
#: A gigabyte of lines, as fast as it goes.
FLOOD = f"#!/bin/sh\nyes 0123456789abcdef | head -c {WRITTEN_BYTES}\n"


class FloodTests(RunsCase):
    """
    A gigabyte, and a reader that takes a kilobyte a second.
    """

    more: ClassVar[Mapping[str, object]] = {"max_output": KEPT_BYTES}

    def setUp(self) -> None:
        super().setUp()
        self.allow("flood", FLOOD)
        hang_up(self.serving)
        self.await_line(self.agent.log, "ACTION=reload")
        # What is loaded at the first run is no growth.
        self.dispatched("run", "agent-one", "long", "--timeout", "1s", "--async")
        self.until(lambda: not self.alive(), "it does not end")
        self.idle = memory(self.serving.pid)
        self.others = 0

    def assertSmall(self, name: str, idle: int, most: int) -> None:
        """
        A program has not grown by more than it may.
        """
        sys.stderr.write(f"[{name}: {idle >> 20} MiB, then {most >> 20} MiB] ")
        self.assertLess(most - idle, MORE_BYTES, name)

    def slowly(self, read: Any) -> None:
        """
        Read a kilobyte a second, for as long as the script takes and a while
        longer.
        """
        seconds = 0
        while len(self.parents()) > self.others or seconds < 5:
            read(1024)
            time.sleep(1)
            seconds += 1
            self.assertLess(seconds, 60)

    def test_commandLine(self) -> None:
        """
        A terminal that is slow holds up neither the script nor the agent, nor
        does its own program grow; whoever reads fast has all that is kept.
        """
        other = self.ctrl_exec("run", "agent-one", "long", "--follow")
        self.started()
        idle = most_memory(other.pid)
        other.kill()
        self.others = 1
        words = ("run", "agent-one", "flood", "--follow")
        asking = self.ctrl_exec(*words, pipesize=4096)
        assert asking.stdout is not None
        self.slowly(asking.stdout.read)
        self.assertSmall("the agent", self.idle, most_memory(self.serving.pid))
        self.assertSmall("the command", idle, most_memory(asking.pid))
        self.assertIsNone(asking.poll())
        asking.kill()

    def test_agent(self) -> None:
        """
        A peer that is slow holds up nobody: another one, which comes later,
        has the whole of it first.
        """
        slow = self.stream("/run", script="flood", reqid="flood", stream=True)
        slow.until("stdout")
        fast = self.stream("/follow", reqid="flood")
        end = 0
        for event in iter(fast.event, {}):
            end = event.get("end", end)
            if "result" in event:
                self.assertEqual(event["result"]["stdout_bytes"], WRITTEN_BYTES)
        self.assertEqual(end, KEPT_BYTES)
        self.slowly(slow.response.read)
        self.assertSmall("the agent", self.idle, most_memory(self.serving.pid))

    def test_plain(self) -> None:
        """
        An answer that is made at the end, of all that is kept, has a bound too.
        """
        self.allow("some", FLOOD, "max_output=1M")
        hang_up(self.serving)
        self.await_line(self.agent.log, "ACTION=reload", None, 2)
        answer = self.raw().run("some", reqid="some")
        self.assertTrue(
            answer["stdout"].endswith(
                f"[stdout cut: {2**20} of {WRITTEN_BYTES} bytes kept]\n"
            ),
            answer["stdout"][-100:],
        )
        self.assertSmall("the agent", self.idle, most_memory(self.serving.pid))

    def test_api(self) -> None:
        """
        A browser that is slow does not fill the API.
        """
        api = self.serve_api()
        client = self.api_client()
        order = {"hosts": ["agent-one"], "script": "long", "async": True}
        first = client.ask("POST", "/run", order).json()["reqid"]
        client.ask("POST", f"/runs/{first}/cancel", {})
        idle = memory(api.pid)
        order["script"] = "flood"
        reqid = client.ask("POST", "/run", order).json()["reqid"]
        response = self.events(reqid)
        self.slowly(response.read)
        self.assertSmall("the agent", self.idle, most_memory(self.serving.pid))
        self.assertSmall("the API", idle, most_memory(api.pid))
        self.assertEqual(client.ask("GET", "/health").status, 200)

    def events(self, reqid: str) -> HTTPResponse:
        """
        Follow a run through the API.
        """
        connection = HTTPConnection(
            "127.0.0.1", self.api_port, timeout=PATIENCE_SECONDS
        )
        self.addCleanup(connection.close)
        connection.request("GET", f"/runs/{reqid}/events")
        return connection.getresponse()


class EventsTests(RunsCase):
    """
    Server-sent events.
    """

    def events(self, reqid: str, mark: str = "") -> HTTPResponse:
        """
        Follow a run, from an event on.
        """
        client = self.api_client()
        headers = {"Last-Event-ID": mark} if mark else {}
        client.connection.request("GET", f"/runs/{reqid}/events", headers=headers)
        response = client.connection.getresponse()
        self.assertEqual(response.status, 200)
        self.assertEqual(response.headers["Content-Type"], "text/event-stream")
        return response

    def told(self, response: HTTPResponse) -> Iterator[tuple[str, str, Any]]:
        """
        The events as they come: name, id, data.
        """
        event: dict[str, str] = {}
        for line in response:
            name, found, value = line.decode().rstrip("\n").partition(": ")
            if found:
                event[name] = value
            elif "event" in event:
                yield event["event"], event.get("id", ""), json.loads(event["data"])
                event = {}

    def test_apiKilled(self) -> None:
        """
        The API is killed in the middle. The next one goes on from the event that
        the client has seen, and has the end.
        """
        api = self.serve_api()
        order = {"hosts": ["agent-one"], "script": "ends", "async": True}
        reqid = self.api_client().ask("POST", "/run", order).json()["reqid"]
        mark = ""
        for name, seen, data in self.told(self.events(reqid)):
            if name == "stdout":
                self.assertEqual(data["stdout"], "begun\n")
                mark = seen
                break
        api.kill()
        self.end(api)
        self.serve_api()
        response = self.events(reqid, mark)
        self.go.touch()
        rest = [(name, data) for name, _, data in self.told(response)]
        said = "".join(data["stdout"] for name, data in rest if name == "stdout")
        self.assertEqual(said, "ended\n")
        ((_, result),) = [each for each in rest if each[0] == "result"]
        self.assertEqual((result["exit"], result["state"]), (7, "failed"))
        self.assertEqual(rest[-1][0], "done")

    def test_dispatchersShare(self) -> None:
        """
        What the API has started the command line can attach to, and the other
        way round.
        """
        self.serve_api()
        order = {"hosts": ["agent-one"], "script": "ends", "async": True}
        reqid = self.api_client().ask("POST", "/run", order).json()["reqid"]
        attached: subprocess.Popen[str] = self.ctrl_exec("--direct", "attach", reqid)
        self.go.touch()
        self.assertIn("begun\nended\n", self.ended(self.end(attached), 1))
        self.go.unlink()
        reqid = self.reqid_of("ends")
        response = self.events(reqid)
        self.go.touch()
        self.assertIn("done", [name for name, _, _ in self.told(response)])
