# SPDX-License-Identifier: AGPL-3.0-only
"""
Tests of runs that are followed through the API: L{ctrlexec.api.following} and
its route. They are over 400 lines: a client can come, go, read slowly and come
back in many ways, and what is scripted for one is scripted for all.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ctrlexec.api.following import HEARTBEAT_SECONDS, READ_SECONDS
from ctrlexec.dispatcher.orders import Seen
from ctrlexec.dispatcher.results import Outcome
from ctrlexec.errors import NotAuthorised, NotFound, StoreError
from ctrlexec.protocol import limits
from ctrlexec.protocol.run_messages import ASKED_AGAIN
from tests.apis import asking
from tests.scripted_dispatchers import REQID, Event, ScriptedCase, row

PATH = f"/runs/{REQID}/events"
NOT_FOUND = (
    b'{"ok":false,"error":"not found","detail":"no result for reqid %s"}'
    % REQID.encode()
)


class EventTests(ScriptedCase):
    """
    What a client hears.
    """

    def setUp(self) -> None:
        super().setUp()
        self.recorded("web-1", "web-2")

    def test_bytes(self) -> None:
        """
        This is all of it, as the HTML standard has it, in pieces: nobody knows
        how long it will be.
        """
        stream = self.follow()
        first, fields = stream.head()
        self.assertEqual(first, "HTTP/1.1 200 OK")
        self.assertEqual(fields["content-type"], "text/event-stream")
        self.assertEqual(fields["cache-control"], "no-store")
        self.assertEqual(fields["transfer-encoding"], "chunked")
        self.assertEqual(stream.text(), "retry: 1000\n\n")
        self.output("web-1", "a\nü", 5)
        self.assertRegex(
            stream.text(),
            r"^event: stdout\nid: [A-Za-z0-9_-]+\n"
            r'data: \{"host":"web-1","t":1.5,"stdout":"a\\n\\u00fc","end":5\}\n\n$',
        )

    def test_life(self) -> None:
        """
        A run is told from its state to its end; then the stream is over, and the
        connection is good for more.
        """
        stream = self.follow()
        stream.head()
        self.state("web-1", "running")
        self.output("web-1", "one", 3)
        self.script.watchers[0].arrived(row("web-1", stdout="one"))
        failed = row("web-2", outcome=Outcome.DENIED, exit=-1, error="nobody")
        self.script.watchers[0].arrived(failed)
        self.end(row("web-1"), failed)
        found = stream.events()
        self.assertEqual(
            [each.name for each in found],
            ["state", "stdout", "result", "result", "done"],
        )
        self.assertEqual(found[0].data, {"host": "web-1", "t": 0.0, "state": "running"})
        self.assertEqual(
            found[2].data,
            {
                "host": "web-1",
                "script": "backup",
                "exit": 0,
                "rtt": "0ms",
                "reqid": REQID,
                "state": "ok",
            },
        )
        self.assertEqual(found[3].data["error"], "nobody")
        self.assertEqual(found[4].data, {"ok": True, "reqid": REQID})
        self.assertEqual(len({each.mark for each in found[1:]}), 4)
        self.assertEqual(len(self.streams), 0)
        stream.wire.send(asking("GET", "/health"))
        self.assertEqual(stream.wire.reply().status, 200)

    def test_forPeople(self) -> None:
        """
        That an agent is asked again is no state of a run.
        """
        stream = self.follow()
        stream.head()
        self.state("web-1", ASKED_AGAIN)
        self.state("web-1", "running")
        (event,) = stream.events()
        self.assertEqual(event.data["state"], "running")

    def test_atOnce(self) -> None:
        """
        A run that is over is told at once.
        """
        self.script.reports.clear()
        stream = self.follow()
        self.end()
        stream.head()
        self.assertEqual([each.name for each in stream.events()], ["done"])
        self.assertEqual(self.reactor.getDelayedCalls()[1:], [])

    def test_nobody(self) -> None:
        """
        What is not there, and what the caller may not see, looks like what
        C{/status} says of it.
        """
        for refusal in (NotFound("x"), NotAuthorised("no", 1)):
            self.script.refusal = refusal
            reply = self.ask("GET", PATH)
            self.assertEqual((reply.status, reply.body), (404, NOT_FOUND))
        self.script.refusal = None
        for path in ("/runs/fedcba9876543210/events", "/runs/a.b/events"):
            self.assertEqual(self.ask("GET", path).status, 404)
        self.assertEqual(self.script.watchers, [])

    def test_gate(self) -> None:
        """
        Who may not use the API may not follow anything, nor may a web page.
        """
        self.assertEqual(self.ask("GET", PATH, None, "Origin: null").status, 403)
        self.dispatcher = self.made("")
        self.play()
        self.assertEqual(self.ask("GET", PATH).status, 403)
        self.assertEqual(self.script.attached, [])

    def test_fault(self) -> None:
        """
        What goes wrong before anything is told is answered as ever; after that
        the answer is cut off, and the log says why.
        """
        self.script.refusal = StoreError(self.directory, "is odd")
        self.assertEqual(self.ask("GET", PATH).status, 500)
        self.script.refusal = None
        stream = self.follow()
        self.script.reports[-1].errback(Failure(ZeroDivisionError()))
        self.assertTrue(stream.wire.transport.half_closed)
        self.assertNotIn(b"0\r\n\r\n", stream.wire.transport.value())
        self.assertEqual(len(self.logged("api-fail")), 2)
        stream.wire.leave()
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_head(self) -> None:
        """
        Who asks for the header only has no host asked.
        """
        self.wire().send(asking("HEAD", PATH))
        self.assertFalse(self.script.watchers[0].wanted())
        self.end()
        self.assertEqual(len(self.streams), 0)

    def test_oldClient(self) -> None:
        """
        To one that does not know pieces the end of the connection is the end.
        """
        wire = self.wire().send(asking("GET", PATH, minor=0))
        self.output("web-1", "one", 3)
        self.end()
        head, _, body = wire.transport.value().partition(b"\r\n\r\n")
        self.assertNotIn(b"chunked", head)
        self.assertTrue(body.endswith(b'"reqid":"%s"}\n\n' % REQID.encode()))
        self.assertTrue(wire.transport.half_closed)


class ResumeTests(ScriptedCase):
    """
    Clients that come back.
    """

    def setUp(self) -> None:
        super().setUp()
        self.recorded("web-1", "web-2", "web-3")

    def heard(self, *rows: str) -> list[Event]:
        """
        What a client hears that then loses its connection.
        """
        stream = self.follow()
        stream.head()
        self.output("web-1", "one", 3)
        self.output("web-2", "three", 500)
        for host in rows:
            self.script.watchers[-1].arrived(row(host))
        found = stream.events()
        stream.wire.leave()
        return found

    def test_goesOn(self) -> None:
        """
        They hear what they have not heard, of an API that knows nothing of them.
        """
        last = self.heard("web-3")[-1].mark
        self.play()
        stream = self.follow(last)
        stream.head()
        self.assertEqual(
            self.script.attached[-1],
            (("web-1", "web-2"), {"web-1": Seen(3, 0), "web-2": Seen(500, 0)}),
        )
        self.output("web-3", "again", 5)
        self.script.watchers[-1].arrived(row("web-3"))
        self.output("web-1", "two", 6)
        (event,) = stream.events()
        self.assertEqual((event.name, event.data["stdout"]), ("stdout", "two"))
        self.assertNotEqual(event.mark, last)

    def test_eachEvent(self) -> None:
        """
        They can go on behind any event.
        """
        self.streams.most = 8
        first, second, third = self.heard("web-1")
        for event, seen in (
            (first, {"web-1": Seen(3, 0)}),
            (second, {"web-1": Seen(3, 0), "web-2": Seen(500, 0)}),
            (third, {"web-2": Seen(500, 0)}),
        ):
            self.follow(event.mark)
            self.assertEqual(self.script.attached[-1][1], seen)

    def test_notReached(self) -> None:
        """
        A host that could not be asked is asked again; one that has no more to
        say is not.
        """
        stream = self.follow()
        stream.head()
        watcher = self.script.watchers[-1]
        self.output("web-1", "one", 3)
        for host, outcome, error in (
            ("web-1", Outcome.UNREACHABLE, "nobody is there"),
            ("web-2", Outcome.RUNNING, None),
            ("web-3", Outcome.UNKNOWN, None),
        ):
            watcher.arrived(row(host, outcome=outcome, exit=-1, error=error))
        last = stream.events()[-1].mark
        stream.wire.leave()
        self.follow(last)
        self.assertEqual(
            self.script.attached[-1], (("web-1", "web-2"), {"web-1": Seen(3, 0)})
        )

    def test_done(self) -> None:
        """
        Who has all of it is told not to come again.
        """
        stream = self.follow()
        stream.head()
        self.end()
        (done,) = stream.events()
        reply = self.ask("GET", PATH, None, f"Last-Event-ID: {done.mark}")
        self.assertEqual((reply.status, reply.body), (204, b""))
        self.assertNotIn("content-length", reply.fields)
        self.assertEqual(len(self.script.attached), 1)

    def test_bad(self) -> None:
        """
        What is no id of this run is refused, whether or not there is such a
        run; none at all is as good as an empty one.
        """
        mark = self.heard()[-1].mark
        for path in (PATH, "/runs/fedcba9876543210/events"):
            for bad in ("1", "ä", mark[:-1], "a" * 9000, f"{mark} {mark}"):
                reply = self.ask("GET", path, None, f"Last-Event-ID: {bad}")
                self.assertEqual(reply.status, 400, bad)
                self.assertIn("Last-Event-ID", reply.json()["detail"])
        other = f"Last-Event-ID: {mark}"
        path = "/runs/fedcba9876543210/events"
        self.assertEqual(self.ask("GET", path, None, other).status, 400)
        self.follow("").head()
        self.assertEqual(self.script.attached[-1], ((), {}))


class PressureTests(ScriptedCase):
    """
    Clients that read slowly, or not at all, or leave.
    """

    def setUp(self) -> None:
        super().setUp()
        self.recorded("web-1", "web-2")

    def test_slow(self) -> None:
        """
        An agent waits until its client has room again; so does another one of
        the same run, and nothing else.
        """
        stream = self.follow()
        stream.wire.transport.room = 10
        first = self.output("web-1", "x" * 1000, 1000)
        second = self.output("web-2", "y" * 1000, 1000)
        assert first is not None and second is not None
        written = len(stream.wire.transport.value())
        self.assertNoResult(first)
        self.assertNoResult(second)
        other = self.follow()
        self.assertIsNone(self.output("web-1", "x", 1))
        self.assertEqual(len(other.wire.transport.value()) > 0, True)
        self.assertEqual(len(stream.wire.transport.value()), written)
        stream.wire.transport.read_by_peer(1_000_000)
        self.successResultOf(first)
        self.successResultOf(second)
        self.assertGreater(len(stream.wire.transport.value()), written + 1000)

    def test_patience(self) -> None:
        """
        A client that is slow is left in peace for longer than one that does not
        read an answer of the usual kind, and not for ever.
        """
        stream = self.follow()
        stream.wire.transport.room = 10
        self.output("web-1", "x" * 100_000, 100_000)
        self.reactor.advance(READ_SECONDS - 1)
        self.assertFalse(stream.wire.transport.aborted)
        self.reactor.advance(1)
        self.assertTrue(stream.wire.transport.aborted)
        stream.wire.leave()
        self.assertEqual(self.script.dropped, 1)

    def test_patienceEnds(self) -> None:
        """
        The next answer of the same connection has the usual time.
        """
        stream = self.follow()
        stream.head()
        self.end()
        stream.text()
        stream.wire.transport.room = 0
        stream.wire.send(asking("GET", "/openapi.json"))
        self.reactor.advance(limits.WRITE_SECONDS)
        self.assertTrue(stream.wire.transport.aborted)

    def test_leaves(self) -> None:
        """
        A client that leaves ends what it follows, and nothing else; whoever
        waits for it to read is not left waiting.
        """
        stream = self.follow()
        stream.wire.transport.room = 10
        waiting = self.output("web-1", "x" * 1000, 1000)
        assert waiting is not None
        stream.wire.leave()
        self.successResultOf(waiting)
        self.assertEqual(self.script.dropped, 1)
        self.assertFalse(self.script.watchers[0].wanted())
        self.assertEqual(len(self.streams), 0)
        self.assertEqual(self.script.cancelled, [])
        self.assertEqual(self.logged("api-fail"), [])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_heartbeat(self) -> None:
        """
        A client that is told nothing hears that it is not forgotten; one that
        does not read is not told even that.
        """
        stream = self.follow()
        stream.head()
        stream.text()
        self.reactor.advance(HEARTBEAT_SECONDS)
        self.assertEqual(stream.text(), ":\n\n")
        stream.wire.transport.room = 10
        self.output("web-1", "x" * 1000, 1000)
        stream.text()
        for _ in range(5):
            self.reactor.advance(HEARTBEAT_SECONDS)
        self.assertEqual(stream.text(), "")
        self.end()
        stream.wire.transport.read_by_peer(1_000_000)
        self.assertNotIn(":\n\n", stream.text())


async def forever() -> None:
    """
    What somebody else follows.
    """
    await Deferred()


class CrowdTests(ScriptedCase):
    """
    Many clients that only look on.
    """

    def setUp(self) -> None:
        super().setUp()
        self.recorded("web-1")

    def test_bound(self) -> None:
        """
        There is a bound on them, which keeps nobody from anything else.
        """
        self.streams.most = 2
        self.streams.begin(forever, "another").addErrback(lambda _: None)
        streams = [self.follow()]
        reply = self.ask("GET", PATH)
        self.assertEqual((reply.status, reply.fields["retry-after"]), (503, "1"))
        self.assertEqual(
            self.logged("api-overload"), ["ACTION=api-overload LIVE=2 PEER=192.0.2.9"]
        )
        self.assertEqual(self.ask("GET", "/health").status, 200)
        self.assertEqual(len(self.work), 0)
        streams[0].wire.leave()
        self.assertEqual(self.follow().head()[0], "HTTP/1.1 200 OK")

    def test_stop(self) -> None:
        """
        An API that ends ends them, in a way that they come back from.
        """
        stream = self.follow()
        stream.head()
        self.output("web-1", "one", 3)
        self.streams.end()
        self.assertEqual([each.name for each in stream.events()], ["stdout"])
        self.assertEqual(len(self.streams), 0)
        self.assertEqual(self.ask("GET", PATH).status, 503)
        self.assertEqual(self.logged("api-fail"), [])
        stream.wire.send(asking("GET", "/health"))
        self.assertEqual(stream.wire.reply().status, 200)
