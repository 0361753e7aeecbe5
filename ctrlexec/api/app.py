# SPDX-License-Identifier: AGPL-3.0-only
"""
The routes of the API: a skin over L{ctrlexec.dispatcher.operations}, which holds
no rule of its own (PROTOCOL.md section 8, NEWER-LINE.md section 13).

Each is asked about twice: whether the caller may use the API at all, and by the
operation itself whether they may do that. One decorator sees to the first, so
no route can forget it; what it answers where something is amiss is the table in
L{ctrlexec.api.problems}.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import attrs
from klein import Klein
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from ctrlexec import __version__
from ctrlexec.api import definitions, openapi
from ctrlexec.api.answering import Fields, operation, overloaded
from ctrlexec.api.callers import share_of
from ctrlexec.api.calls import Call
from ctrlexec.api.following import EventStream
from ctrlexec.api.http import ApiRequest
from ctrlexec.api.marks import Mark, Progress
from ctrlexec.api.metrics import CONTENT_TYPE, Live, Metrics
from ctrlexec.api.problems import Answer, Unreadable, no_such_path, wrong_method
from ctrlexec.api.sweeping import swept
from ctrlexec.api.watching import Attended, Unwatched
from ctrlexec.api.work import Streams, Work
from ctrlexec.dispatcher.operations import Dispatcher
from ctrlexec.dispatcher.orders import Caller, Selection
from ctrlexec.dispatcher.results import (
    async_fields,
    cancel_fields,
    discovery_fields,
    ping_fields,
    run_fields,
)
from ctrlexec.dispatcher.settings import DispatcherSettings
from ctrlexec.dispatcher.tracing import on_record
from ctrlexec.errors import InvalidValue, NotAuthorised, NotFound, Overload, StoreError
from ctrlexec.protocol.codec import to_json

_ALL = Selection(())


@attrs.define(eq=False)
class Api:
    """
    The API of a dispatcher.

    @ivar dispatcher: replaced when the settings are read again.
    @ivar streams: the runs that are followed for clients.
    @ivar ready: whether it could do what it is asked for; may block.
    """

    app = Klein()
    # A path is itself: none is corrected, nor is anybody sent elsewhere.
    app.url_map.merge_slashes = False

    dispatcher: Dispatcher
    work: Work
    streams: Streams
    metrics: Metrics
    ready: Callable[[DispatcherSettings], bool]

    # --- the routes ------------------------------------------------------

    @app.route("/", methods=["GET"])
    @operation("index")
    async def index(self, call: Call) -> Fields:
        """
        What there is.
        """
        found = [
            {"method": each.method, "path": each.path, "summary": each.summary}
            for each in definitions.OPERATIONS
        ]
        return {"ok": True, "version": __version__, "operations": found}

    @app.route("/health", methods=["GET"])
    @operation("health")
    async def health(self, call: Call) -> Fields:
        """
        That somebody answers.
        """
        return {"ok": True, "version": __version__}

    @app.route("/run", methods=["POST"])
    @operation("run")
    async def run(self, call: Call) -> Answer:
        """
        Run a script on hosts.
        """
        order, watcher = call.run_order(), Unwatched()
        if order.on_disconnect == "cancel":
            watcher = Attended(call.client, partial(self._cancel, call.caller))
        try:
            report = await self.dispatcher.run(call.caller, order, watcher)
        finally:
            call.client.on_leaving = None
        headers = {definitions.REPLAYED: "true"} if report.replayed else {}
        common = {"ok": True, "reqid": report.reqid}
        if order.asynchronous:
            rows = [async_fields(row) for row in report.rows]
            fields = {**common, "async": True, "results": rows}
            body = to_json({**fields, **_warned(report.warnings)})
            return Answer(202, body, headers=headers)
        results = [run_fields(row) for row in report.rows]
        stopped = {"stopped": True} if report.stopped else {}
        fields = {**common, "results": results, **stopped}
        body = to_json({**fields, **_warned(report.warnings)})
        return Answer(200, body, headers=headers)

    @app.route("/ping", methods=["POST"])
    @operation("ping")
    async def ping(self, call: Call) -> Fields:
        """
        Ask hosts whether their agents are there.
        """
        selection = call.named_selection()
        report = await self.dispatcher.ping(call.caller, selection, Unwatched())
        results = [
            {**ping_fields(row), **({"staged": row.staged} if row.ok else {})}
            for row in report.rows
        ]
        return {"ok": True, "results": results, **_warned(report.warnings)}

    @app.route("/discovery", methods=["GET"])
    @operation("discoverAll")
    async def discover_all(self, call: Call) -> Fields:
        """
        Ask all hosts what they offer.
        """
        return await self._discovered(call.caller, _ALL)

    @app.route("/discovery", methods=["POST"])
    @operation("discover")
    async def discover(self, call: Call) -> Fields:
        """
        Ask hosts what they offer.
        """
        return await self._discovered(call.caller, call.selection())

    @app.route("/status/<path:reqid>", methods=["GET"])
    @operation("status")
    async def status(self, call: Call) -> Fields:
        """
        What became of a run. That there is none, or none any more, and that it
        is not for the caller, look the same.
        """
        await swept(self.dispatcher)
        try:
            with _no_secret(call.reqid):
                record = await self.dispatcher.status(call.caller, call.reqid)
        except StoreError as error:
            raise Unreadable(str(error)) from error
        return {"ok": True, **record.answer()}

    @app.route("/runs/<path:reqid>/cancel", methods=["POST"])
    @operation("cancel")
    async def cancel(self, call: Call) -> Fields:
        """
        End a run. Who may not hears what they would hear of one that is not
        there.
        """
        hosts = call.selection().words
        with _no_secret(call.reqid):
            report = await self.dispatcher.cancel(
                call.caller, call.reqid, hosts, Unwatched()
            )
        results = [cancel_fields(row) for row in report.rows]
        answer = {"ok": True, "reqid": call.reqid, "results": results}
        return {**answer, **_warned(report.warnings)}

    @app.route("/runs/<path:reqid>/events", methods=["GET"])
    @operation("events")
    async def events(self, call: Call) -> Answer | EventStream:
        """
        Tell what a run writes, as it comes. Whoever was cut off goes on from
        there.
        """
        last, reqid = call.headers.get("Last-Event-ID", ""), call.reqid
        mark = Mark.read(last, reqid) if last else Mark()
        if mark.is_done:
            # By this an EventSource knows that it need not come again.
            return Answer(204, b"")
        ours = self.dispatcher
        with _no_secret(reqid):
            # Whether the caller may know of it is asked when it is attached to.
            record = await on_record(ours, reqid)
            progress = Progress(reqid, record.hosts, mark)
            stream = EventStream(call.client, progress, ours.process.reactor)
            hosts, seen = progress.left, progress.seen
            follow = partial(ours.attach, call.caller, reqid, hosts, seen, stream)
            try:
                # What is told as it comes need not wait here for the end.
                follow = partial(follow, bare=True)
                stream.follow(self.streams, follow, self._share_of(call))
            except Overload as overload:
                overloaded(ours, call.client.request, overload)
                raise
            await stream.begun
        return stream

    @app.route("/openapi.json", methods=["GET"])
    @operation("openapi")
    async def openapi(self, call: Call) -> Fields:
        """
        What there is, for programs.
        """
        return openapi.document(max_hosts=self.dispatcher.settings.max_hosts)

    @app.route("/openapi-live.json", methods=["GET"])
    @operation("openapiLive")
    async def openapi_live(self, call: Call) -> Fields:
        """
        The same, with the hosts and scripts of this moment.
        """
        report = await self.dispatcher.discover(call.caller, _ALL, Unwatched())
        return openapi.live_document(
            report.rows,
            max_hosts=self.dispatcher.settings.max_hosts,
            now=int(self.dispatcher.process.now().timestamp()),
        )

    @app.route("/metrics", methods=["GET"])
    @operation("metrics")
    async def exposed_metrics(self, call: Call) -> Answer:
        """
        Counters for Prometheus.
        """
        ours = self.dispatcher
        text = await ours.process.in_thread(
            self.metrics.exposition,
            ours.stores.registry,
            ours.settings.cert,
            Live(
                requests=len(self.work),
                orders=len(ours.process.live),
                streams=len(self.streams),
            ),
        )
        return Answer(200, text, CONTENT_TYPE)

    @app.route("/healthz", methods=["GET"])
    def healthz(self, request: ApiRequest) -> bytes:
        """
        For whoever restarts what hangs: it does not.
        """
        return request.begin(_probed(True))

    @app.route("/readyz", methods=["GET"])
    async def readyz(self, request: ApiRequest) -> bytes:
        """
        For whoever sends requests: whether they would be of use here.
        """
        ours = self.dispatcher
        is_ready = await ours.process.in_thread(self.ready, ours.settings)
        return request.begin(_probed(is_ready))

    @app.handle_errors(HTTPException)  # type: ignore[arg-type]
    def unrouted(self, request: ApiRequest, failure: Failure) -> bytes:
        """
        There is no such route.
        """
        match failure.value:
            case MethodNotAllowed(valid_methods=methods):
                problem = wrong_method(", ".join(sorted(methods or ())))
            case _:
                problem = no_such_path(request.path)
        return request.begin(problem.answer(request.accept))

    # --- parts of them ---------------------------------------------------

    def _share_of(self, call: Call) -> str:
        is_asked = self.dispatcher.settings.auth_hook is not None
        peer, token = call.client.request.peer, call.caller.token
        return share_of(peer, token, is_asked=is_asked)

    def _cancel(self, caller: Caller, reqid: str) -> None:
        """
        End a run whose caller has left, and wanted that to be its end.
        """
        ending = Deferred.fromCoroutine(
            self.dispatcher.cancel(caller, reqid, (), Unwatched())
        )
        # What the hook has said is in the log.
        ending.addErrback(lambda failure: failure.trap(NotAuthorised))
        ending.addErrback(self.work.failed)

    async def _discovered(self, caller: Caller, selection: Selection) -> Fields:
        report = await self.dispatcher.discover(caller, selection, Unwatched())
        hosts = {row.host: discovery_fields(row) for row in report.rows}
        return {"ok": True, "hosts": hosts, **_warned(report.warnings)}


@contextmanager
def _no_secret(reqid: str) -> Iterator[None]:
    """
    That there is no such run, and that it is not for the caller, look the same.
    """
    try:
        yield
    except (NotFound, InvalidValue, NotAuthorised):
        raise NotFound(f"no result for reqid {reqid}") from None


def _warned(warnings: tuple[str, ...]) -> Fields:
    return {"warnings": [*warnings]} if warnings else {}


def _probed(ok: bool) -> Answer:
    return Answer(200 if ok else 503, to_json({"ok": ok}))
